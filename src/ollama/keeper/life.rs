//! How long a loaded model stays and whether other clients use it, from repeated readings of `expires_at`.

use std::time::Duration;

use super::request::{BETWEEN_REQUESTS, Loading, REFRESH_BEFORE, Renewal};
use super::row::Stuck;
use crate::ollama::models::Loaded;
use crate::ollama::probe::answer::{Answered, RELOAD};
use crate::ollama::probe::state::Expiry;

/// A model that expires while it serves a request stays, with the same `expires_at`. After this many seconds it gets a
/// request, to see whether it answers; later where a client may have loaded it with options that are not listed, since our
/// request then waits for the client's and reloads the model.
const PAST: i64 = 60;
const PAST_TOUCHED: i64 = 300;
/// With less left and no client active, it would expire before the look after next.
const SOON: i64 = 10;
/// Lifetimes are read up to one look late.
const SLACK: i64 = 10;
/// How long a model is left alone after our request reloaded a client's.
const LEFT_ALONE: Duration = Duration::from_secs(24 * 3600);
/// [`RELOAD`] where Ollama does not report the time: it includes the network's.
const RELOAD_BY_WALL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Life {
    expires_at: Option<i64>,
    /// Seconds left when `expires_at` last moved: its keep_alive.
    stored: Option<i64>,
    /// A lower bound of that, known from the first look on.
    stored_least: i64,
    digest: Option<String>,
    /// Another client has used it since our last request, perhaps with other options.
    touched: bool,
    /// When another client's use was last seen.
    client_at: Option<Duration>,
    /// A reload for a request without our keep_alive has reset it to Ollama's default.
    restore: bool,
    moved: bool,
    /// The next look, and moves of the expiry until `ours_until`, show our own request.
    ours: bool,
    ours_until: Duration,
    /// A client's model with options that Ollama does not list: its digest, and until when to leave it alone.
    left_alone: Option<(Option<String>, Duration)>,
    /// Unanswered requests in a row since the expiry last moved.
    unanswered: u32,
}

impl Life {
    /// The model is loaded. `clock`: Unix seconds by Ollama's clock.
    pub(super) fn see(&mut self, loaded: &Loaded, digest: Option<&str>, clock: i64, now: Duration) {
        self.left_alone = self.left_alone.take().filter(|(same, until)| same.as_deref() == digest && now < *until);
        self.digest = digest.map(str::to_owned);
        let ours = std::mem::take(&mut self.ours) || now < self.ours_until;
        let Some(at) = loaded.expires_at else { return };
        self.moved = self.expires_at != Some(at);
        if self.moved {
            self.unanswered = 0;
            self.stored_least = at.saturating_sub(clock);
            self.stored = Some(self.stored_least).filter(|_| ours || self.expires_at.is_some());
            if !ours {
                // A client has given it a time of its own.
                (self.touched, self.restore) = (true, false);
                self.client_at = Some(now);
            }
        }
        self.expires_at = Some(at);
    }

    /// The model is no longer loaded: the next load starts over.
    pub(super) fn gone(&mut self) {
        let left_alone = self.left_alone.take();
        *self = Self { left_alone, ..Self::default() };
    }

    /// It had not expired.
    pub(super) fn ended_early(&self, clock: i64) -> bool {
        self.expires_at.is_none_or(|at| at.saturating_sub(clock) > SOON)
    }

    /// Listed after it expired, and it does not answer. At first it may be serving a long request, which ours waits for.
    pub(super) fn stuck(&self, clock: i64) -> Option<Stuck> {
        let past = self.expires_at.is_some_and(|at| at < clock);
        match self.unanswered {
            1 if past => Some(Stuck::Perhaps),
            2.. if past => Some(Stuck::Certainly),
            _ => None,
        }
    }

    /// The request that keeps it loaded without harm to other clients; None: not now. `keep_alive`: ours; None: indefinitely.
    pub(super) fn renewal(
        &self,
        loaded: &Loaded,
        keep_alive: Option<Duration>,
        clock: i64,
        since_asked: Option<Duration>,
    ) -> Option<Renewal> {
        if self.restore {
            return Some(Renewal { num_ctx: loaded.context_length, keep_alive: true });
        }
        // Options that differ from the client's reload it now, and again at the client's next request.
        let others = self.touched && (loaded.context_length.is_none() || self.left_alone.is_some());
        let Some(at) = self.expires_at else {
            let half = keep_alive.map_or(REFRESH_BEFORE, |time| time / 2);
            let due = since_asked.is_some_and(|since| since >= half);
            return due.then_some(Renewal { num_ctx: loaded.context_length, keep_alive: true });
        };
        if others {
            return None;
        }
        let left = at.saturating_sub(clock);
        if left < 0 {
            let rest = Duration::from_secs(PAST.unsigned_abs());
            let rested = self.unanswered > 0 || since_asked.is_none_or(|since| since >= rest);
            let past = if self.touched { PAST_TOUCHED } else { PAST };
            // After its request, the client's own keep_alive continues.
            return (left <= -past && rested).then_some(Renewal { num_ctx: loaded.context_length, keep_alive: false });
        }
        let refresh = i64::try_from(REFRESH_BEFORE.as_secs()).unwrap_or(i64::MAX);
        // A model whose expiry moves is in use, which renews it. One found loaded is watched for one look first.
        let most = match self.stored {
            Some(stored) => (stored / 2).min(refresh),
            None if self.moved => SOON,
            None => refresh,
        };
        let due = left <= most || (!self.moved && left <= SOON);
        let ours = keep_alive.and_then(|time| i64::try_from(time.as_secs()).ok()).unwrap_or(i64::MAX);
        due.then_some(Renewal {
            num_ctx: loaded.context_length,
            keep_alive: self.stored_least <= ours.saturating_add(SLACK),
        })
    }

    /// Our request was answered. True: Ollama reloaded a client's model for it.
    pub(super) fn answered(&mut self, loading: &Loading, now: Duration) -> bool {
        let reloaded = if loading.by_ollama { loading.took >= RELOAD } else { loading.took >= RELOAD_BY_WALL };
        let harmed = reloaded && self.touched;
        if harmed {
            self.left_alone = Some((self.digest.clone(), now + LEFT_ALONE));
        }
        (self.touched, self.unanswered, self.restore) = (false, 0, false);
        self.ended(now);
        harmed
    }

    /// A request of ours has ended, answered or not: Ollama moves the expiry.
    pub(super) fn ended(&mut self, now: Duration) {
        (self.ours, self.ours_until) = (true, now + BETWEEN_REQUESTS);
    }

    /// A probe was answered. `expiry`: right after it, from where on a client moves it. True: Ollama reloaded a client's model
    /// for it.
    pub(super) fn probed(&mut self, probe: &Answered, expiry: Option<Expiry>, now: Duration) -> bool {
        let harmed = self.answered(&Loading { took: probe.load, by_ollama: true }, now);
        if let Some(Expiry { at, left }) = expiry {
            (self.ours, self.ours_until) = (false, now);
            (self.expires_at, self.stored, self.stored_least) = (Some(at), Some(left), left);
        }
        self.restore = probe.reloaded();
        if probe.queued() {
            self.client_at = Some(now);
        }
        harmed
    }

    /// Since another client's use was last seen.
    pub(super) fn since_client(&self, now: Duration) -> Option<Duration> {
        self.client_at.map(|at| now.saturating_sub(at))
    }

    pub(super) fn is_left_alone(&self) -> bool {
        self.left_alone.is_some()
    }

    pub(super) fn unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }
}
