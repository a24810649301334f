//! What is to be done for one model that is to stay pulled and loaded, from how it stands at Ollama.

mod life;
mod pulls;
mod row;

use std::time::Duration;

use serde::Serialize;

use super::models::Standing;
use super::pull::{Progress, PullError};
use crate::sys::backoff::Backoff;
use life::Life;
use pulls::Pulls;
pub(crate) use row::{Row, Run, Stuck};

/// After a pull or a load that failed.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// After somebody else unloaded it, or Ollama to make room: loading it again at once might be an endless quarrel.
const FIRST_RELOAD: Duration = Duration::from_secs(1);
/// A model that was loaded for so long is no part of a quarrel.
const SETTLED: Duration = Duration::from_secs(300);
/// Ollama that is back is tried at once, however long the last failure would have it wait; not more often than this,
/// for a proxy may refuse every second look.
const FRESH_START: Duration = Duration::from_secs(300);
const BETWEEN_REQUESTS: Duration = Duration::from_secs(5);
/// It is asked for again when less than this is left, or less than half of its time.
const REFRESH_BEFORE: Duration = Duration::from_secs(60);
/// A model that is gone before its time may be on its way back: a client loads it with other options, and Ollama does
/// not list it meanwhile. That is waited for, twice as long as our last load took and within these bounds: a request of
/// ours in between would make Ollama load it once more.
const LEAST_ABSENCE: Duration = Duration::from_secs(10);
const MOST_ABSENCE: Duration = Duration::from_secs(300);
/// Between loads of models that displace each other.
const FIRST_DISPLACED: Duration = Duration::from_secs(60);
const LAST_DISPLACED: Duration = Duration::from_secs(3600);

/// Words for what stays as it is until the operator acts.
pub(crate) const CLOUD: &str =
    "it runs in Ollama's cloud, not on this machine's GPU: it is neither pulled nor loaded; take it out of MODEL";
pub(crate) const STUCK: &str = "Ollama lists it as loaded, but its time is up and two requests in a row for it got no answer: its runner hangs; restart Ollama";
/// Before that.
pub(crate) const UNANSWERED: &str = "Ollama lists it as loaded, but its time is up and a request for it got no answer: its runner serves a long request, or hangs; it is asked once more";
pub(crate) const ROOM: &str =
    "there is no room for both; raise OLLAMA_MAX_LOADED_MODELS, or free memory, or take one of them out of MODEL";

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
    /// It is loaded, and is to stay.
    Renew(Renewal),
}

/// A request for a model that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// What it was loaded with; None: Ollama does not say.
    pub(crate) num_ctx: Option<u64>,
    /// Our own time is set. Otherwise that of whoever asked last goes on.
    pub(crate) keep_alive: bool,
}

/// A load, or a renewal, that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loading {
    pub(crate) took: Duration,
    /// Ollama measured it; else our clock did.
    pub(crate) by_ollama: bool,
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadError {
    pub(crate) why: String,
    /// Its files are not whole: a pull may repair it.
    pub(crate) damaged: bool,
    /// Nothing came until the deadline.
    pub(crate) silent: bool,
}

/// One model. Times are of a clock that only goes forward.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Ollama keeps it loaded for so long; None: for ever.
    keep_alive: Option<Duration>,
    failures: Backoff,
    unloads: Backoff,
    displacements: Backoff,
    not_before: Duration,
    /// Since when it is known to be loaded, and when it was seen so last.
    loaded: Option<Duration>,
    seen_loaded: Duration,
    life: Life,
    /// When it was asked for last.
    asked: Option<Duration>,
    /// How long its last load took.
    load_time: Duration,
    pulls: Pulls,
    failed: bool,
    damaged: bool,
    /// A pull has succeeded, and nobody has looked since.
    just_pulled: bool,
    away: bool,
    /// When it was tried at once because Ollama was back.
    fresh_start: Option<Duration>,
    /// It was gone at this look, before its time.
    lost: bool,
    displaced: bool,
}

impl Keeper {
    pub(crate) fn new(keep_alive: Option<Duration>) -> Self {
        Self {
            keep_alive,
            failures: Backoff::new(FIRST_RETRY, LAST_RETRY),
            unloads: Backoff::new(FIRST_RELOAD, LAST_RETRY),
            displacements: Backoff::new(FIRST_DISPLACED, LAST_DISPLACED),
            not_before: Duration::ZERO,
            loaded: None,
            seen_loaded: Duration::ZERO,
            life: Life::default(),
            asked: None,
            load_time: Duration::ZERO,
            pulls: Pulls::default(),
            failed: false,
            damaged: false,
            just_pulled: false,
            away: false,
            fresh_start: None,
            lost: false,
            displaced: false,
        }
    }

    /// What to do, seeing how the model stands; None: Ollama did not say. `clock`: Unix seconds by Ollama's clock.
    pub(crate) fn next(&mut self, seen: Option<&Standing>, clock: i64, now: Duration) -> (State, Next) {
        self.lost = false;
        let Some(seen) = seen else {
            // What was loaded may be gone with it; that is nobody's fault.
            (self.away, self.loaded) = (true, None);
            return (State::Waiting, Next::Look);
        };
        let rested = self.fresh_start.is_none_or(|at| now.saturating_sub(at) >= FRESH_START);
        if std::mem::take(&mut self.away) && rested {
            self.fresh_start = Some(now);
            (self.failed, self.not_before) = (false, now);
            self.failures.success();
            self.unloads.success();
            self.displacements.success();
        }
        if seen.remote_host.is_some() {
            return (State::Failed, Next::Look);
        }
        if seen.pulled && !self.damaged {
            self.pulls.done();
        }
        if seen.loaded.is_some() {
            return self.while_loaded(seen, clock, now);
        }
        if self.loaded.take().is_some() && seen.pulled {
            let mut wait = self.unloads.after_failure(0.0);
            if self.life.ended_early(clock) {
                self.lost = true;
                wait = wait.max((self.load_time * 2).clamp(LEAST_ABSENCE, MOST_ABSENCE));
            }
            self.not_before = self.not_before.max(now + wait);
        }
        self.life.gone();
        if std::mem::take(&mut self.just_pulled) && !seen.pulled {
            self.fail(now);
        }
        self.get(seen.pulled, now)
    }

    fn while_loaded(&mut self, seen: &Standing, clock: i64, now: Duration) -> (State, Next) {
        let Some(loaded) = &seen.loaded else { return (State::Waiting, Next::Look) };
        let since = *self.loaded.get_or_insert(now);
        self.seen_loaded = now;
        let lasted = now.saturating_sub(since);
        if lasted >= SETTLED {
            self.unloads.success();
        }
        // Longer than the other one waits for its next try.
        if lasted >= LAST_DISPLACED * 2 {
            self.placed();
        }
        self.life.see(loaded, seen.digest.as_deref(), clock, now);
        if std::mem::take(&mut self.just_pulled) && !seen.pulled {
            self.fail(now);
        }
        if !seen.pulled {
            // Deleted under us. It goes on until it expires, and would then be missed for as long as a pull takes.
            return self.get(false, now);
        }
        let stuck = self.life.stuck(clock).is_some();
        self.failed &= stuck;
        let state = if stuck { State::Failed } else { State::Loaded };
        // A server that does not do as it says is not asked without end.
        let since_asked = self.asked.map(|at| now.saturating_sub(at));
        let rested = now >= self.not_before && since_asked.is_none_or(|since| since >= BETWEEN_REQUESTS);
        let renewal = self.life.renewal(loaded, self.keep_alive, clock, since_asked).filter(|_| rested);
        (state, renewal.map_or(Next::Look, Next::Renew))
    }

    /// It is to be pulled, or loaded.
    fn get(&self, pulled: bool, now: Duration) -> (State, Next) {
        let resting = self.pulls.rest(now).is_some();
        if now < self.not_before || (resting && !pulled) {
            let failed = self.failed || (resting && !pulled);
            return (if failed { State::Failed } else { State::Waiting }, Next::Look);
        }
        let pull = !pulled || (self.damaged && !resting);
        if pull { (State::Pulling, Next::Pull) } else { (State::Loading, Next::Load) }
    }

    fn fail(&mut self, now: Duration) {
        self.failed = true;
        self.not_before = now + self.failures.after_failure(0.0);
    }

    /// A pull has ended, having come so far; what there is to say of its failure.
    pub(crate) fn pulled(
        &mut self,
        result: Result<(), &PullError>,
        far: &Progress,
        model: &str,
        now: Duration,
    ) -> Option<String> {
        match result {
            Ok(()) => {
                (self.just_pulled, self.damaged) = (true, false);
                None
            }
            Err(error) => {
                self.fail(now);
                Some(self.pulls.failed(error, far, model, now))
            }
        }
    }

    /// A load or a renewal that began at `began` has ended; whether Ollama reloaded for it what a client had loaded with other options.
    pub(crate) fn asked(&mut self, result: &Result<Loading, LoadError>, began: Duration, now: Duration) -> bool {
        self.asked = Some(now);
        match result {
            Ok(loading) => {
                (self.failed, self.damaged) = (false, false);
                self.failures.success();
                if self.loaded.is_none() {
                    self.load_time = now.saturating_sub(began);
                }
                // If Ollama does not list it now, it is gone again.
                self.loaded.get_or_insert(now);
                self.seen_loaded = now;
                self.life.answered(loading, now)
            }
            Err(error) => {
                self.damaged = error.damaged;
                if error.silent {
                    self.life.unanswered();
                }
                self.fail(now);
                false
            }
        }
    }

    /// It was gone at the last look before its time was up: since when another model may have taken its place.
    pub(crate) fn lost_since(&self) -> Option<Duration> {
        self.lost.then_some(self.seen_loaded)
    }

    /// Why it is not pulled for a long time.
    pub(crate) fn pull_rest(&self, now: Duration) -> Option<&str> {
        self.pulls.rest(now)
    }

    /// How bad it is that it is listed as loaded and answers nothing; None: it is not so.
    pub(crate) fn stuck(&self, clock: i64) -> Option<Stuck> {
        self.life.stuck(clock).filter(|_| self.loaded.is_some())
    }

    /// Ollama unloaded it for another one that is to be loaded as well.
    pub(crate) fn displaced(&mut self, now: Duration) {
        self.displaced = true;
        self.not_before = self.not_before.max(now + self.displacements.after_failure(0.0));
    }

    pub(crate) fn is_displaced(&self) -> bool {
        self.displaced
    }

    /// Both are loaded.
    pub(crate) fn placed(&mut self) {
        self.displaced = false;
        self.displacements.success();
    }
}

#[cfg(test)]
mod tests;
