//! What receivers are notified of, and what makes two states the same.

use std::sync::Arc;
use std::time::Duration;

use crate::health::standing::Standing;
use crate::health::verdict::Verdict;
use crate::sys::hash::hash64;
use crate::sys::order;

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// The first settled state of a run.
    Started,
    Verdict,
    /// SIGTERM.
    Stopping,
    /// `agent-net notify --test`.
    Test,
}

impl EventKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Verdict => "verdict",
            Self::Stopping => "stopping",
            Self::Test => "test",
        }
    }
}

/// The state does not settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flapping {
    /// Since the state was last settled, and how long ago that was.
    pub(crate) changes: u32,
    pub(crate) during: Duration,
}

/// One message, the same for all receivers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) worker: Arc<str>,
    /// None: a test, and no worker runs.
    pub(crate) standing: Option<Standing>,
    /// Unix seconds: since when it is so.
    pub(crate) since: f64,
    pub(crate) flapping: Option<Flapping>,
    /// It repeats that the state does not settle.
    pub(crate) reminder: bool,
    /// How long the verdict was not ok, if it is now.
    pub(crate) lasted: Option<Duration>,
    /// Identifies the message; retries have the same.
    pub(crate) id: String,
}

impl Event {
    /// An event of this moment (Unix seconds), without anything special.
    pub(crate) fn new(kind: EventKind, worker: &Arc<str>, standing: Option<Standing>, unix: f64) -> Self {
        let id = hash64(&[worker, kind.name(), &unix.to_bits().to_string()]);
        Self {
            kind,
            worker: Arc::clone(worker),
            standing,
            since: unix,
            flapping: None,
            reminder: false,
            lasted: None,
            id: format!("{id:016x}"),
        }
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.standing.as_ref().map(|standing| standing.verdict)
    }

    /// What a receiver knows once it has the message.
    pub(crate) fn state(&self) -> u64 {
        let state = self.standing.as_ref().map_or(0, state_of);
        if self.flapping.is_some() { !state } else { state }
    }
}

/// Verdict and reasons without their numbers: messages of the same finding differ from sample to sample.
pub(crate) fn state_of(standing: &Standing) -> u64 {
    let mut reasons: Vec<[&str; 3]> = standing
        .reasons
        .iter()
        .map(|reason| [reason.code.name(), reason.severity.name(), reason.gpu.as_deref().unwrap_or_default()])
        .collect();
    order::sort(&mut reasons);
    hash64(&[&[standing.verdict.name()][..], &reasons.concat()].concat())
}

/// States for tests.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::health::verdict::{Code, Reason};

    pub(crate) fn standing(codes: &[(Code, Verdict)]) -> Standing {
        let reason = |(code, severity): &(Code, Verdict)| {
            let message = format!("GPU 0: {}", code.name().to_ascii_lowercase());
            Reason::new(*code, *severity, Some("GPU-0".into()), message, "Reboot the host.", 1000.0)
        };
        let reasons: Vec<Reason> = codes.iter().map(reason).collect();
        Standing { verdict: crate::health::verdict::worst(&reasons), reasons, gpus: 2 }
    }

    pub(crate) fn ok() -> Standing {
        standing(&[])
    }

    pub(crate) fn lost() -> Standing {
        standing(&[(Code::GpuLost, Verdict::Unhealthy)])
    }

    pub(crate) fn hot() -> Standing {
        standing(&[(Code::TempHigh, Verdict::Degraded)])
    }
}

#[test]
fn numbers_make_no_other_state_and_reasons_do() {
    use crate::health::verdict::Code;
    let mut warmer = samples::hot();
    warmer.reasons[0].message = "GPU 0: 94 °C".into();
    warmer.reasons[0].numbers(94, 90);
    assert_eq!(state_of(&warmer), state_of(&samples::hot()));
    let both = [(Code::TempHigh, Verdict::Degraded), (Code::GpuLost, Verdict::Unhealthy)];
    let swapped = [both[1], both[0]];
    assert_eq!(state_of(&samples::standing(&both)), state_of(&samples::standing(&swapped)));
    let mut other_gpu = samples::hot();
    other_gpu.reasons[0].gpu = Some("GPU-1".into());
    let all = [samples::ok(), samples::lost(), samples::hot(), samples::standing(&both), other_gpu];
    let different = order::set(all.iter().map(state_of));
    assert_eq!(different.len(), all.len());
}
