//! Waits between retries.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// Doubles from `first` to `last`; a success resets it.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The wait after a failure. `jitter` in 0..1 takes up to a quarter off, so that many workers do not retry at the
    /// same moment.
    pub(crate) fn after_failure(&mut self, jitter: f64) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.last);
        wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }

    pub(crate) fn success(&mut self) {
        self.next = self.first;
    }
}

/// Random, 0..1. A part of the clock would not do: workers that lose an orchestrator at the same moment would all wait
/// equally long.
pub(crate) fn jitter() -> f64 {
    // Each RandomState has keys of its own.
    (RandomState::new().hash_one(0) % 1000) as f64 / 1000.0
}

#[test]
fn workers_that_fail_at_the_same_moment_wait_differently() {
    let waits: Vec<f64> = (0..100).map(|_| jitter()).collect();
    assert!(waits.iter().all(|wait| (0.0..1.0).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < 0.5) && waits.iter().any(|wait| *wait >= 0.5), "{waits:?}");
}

#[test]
fn it_doubles_to_its_limit_and_resets() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let waits: Vec<u64> = (0..8).map(|_| backoff.after_failure(0.0).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    backoff.success();
    assert_eq!(backoff.after_failure(1.0), Duration::from_millis(750));
}
