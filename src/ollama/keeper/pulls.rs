//! What pulls that failed have in common.

use std::time::Duration;

use crate::ollama::pull::{Cause, Progress, PullError};

/// Whole downloads that came with wrong bytes, before nothing is loaded for a while.
const MOST_WRONG: u32 = 3;
const WRONG_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// A pull that ended so often at one place will end there again.
const MANY_CUTS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Pulls {
    wrong: u32,
    /// No pull before, whatever else happens, Ollama's restart included; and why.
    not_before: Duration,
    why: String,
    cuts: u32,
    furthest: u64,
}

impl Pulls {
    /// A pull that came so far has failed at `now`; what there is to say of it.
    pub(super) fn failed(&mut self, error: &PullError, far: &Progress, model: &str, now: Duration) -> String {
        let why = &error.why;
        match error.cause {
            Cause::WrongBytes => {
                self.wrong += 1;
                if self.wrong < MOST_WRONG {
                    return format!("{why}; whole downloads so far: {} of {MOST_WRONG}", self.wrong);
                }
                self.not_before = now + WRONG_PAUSE;
                self.why = format!(
                    "it was downloaded {} times, and came with wrong bytes each time: the next try is in 24 h; find the cause, then run agent-net pull {model}. {why}",
                    self.wrong
                );
                self.why.clone()
            }
            Cause::Cut if far.total > 0 => {
                self.cuts = if far.completed > self.furthest { 1 } else { self.cuts + 1 };
                self.furthest = self.furthest.max(far.completed);
                if self.cuts < MANY_CUTS {
                    return why.clone();
                }
                format!(
                    "cut off {} times at {} %, and never got further: the registry, or a proxy before it, ends the transfer there; try another network or registry. {why}",
                    self.cuts, far.percent
                )
            }
            Cause::Cut | Cause::Other => why.clone(),
        }
    }

    /// Why nothing is pulled now.
    pub(super) fn rest(&self, now: Duration) -> Option<&str> {
        (now < self.not_before).then_some(self.why.as_str())
    }

    /// The model is there, whoever pulled it.
    pub(super) fn done(&mut self) {
        *self = Self::default();
    }
}
