//! What is to be done for one model that is to stay pulled and loaded, from how it stands at Ollama.

use std::time::Duration;

use serde::Serialize;

use super::models::Standing;
use super::pull::Progress;
use super::schedule::Backoff;

/// After a pull or a load that failed.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// After somebody else unloaded it, or Ollama to make room: loading it again at once might be an endless quarrel.
const FIRST_RELOAD: Duration = Duration::from_secs(1);
/// A model that was loaded for so long is no part of a quarrel.
const SETTLED: Duration = Duration::from_secs(300);
const BETWEEN_REQUESTS: Duration = Duration::from_secs(5);
/// It is asked for again when less than this is left, or less than half of its time. Not earlier: a request with our
/// options makes Ollama reload what a client loaded with its own, which should be idle by then.
const REFRESH_BEFORE: Duration = Duration::from_secs(60);

/// What a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ModelState"))]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// For Ollama, or for a while.
    Waiting,
    Pulling,
    Loading,
    Loaded,
    /// The last try; there will be another.
    Failed,
}

impl State {
    pub(crate) const ALL: [Self; 5] = [Self::Waiting, Self::Pulling, Self::Loading, Self::Loaded, Self::Failed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pulling => "pulling",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing; look again.
    Look,
    Pull,
    Load,
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadError {
    pub(crate) why: String,
    /// Its files are not whole: a pull may mend it.
    pub(crate) damaged: bool,
}

/// One model. Times are of a clock that only goes forward.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Ollama keeps it loaded for so long; None: for ever.
    keep_alive: Option<Duration>,
    failures: Backoff,
    unloads: Backoff,
    not_before: Duration,
    /// Since when it is known to be loaded.
    loaded: Option<Duration>,
    /// When it was asked for last.
    asked: Option<Duration>,
    failed: bool,
    damaged: bool,
    /// A pull has succeeded, and nobody has looked since.
    just_pulled: bool,
    away: bool,
}

impl Keeper {
    pub(crate) fn new(keep_alive: Option<Duration>) -> Self {
        Self {
            keep_alive,
            failures: Backoff::new(FIRST_RETRY, LAST_RETRY),
            unloads: Backoff::new(FIRST_RELOAD, LAST_RETRY),
            not_before: Duration::ZERO,
            loaded: None,
            asked: None,
            failed: false,
            damaged: false,
            just_pulled: false,
            away: false,
        }
    }

    /// What to do, seeing how the model stands; None: Ollama did not say. `clock`: Unix seconds by Ollama's clock.
    pub(crate) fn next(&mut self, seen: Option<&Standing>, clock: i64, now: Duration) -> (State, Next) {
        let Some(seen) = seen else {
            // What was loaded may be gone with it; that is nobody's fault.
            (self.away, self.loaded) = (true, None);
            return (State::Waiting, Next::Look);
        };
        if std::mem::take(&mut self.away) {
            (self.failed, self.not_before) = (false, now);
            self.failures.success();
            self.unloads.success();
        }
        if let Some(loaded) = seen.loaded {
            self.failed = false;
            let since = *self.loaded.get_or_insert(now);
            if now.saturating_sub(since) >= SETTLED {
                self.unloads.success();
            }
            // A server that does not do as it says is not asked without end.
            let rested = self.asked.is_none_or(|at| now.saturating_sub(at) >= BETWEEN_REQUESTS);
            let due = rested && now >= self.not_before && self.is_due(loaded.expires_at, clock, now);
            return (State::Loaded, if due { Next::Load } else { Next::Look });
        }
        if self.loaded.take().is_some() {
            self.not_before = self.not_before.max(now + self.unloads.after_failure(0.0));
        }
        let missing = !seen.pulled;
        if std::mem::take(&mut self.just_pulled) && missing {
            self.fail(now);
        }
        if now < self.not_before {
            return (if self.failed { State::Failed } else { State::Waiting }, Next::Look);
        }
        if missing || self.damaged { (State::Pulling, Next::Pull) } else { (State::Loading, Next::Load) }
    }

    fn is_due(&self, expires_at: Option<i64>, clock: i64, now: Duration) -> bool {
        let before = self.keep_alive.map_or(REFRESH_BEFORE, |time| (time / 2).min(REFRESH_BEFORE));
        match expires_at {
            Some(at) => i128::from(at) - i128::from(clock) <= i128::from(before.as_secs()),
            None => {
                now.saturating_sub(self.asked.unwrap_or_default())
                    >= self.keep_alive.map_or(REFRESH_BEFORE, |time| time / 2)
            }
        }
    }

    fn fail(&mut self, now: Duration) {
        self.failed = true;
        self.not_before = now + self.failures.after_failure(0.0);
    }

    /// A pull has ended.
    pub(crate) fn pulled(&mut self, worked: bool, now: Duration) {
        if worked {
            (self.just_pulled, self.damaged) = (true, false);
        } else {
            self.fail(now);
        }
    }

    /// A load has ended.
    pub(crate) fn asked(&mut self, result: &Result<(), LoadError>, now: Duration) {
        self.asked = Some(now);
        match result {
            Ok(()) => {
                self.failed = false;
                self.failures.success();
                // If Ollama does not list it now, it is gone again.
                self.loaded.get_or_insert(now);
            }
            Err(error) => {
                self.damaged = error.damaged;
                self.fail(now);
            }
        }
    }
}

/// One model as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ModelKeeper"))]
pub(crate) struct Row {
    /// As MODEL names it.
    pub(crate) model: String,
    pub(crate) state: State,
    /// While it is pulled; the same goes for the rest up to `error`.
    percent: Option<u8>,
    completed_mb: Option<u64>,
    total_mb: Option<u64>,
    mb_per_second: Option<f64>,
    eta_seconds: Option<u64>,
    /// Why it is not loaded.
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) progress: Option<Progress>,
    /// Pulls that succeeded and that failed, then loads.
    #[serde(skip)]
    pub(crate) pulls: [u64; 2],
    #[serde(skip)]
    pub(crate) loads: [u64; 2],
}

impl Row {
    pub(crate) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            state: State::Waiting,
            percent: None,
            completed_mb: None,
            total_mb: None,
            mb_per_second: None,
            eta_seconds: None,
            error: None,
            progress: None,
            pulls: [0; 2],
            loads: [0; 2],
        }
    }

    /// Shows how far a pull is; None: there is none.
    pub(crate) fn show(&mut self, progress: Option<Progress>) {
        let mib = |bytes: u64| bytes >> 20;
        let shown = progress.as_ref();
        self.percent = shown.map(|p| p.percent);
        self.completed_mb = shown.map(|p| mib(p.completed));
        self.total_mb = shown.map(|p| mib(p.total));
        let tenths = |rate: u64| (rate as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
        self.mb_per_second = shown.and_then(|p| p.bytes_per_second).map(tenths);
        self.eta_seconds = shown.and_then(|p| p.eta_seconds);
        self.progress = progress;
    }
}

#[cfg(test)]
mod tests;
