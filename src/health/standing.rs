//! The verdict and its reasons as they are now: those of the last snapshot, and that it is too old.

use std::time::Duration;

use super::snapshot::Snapshot;
use super::verdict::{self, Reason, Verdict};

/// What whoever is notified hears about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) verdict: Verdict,
    /// Worst first.
    pub(crate) reasons: Vec<Reason>,
    /// Usable GPUs.
    pub(crate) gpus: usize,
}

impl Standing {
    /// `interval`: SAMPLE_INTERVAL. `age`: of the snapshot. `now`: Unix seconds.
    pub(crate) fn new(snapshot: &Snapshot, interval: Duration, age: Duration, now: f64) -> Self {
        let stale = verdict::stale(age, interval, now);
        let mut reasons: Vec<Reason> = stale.into_iter().chain(snapshot.reasons.iter().cloned()).collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
        Self { verdict: verdict::worst(&reasons), reasons, gpus: snapshot.gpu_count() }
    }
}
