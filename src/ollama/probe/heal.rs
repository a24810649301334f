//! When a model that fell to the CPU is unloaded and loaded again. Time is an argument.

use std::time::Duration;

use super::state::Look;
use crate::sys::backoff::Backoff;

/// Between two attempts; after one that did not help for this long, twice as long.
const FIRST: Duration = Duration::from_secs(3600);
/// A model in use is looked at again after this long.
const AGAIN: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_secs(24 * 3600);
/// It stays on the CPU this long first: a list that was read during a load proves nothing.
const SETTLED: Duration = Duration::from_secs(30);
/// A client that used it more recently may come back, and would wait for the load. A use just after a request of ours is
/// taken for ours, and one under way moves no expiry: both may be missed for a minute.
const QUIET: Duration = Duration::from_secs(180);
/// What the weights need beside what Ollama lists for them on the CPU: buffers of the GPU.
const SPARE: u64 = 512 << 20;

#[derive(Debug)]
pub(crate) struct HealState {
    next: Duration,
    waits: Backoff,
    /// Since when it has been on the CPU.
    since: Option<Duration>,
    /// Since when it has been on a GPU.
    healed: Option<Duration>,
}

impl Default for HealState {
    fn default() -> Self {
        Self { next: Duration::ZERO, waits: Backoff::new(FIRST, LAST), since: None, healed: None }
    }
}

impl HealState {
    /// Bytes that must be free on a healthy GPU for a new attempt; None: no attempt now. `fell`: no GPU works for it any more,
    /// although Ollama lists it on one.
    pub(crate) fn due(&mut self, look: &Look<'_>, fell: bool, now: Duration) -> Option<u64> {
        let Some(loaded) = look.status.loaded else {
            self.since = None;
            return None;
        };
        if loaded.vram_bytes > 0 && !fell {
            self.since = None;
            // A client may load it on the CPU again, on purpose.
            if now.saturating_sub(*self.healed.get_or_insert(now)) >= FIRST {
                self.waits.success();
            }
            return None;
        }
        self.healed = None;
        let settled = now.saturating_sub(*self.since.get_or_insert(now)) >= SETTLED;
        // Past its expiry it serves a request; without one that is unknown.
        let free = loaded.expires_at.is_some_and(|at| at > look.clock);
        let quiet = look.since_client.is_none_or(|since| since >= QUIET) && !look.left_alone && !loaded.outdated;
        let size = loaded.size_bytes?.checked_add(SPARE)?;
        (settled && free && quiet && now >= self.next).then_some(size)
    }

    /// A client uses the model.
    pub(crate) fn postponed(&mut self, now: Duration) {
        self.next = self.next.max(now + AGAIN);
    }

    /// An attempt has ended; the next one comes in an hour at the earliest.
    pub(crate) fn tried(&mut self, now: Duration) {
        self.since = None;
        self.next = now + self.waits.after_failure(0.0);
    }
}

#[cfg(test)]
mod tests;
