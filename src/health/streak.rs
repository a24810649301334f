//! Conditions that must last: for some samples, or for some time.

use std::time::Duration;

/// Samples in a row that raise a condition.
const SAMPLES: u32 = 3;

/// Becomes true after N samples in a row, false as soon as the condition has cleared.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Streak<const N: u32 = SAMPLES> {
    count: u32,
    held: bool,
}

impl<const N: u32> Streak<N> {
    pub(super) fn see(&mut self, raised: bool, cleared: bool) {
        self.count = if raised { self.count.saturating_add(1) } else { 0 };
        self.held = self.count >= N || (self.held && !cleared);
    }

    pub(crate) fn held(self) -> bool {
        self.held
    }
}

/// A condition counts once it has lasted this long: a machine with NVSwitches registers its GPUs while it starts.
const LASTING: Duration = Duration::from_secs(300);

/// For how long a condition has been seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lasting {
    since: Option<Duration>,
    lasted: Duration,
}

impl Lasting {
    pub(super) fn see(&mut self, at: Duration, raised: bool) {
        self.since = if raised { self.since.or(Some(at)) } else { None };
        self.lasted = self.since.map_or(Duration::ZERO, |since| at.saturating_sub(since));
    }

    pub(crate) fn held(self) -> bool {
        self.lasted >= LASTING
    }

    /// Whole minutes.
    pub(crate) fn minutes(self) -> u64 {
        self.lasted.as_secs() / 60
    }
}
