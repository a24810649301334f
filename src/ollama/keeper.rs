//! Keeping one model pulled and loaded: what to do next, from its state at Ollama. Time is an argument; `keeper_thread`
//! does what this decides.

pub(crate) mod kept;
mod life;
mod pulls;
pub(crate) mod request;
pub(crate) mod row;

use std::time::Duration;

use super::models::ModelStatus;
use super::probe::answer::Outcome;
use super::probe::state::{Expiry, Look};
use super::pull::{Progress, PullError};
use crate::sys::backoff::Backoff;
use life::Life;
use pulls::Pulls;
use request::{BETWEEN_REQUESTS, LoadError, Loading, Renewal};
use row::{ModelState, Stuck};

/// After a failed pull or load.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// After another client, or Ollama for lack of memory, unloaded the model: reloading it immediately could repeat that
/// endlessly.
const FIRST_RELOAD: Duration = Duration::from_secs(1);
/// A model that stayed loaded this long resets that wait.
const SETTLED: Duration = Duration::from_secs(300);
/// When Ollama is back, waits after earlier failures end. That happens at most once in this time, since a proxy may reject
/// every second request.
const FRESH_START: Duration = Duration::from_secs(300);
/// A model that is gone before it expires may be reloading for a client with other options; Ollama does not list it
/// meanwhile, and a request of ours would reload it once more. We wait twice as long as our last load took, within these
/// bounds.
const LEAST_ABSENCE: Duration = Duration::from_secs(10);
const MOST_ABSENCE: Duration = Duration::from_secs(300);
/// Between loads of models that displace each other.
const FIRST_DISPLACED: Duration = Duration::from_secs(60);
const LAST_DISPLACED: Duration = Duration::from_secs(3600);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: read the lists again later.
    Wait,
    Pull,
    Load,
    /// Extend the time of a loaded model.
    Renew(Renewal),
}

/// One model. Times are from a monotonic clock.
#[derive(Debug)]
pub(crate) struct KeeperState {
    /// How long Ollama keeps it loaded; None: indefinitely.
    keep_alive: Option<Duration>,
    failures: Backoff,
    unloads: Backoff,
    displacements: Backoff,
    not_before: Duration,
    /// When it was first and last seen loaded.
    loaded: Option<Duration>,
    seen_loaded: Duration,
    life: Life,
    /// Our last request for it.
    asked: Option<Duration>,
    /// How long its last load took.
    load_time: Duration,
    pulls: Pulls,
    failed: bool,
    damaged: bool,
    /// A pull has succeeded, and the lists were not read since.
    just_pulled: bool,
    away: bool,
    /// When waits ended because Ollama was back.
    fresh_start: Option<Duration>,
    /// It is gone now, before it expired.
    lost: bool,
    displaced: bool,
}

impl KeeperState {
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

    /// What to do. `seen`: the model's state; None: unknown. `clock`: Unix seconds by Ollama's clock.
    pub(crate) fn next(&mut self, seen: Option<&ModelStatus>, clock: i64, now: Duration) -> (ModelState, Next) {
        self.lost = false;
        let Some(seen) = seen else {
            // A restart of Ollama unloads the model: that is not another client's doing.
            (self.away, self.loaded) = (true, None);
            return (ModelState::Waiting, Next::Wait);
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
            return (ModelState::Failed, Next::Wait);
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

    fn while_loaded(&mut self, seen: &ModelStatus, clock: i64, now: Duration) -> (ModelState, Next) {
        let Some(loaded) = &seen.loaded else { return (ModelState::Waiting, Next::Wait) };
        let since = *self.loaded.get_or_insert(now);
        self.seen_loaded = now;
        let lasted = now.saturating_sub(since);
        if lasted >= SETTLED {
            self.unloads.success();
        }
        // Longer than the other model waits for its next try.
        if lasted >= LAST_DISPLACED * 2 {
            self.placed();
        }
        self.life.see(loaded, seen.digest.as_deref(), clock, now);
        if std::mem::take(&mut self.just_pulled) && !seen.pulled {
            self.fail(now);
        }
        if !seen.pulled {
            // Deleted while loaded: pulled now, it is not missing when it expires.
            return self.get(false, now);
        }
        let stuck = self.life.stuck(clock).is_some();
        self.failed &= stuck;
        let state = if stuck { ModelState::Failed } else { ModelState::Loaded };
        // A server whose lists ignore our requests is not flooded.
        let since_asked = self.asked.map(|at| now.saturating_sub(at));
        let rested = now >= self.not_before && since_asked.is_none_or(|since| since >= BETWEEN_REQUESTS);
        let renewal = self.life.renewal(loaded, self.keep_alive, clock, since_asked).filter(|_| rested);
        (state, renewal.map_or(Next::Wait, Next::Renew))
    }

    /// Pull it or load it, unless a wait is on.
    fn get(&self, pulled: bool, now: Duration) -> (ModelState, Next) {
        let resting = self.pulls.rest(now).is_some();
        if now < self.not_before || (resting && !pulled) {
            let failed = self.failed || (resting && !pulled);
            return (if failed { ModelState::Failed } else { ModelState::Waiting }, Next::Wait);
        }
        let pull = !pulled || (self.damaged && !resting);
        if pull { (ModelState::Pulling, Next::Pull) } else { (ModelState::Loading, Next::Load) }
    }

    fn fail(&mut self, now: Duration) {
        self.failed = true;
        self.not_before = now + self.failures.after_failure(0.0);
    }

    /// A pull has ended after `far`; the message if it failed.
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

    /// A load or a renewal that began at `began` has ended. True: Ollama reloaded for it a model that a client had loaded
    /// with other options.
    pub(crate) fn asked(&mut self, result: &Result<Loading, LoadError>, began: Duration, now: Duration) -> bool {
        self.asked = Some(now);
        match result {
            Ok(loading) => {
                (self.failed, self.damaged) = (false, false);
                self.failures.success();
                if self.loaded.is_none() {
                    self.load_time = now.saturating_sub(began);
                }
                // If the next list lacks it, it was unloaded again.
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

    /// The model and those who use it, for a probe.
    pub(crate) fn look<'a>(&self, status: &'a ModelStatus, clock: i64, now: Duration) -> Look<'a> {
        let (since_client, left_alone) = (self.life.since_client(now), self.life.is_left_alone());
        Look { status, clock, since_client, left_alone }
    }

    /// A probe has ended. True: Ollama reloaded for it a model that a client had loaded with other options.
    /// `expiry`: right after it; None: unknown.
    pub(crate) fn probed(&mut self, outcome: &Outcome, expiry: Option<Expiry>, now: Duration) -> bool {
        match outcome {
            Outcome::Answered(answered) => return self.life.probed(answered, expiry, now),
            Outcome::Silent | Outcome::Failed(_) => self.life.ended(now),
            Outcome::Unasked(_) => {}
        }
        false
    }

    /// We have unloaded it, to load it again now.
    pub(crate) fn unloaded(&mut self, now: Duration) {
        (self.loaded, self.not_before) = (None, now);
        self.life.gone();
    }

    /// Set when the model was just unloaded before it expired: since when another may have taken its place.
    pub(crate) fn lost_since(&self) -> Option<Duration> {
        self.lost.then_some(self.seen_loaded)
    }

    /// Why pulls are paused; None: they are not.
    pub(crate) fn pull_rest(&self, now: Duration) -> Option<&str> {
        self.pulls.rest(now)
    }

    /// Set when the model is listed as loaded and does not answer.
    pub(crate) fn stuck(&self, clock: i64) -> Option<Stuck> {
        self.life.stuck(clock).filter(|_| self.loaded.is_some())
    }

    /// Ollama unloaded it for another model of MODEL.
    pub(crate) fn displaced(&mut self, now: Duration) {
        self.displaced = true;
        self.not_before = self.not_before.max(now + self.displacements.after_failure(0.0));
    }

    pub(crate) fn is_displaced(&self) -> bool {
        self.displaced
    }

    /// Both models are loaded.
    pub(crate) fn placed(&mut self) {
        self.displaced = false;
        self.displacements.success();
    }
}

#[cfg(test)]
mod tests;
