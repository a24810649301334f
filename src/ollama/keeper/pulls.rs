//! What repeated failures of pulls have in common.

use std::time::Duration;

use crate::ollama::pull::{Progress, PullCause, PullError};

/// Corrupted whole downloads before pulls pause.
const MAX_CORRUPTED: u32 = 3;
const CORRUPTED_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Interruptions at one place before the message names that place.
const MANY_CUTS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Pulls {
    corrupted: u32,
    /// No pull before this time, even after a restart of Ollama; and why.
    not_before: Duration,
    why: String,
    cuts: u32,
    furthest: u64,
}

impl Pulls {
    /// A pull has failed at `now`, after `far`; the message for the operator.
    pub(super) fn failed(&mut self, error: &PullError, far: &Progress, model: &str, now: Duration) -> String {
        let why = &error.why;
        match error.cause {
            PullCause::WrongBytes => {
                self.corrupted += 1;
                if self.corrupted < MAX_CORRUPTED {
                    return format!("{why}; whole downloads so far: {} of {MAX_CORRUPTED}", self.corrupted);
                }
                self.not_before = now + CORRUPTED_PAUSE;
                self.why = format!(
                    "downloaded {} times, corrupted each time; the next try is in 24 h. Find the cause, then run `agent-net pull {model}`. {why}",
                    self.corrupted
                );
                self.why.clone()
            }
            PullCause::Cut if far.total > 0 => {
                self.cuts = if far.completed > self.furthest { 1 } else { self.cuts + 1 };
                self.furthest = self.furthest.max(far.completed);
                if self.cuts < MANY_CUTS {
                    return why.clone();
                }
                format!(
                    "interrupted {} times at {} %: the registry, or a proxy in front of it, ends the transfer there. Try another network or registry. {why}",
                    self.cuts, far.percent
                )
            }
            PullCause::Cut | PullCause::NoAnswer | PullCause::Other => why.clone(),
        }
    }

    /// Why pulls are paused; None: they are not.
    pub(super) fn rest(&self, now: Duration) -> Option<&str> {
        (now < self.not_before).then_some(self.why.as_str())
    }

    /// The model is pulled, by the worker or another client.
    pub(super) fn done(&mut self) {
        *self = Self::default();
    }
}
