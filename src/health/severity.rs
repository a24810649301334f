//! How bad a reason is, and a verdict.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::exit::Exit;

/// Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Unknown,
    Degraded,
    Unhealthy,
}

impl Verdict {
    /// From best to worst.
    pub(crate) const ORDER: [Self; 4] = [Self::Ok, Self::Unknown, Self::Degraded, Self::Unhealthy];
    /// In the order in which they are listed.
    pub(crate) const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Unhealthy, Self::Unknown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Degraded => Self::Failed,
            Verdict::Unhealthy => Self::Unhealthy,
            Verdict::Unknown => Self::Unknown,
        }
    }
}
