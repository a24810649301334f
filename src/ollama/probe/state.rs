//! When a loaded model of MODEL is probed, and what the outcomes add up to. Time is an argument; `prober` does what this
//! decides.

use std::time::Duration;

use super::answer::{Answered, Outcome};
use crate::config::ProbeSettings;
use crate::ollama::models::ModelStatus;

/// After the start of the worker, and after a load.
const FIRST: Duration = Duration::from_secs(20);
/// After a probe without an answer, and after one that reached no model.
const RETRY: Duration = Duration::from_secs(30);
/// A model that a client used more recently is left to it.
const QUIET: Duration = Duration::from_secs(30);
/// A reason against a probe that lasts for less is not reported: often it is our own request.
const NOTABLE: Duration = Duration::from_secs(30);
/// Ollama would load a model that expires while the probe is on its way.
pub(crate) const LEFT: i64 = 5;
/// Probes at the default interval, or a longer one, may take this much of the GPU's time; after a longer probe the next
/// waits longer, up to [`MOST_STRETCH`] times and, unless the interval itself is longer, an hour.
const SHARE: f64 = 0.001;
const DEFAULT_INTERVAL: f64 = 300.0;
const MOST_STRETCH: f64 = 12.0;
/// The second of two probes waits this long: Ollama needs 20 s to replace a runner that hangs, and then loads the model.
const PATIENT: Duration = Duration::from_secs(120);

/// A model and those who use it, as the keeper sees them.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) status: &'a ModelStatus,
    /// Unix seconds by Ollama's clock.
    pub(crate) clock: i64,
    /// Since another client's use was last seen.
    pub(crate) since_client: Option<Duration>,
    /// A request of ours has reloaded what a client had loaded with options that Ollama does not list.
    pub(crate) left_alone: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeNext {
    Wait,
    /// It has been time for a while, and something speaks against it.
    Skip(String),
    Send(Order),
}

/// A probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) loaded: LoadedAs,
    /// When the model expires, in Unix seconds by Ollama's clock: a client moves it.
    pub(crate) expires_at: i64,
    pub(crate) timeout: Duration,
    /// It waits for Ollama to replace a runner that hangs.
    pub(crate) patient: bool,
    /// The last one got no answer: this one is sent although the GPUs are in use.
    pub(crate) urgent: bool,
}

/// When a model expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Unix seconds by Ollama's clock.
    pub(crate) at: i64,
    /// Seconds from the time of the list.
    pub(crate) left: i64,
}

/// What a runner is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedAs {
    pub(crate) digest: String,
    pub(crate) num_ctx: u64,
    /// Ollama lists all of it on GPUs.
    pub(crate) on_gpu: bool,
}

#[derive(Debug)]
pub(crate) struct ProbeState {
    settings: ProbeSettings,
    due: Duration,
    /// As it was last seen.
    loaded: Option<LoadedAs>,
    /// Silent or failed probes in a row.
    unanswered: u32,
    silent: bool,
}

impl ProbeState {
    /// `unanswered`: probes without an answer in a row so far.
    pub(crate) fn new(settings: ProbeSettings, unanswered: u32) -> Self {
        Self { settings, due: FIRST, loaded: None, unanswered, silent: false }
    }

    /// `look`: None while Ollama does not answer. `busy`: why the GPUs are not to be used now; it is asked last.
    pub(crate) fn next(
        &mut self,
        look: Option<&Look<'_>>,
        busy: impl FnOnce() -> Option<String>,
        now: Duration,
    ) -> ProbeNext {
        if self.settings.interval.is_none() {
            return ProbeNext::Wait;
        }
        let found = look.map(|look| loaded_as(look.status));
        if let Some(loaded) = &found {
            let loaded = loaded.as_ref().ok();
            // A runner that was just loaded computes in a moment; a probe of another one says nothing about it. Whether it
            // answers where the one before did not is worth knowing soon.
            if loaded.is_some() && self.loaded.as_ref() != loaded {
                let settled = now + FIRST.min(self.interval());
                self.due = if self.unanswered > 0 { settled } else { self.due.max(settled) };
            }
            self.loaded = loaded.cloned();
        }
        if now < self.due {
            return ProbeNext::Wait;
        }
        let order = match (look, found) {
            (Some(look), Some(found)) => found.and_then(|loaded| Ok(self.order(loaded, self.expiry(look, busy)?))),
            _ => Err("Ollama does not respond".into()),
        };
        match order {
            Ok(order) => ProbeNext::Send(order),
            Err(why) if now.saturating_sub(self.due) >= NOTABLE => ProbeNext::Skip(why),
            Err(_) => ProbeNext::Wait,
        }
    }

    /// When the model expires.
    ///
    /// # Errors
    /// What speaks against a request now: it would harm others, or show nothing.
    fn expiry(&self, look: &Look<'_>, busy: impl FnOnce() -> Option<String>) -> Result<i64, String> {
        let at = expiry(look.status)?;
        if at < look.clock {
            return Err("it serves a request: its expiry has passed".into());
        }
        if at - look.clock < LEFT {
            return Err("it is about to expire".into());
        }
        // Whether it hangs counts for its clients too, and a runner that hangs may keep its GPU busy.
        if self.unanswered > 0 {
            return Ok(at);
        }
        if look.left_alone {
            return Err("Ollama reloaded it for a request of the worker: a client may use options that Ollama does not list. It is not probed for a day".into());
        }
        let why = match look.since_client {
            Some(since) if since < QUIET => Some(format!("a client used it less than {} s ago", QUIET.as_secs())),
            _ => busy(),
        };
        why.map_or(Ok(at), Err)
    }

    /// A probe to send before the model is unloaded: whether a client uses it shows in how long it waits.
    pub(crate) fn order_at_once(&self, look: &Look<'_>) -> Option<Order> {
        loaded_as(look.status).ok().zip(expiry(look.status).ok()).map(|(loaded, at)| self.order(loaded, at))
    }

    fn order(&self, loaded: LoadedAs, expires_at: i64) -> Order {
        // Where no GPU shows it, a client's long answer looks like a runner that hangs, and both end in this time.
        let patient = self.unanswered == 1 && self.silent;
        let timeout = if patient { self.settings.timeout.max(PATIENT) } else { self.settings.timeout };
        Order { loaded, expires_at, timeout, patient, urgent: self.unanswered > 0 }
    }

    /// A probe has ended.
    pub(crate) fn ended(&mut self, outcome: &Outcome, now: Duration) {
        let interval = self.interval();
        let retry = RETRY.min(interval);
        let wait = match outcome {
            Outcome::Answered(answered) => {
                self.unanswered = 0;
                interval.mul_f64(stretch(answered, interval))
            }
            Outcome::Unasked(_) => retry,
            Outcome::Silent | Outcome::Failed(_) => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.silent = *outcome == Outcome::Silent;
                // The second one decides.
                if self.unanswered == 1 { retry } else { interval }
            }
        };
        self.due = now + wait;
    }

    /// Ollama no longer has the model.
    pub(crate) fn forget(&mut self) {
        self.unanswered = 0;
    }

    pub(crate) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    fn interval(&self) -> Duration {
        self.settings.interval.unwrap_or(Duration::MAX)
    }
}

/// How many times longer the interval becomes after this answer.
fn stretch(answered: &Answered, interval: Duration) -> f64 {
    let interval = interval.as_secs_f64();
    let most = (DEFAULT_INTERVAL * MOST_STRETCH / interval).clamp(1.0, MOST_STRETCH);
    (answered.busy().as_secs_f64() / (interval.max(DEFAULT_INTERVAL) * SHARE)).clamp(1.0, most)
}

/// What the model is loaded as, or why it cannot be asked.
pub(crate) fn loaded_as(status: &ModelStatus) -> Result<LoadedAs, String> {
    if let Some(host) = &status.remote_host {
        return Err(format!("it runs in Ollama's cloud ({host})"));
    }
    let loaded = status.loaded.ok_or("it is not loaded")?;
    if loaded.outdated {
        return Err("other weights were pulled under its name: the next request reloads it".into());
    }
    let digest = status.digest.clone().ok_or("Ollama does not list its digest")?;
    let num_ctx = loaded.context_length.ok_or(
        "Ollama does not list its context length, so a request could reload it. Update Ollama to 0.10 or later",
    )?;
    Ok(LoadedAs {
        digest,
        num_ctx,
        on_gpu: loaded.size_bytes.is_some_and(|size| size > 0 && loaded.vram_bytes >= size),
    })
}

/// Unix seconds by Ollama's clock, or why the model is not probed.
pub(crate) fn expiry(status: &ModelStatus) -> Result<i64, String> {
    let at = status.loaded.and_then(|loaded| loaded.expires_at);
    at.ok_or_else(|| "Ollama does not list when it expires. Update Ollama".into())
}

#[cfg(test)]
mod tests;
