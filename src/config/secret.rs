//! A value that is never shown.

use std::fmt;

/// A token or a password: its Debug form is stars.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// None: a header cannot carry it, or it is longer than 4096 bytes.
    pub(crate) fn new(value: String) -> Option<Self> {
        Self::fits(&value).then_some(Self(value))
    }

    pub(crate) fn fits(value: &str) -> bool {
        !value.is_empty() && value.len() <= 4096 && value.bytes().all(|b| b.is_ascii_graphic())
    }

    /// The value itself, for the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
