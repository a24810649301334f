//! How long a loaded model stays, and who is at work with it, from looking at `expires_at` again and again.

use std::time::Duration;

use super::row::Stuck;
use super::{BETWEEN_REQUESTS, Loading, REFRESH_BEFORE, Renewal};
use crate::ollama::models::Loaded;

/// A model whose time ran out while a request is served stays, and its `expires_at` stands still. After so many seconds
/// it is asked whether it answers at all; later where a client may have loaded it with options that are not listed, for
/// then the question waits for the end of the client's request, and reloads the model.
const PAST: i64 = 60;
const PAST_TOUCHED: i64 = 300;
/// With less left, and nobody at work, it would be gone at the next look but one.
const SOON: i64 = 10;
/// A lifetime that is seen up to a look too late.
const SLACK: i64 = 10;
/// A model that our request reloaded for a client is asked for no more for so long.
const LEFT_ALONE: Duration = Duration::from_secs(24 * 3600);
/// A load that took longer was one (the same runner: 1 to 12 ms; a reload of the smallest model: 258 ms). Where Ollama
/// does not say how long it took, the way there and back is part of it.
const RELOAD: Duration = Duration::from_millis(200);
const RELOAD_BY_WALL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Life {
    expires_at: Option<i64>,
    /// Seconds that it had when its expiry was last seen to move: what Ollama keeps it after a request.
    stored: Option<i64>,
    /// That it is not less than this is known from the first look on.
    stored_least: i64,
    digest: Option<String>,
    /// A client has used it since our last request, perhaps with options of its own.
    touched: bool,
    moved: bool,
    /// It was asked for: the next look, and what moves until then, shows our own request.
    ours: bool,
    ours_until: Duration,
    /// What a client loaded with options that Ollama does not list: its digest, and until when it is the client's.
    left_alone: Option<(Option<String>, Duration)>,
    /// Requests in a row that got no answer while the expiry has not moved.
    unanswered: u32,
}

impl Life {
    /// It is loaded. `clock`: Unix seconds by Ollama's clock.
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
            self.touched |= !ours;
        }
        self.expires_at = Some(at);
    }

    /// It is not loaded any more: the next one to load it begins again.
    pub(super) fn gone(&mut self) {
        let left_alone = self.left_alone.take();
        *self = Self { left_alone, ..Self::default() };
    }

    /// Its time was not up.
    pub(super) fn ended_early(&self, clock: i64) -> bool {
        self.expires_at.is_none_or(|at| at.saturating_sub(clock) > SOON)
    }

    /// It is listed, its time is up, and it does not answer. The first time it may serve a long request, for whose end
    /// ours waits.
    pub(super) fn stuck(&self, clock: i64) -> Option<Stuck> {
        let past = self.expires_at.is_some_and(|at| at < clock);
        match self.unanswered {
            1 if past => Some(Stuck::Perhaps),
            2.. if past => Some(Stuck::Certainly),
            _ => None,
        }
    }

    /// What to ask for now so that it stays, without harm to whoever else uses it. `keep_alive`: ours; None: for ever.
    pub(super) fn renewal(
        &self,
        loaded: &Loaded,
        keep_alive: Option<Duration>,
        clock: i64,
        since_asked: Option<Duration>,
    ) -> Option<Renewal> {
        // Other options than the client's make Ollama load it again, and the client's next request once more.
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
            // A client's time goes on from its end as it was.
            return (left <= -past && rested).then_some(Renewal { num_ctx: loaded.context_length, keep_alive: false });
        }
        let refresh = i64::try_from(REFRESH_BEFORE.as_secs()).unwrap_or(i64::MAX);
        // Whose expiry moves is at work, and renews it by itself. One that was found loaded is watched for a look.
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

    /// A request of ours was answered; whether Ollama reloaded a client's model for it.
    pub(super) fn answered(&mut self, loading: &Loading, now: Duration) -> bool {
        let reloaded = if loading.by_ollama { loading.took >= RELOAD } else { loading.took >= RELOAD_BY_WALL };
        let harmed = reloaded && self.touched;
        if harmed {
            self.left_alone = Some((self.digest.clone(), now + LEFT_ALONE));
        }
        (self.touched, self.unanswered) = (false, 0);
        (self.ours, self.ours_until) = (true, now + BETWEEN_REQUESTS);
        harmed
    }

    pub(super) fn unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }
}
