//! A worker's entry in an orchestrator's Live Runner registry: what to send, what the answers mean, and when to send
//! again. Time is an argument. The registry drops an entry after 20 s without a beat and at its restart; the same id then
//! registers again.

mod answer;
mod card;
mod entry;
mod follow;

use std::time::Duration;

use super::lease;

pub(crate) use answer::{BeatAnswer, beat_answer, lists_runners};
pub(crate) use card::{Cards, metadata};
pub(crate) use entry::{Beat, HEALTH_URL, MODE, RunnerStatus, static_entry};
pub(crate) use follow::Follow;

/// Until the orchestrator says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(20);
/// Beats are never closer together or further apart, whatever interval an answer names: a registry that is restarted has
/// lost the entry until the next one.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 15];
const DENIED: [u64; 3] = [15, 30, 60];
const ABSENT: [u64; 2] = [30, 60];
/// An id that is held: quick tries first, since it may be our own entry from before a crash, about to expire.
const HELD_QUICK: u32 = 5;
/// An expired id is free at the registry's next sweep, within 5 s.
const SWEEP_QUICK: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
enum RunnerState {
    Boot,
    Live { secret: String },
    Held,
    Expired,
    Unclear,
    Backoff,
    Denied,
    Absent,
}

/// What an answer means for the log and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BeatResult {
    Registered,
    Unchanged,
    /// The registry has lost the entry; it is registered again immediately.
    Lost,
    Failed {
        /// Its label in metrics.
        kind: &'static str,
        message: String,
    },
}

/// The entry at one orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    state: RunnerState,
    due: Duration,
    tries: u32,
    misses: u32,
    last_boot: Option<Duration>,
    /// Since when the id is rejected in a way that an entry from before a crash would explain.
    held_since: Option<Duration>,
    interval: Duration,
    ttl: Duration,
}

impl Runner {
    /// Due immediately.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            state: RunnerState::Boot,
            due: now,
            tries: 0,
            misses: 0,
            last_boot: None,
            held_since: None,
            interval: INTERVAL,
            ttl: TTL,
        }
    }

    /// The entry is registered already, by the previous worker; a registry that does not agree gets a first beat.
    pub(crate) fn resume(&mut self, secret: String) {
        self.state = RunnerState::Live { secret };
    }

    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// The entry's secret; None: the next beat is a first one, with the orchestrator's secret.
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.state {
            RunnerState::Live { secret } => Some(secret),
            _ => None,
        }
    }

    /// The timeout of one call: a hung one costs one beat.
    pub(crate) fn timeout(&self) -> Duration {
        self.interval.clamp(SHORTEST, Duration::from_secs(4))
    }

    /// Moves the next beat forward to `when`: the entry has changed, or the operator asks for it.
    pub(crate) fn hasten(&mut self, when: Duration) {
        self.due = self.due.min(when);
    }

    pub(crate) fn shown(&self) -> lease::RegistrationState {
        match self.state {
            // After a missed beat the registry keeps it for an unknown time.
            RunnerState::Live { .. } if self.misses == 0 => lease::RegistrationState::Registered,
            RunnerState::Boot => lease::RegistrationState::Waiting,
            _ => lease::RegistrationState::Failing,
        }
    }

    /// Takes the answer to a beat. `jitter` in 0..1 spreads many workers.
    pub(crate) fn answered(&mut self, now: Duration, answer: BeatAnswer, jitter: f64) -> BeatResult {
        let live = matches!(self.state, RunnerState::Live { .. });
        if !live {
            self.last_boot = Some(now);
        }
        if !matches!(answer, BeatAnswer::Held | BeatAnswer::Expired | BeatAnswer::Unclear(_)) {
            self.held_since = None;
        }
        match answer {
            BeatAnswer::Taken { secret, interval, ttl, .. } => self.taken(now, live, secret, interval, ttl),
            BeatAnswer::NotRegistered
            | BeatAnswer::Held
            | BeatAnswer::Expired
            | BeatAnswer::Unclear(_)
            | BeatAnswer::Absent
                if live =>
            {
                self.misses = 0;
                (self.state, self.tries) = (RunnerState::Boot, 0);
                // At most one first beat a second.
                self.due = now.max(self.last_boot.map_or(now, |at| at + SHORTEST));
                BeatResult::Lost
            }
            BeatAnswer::NotRegistered => {
                let message = "secret rejected. Set ORCH_SECRET to its -orchSecret.".into();
                self.fail(now, RunnerState::Denied, &DENIED, jitter, "wrong_secret", message)
            }
            BeatAnswer::Held => self.held(now, RunnerState::Held, HELD_QUICK),
            BeatAnswer::Expired => self.held(now, RunnerState::Expired, SWEEP_QUICK),
            BeatAnswer::Unclear(words) => self.unclear(now, jitter, &words),
            BeatAnswer::Absent => {
                let message = "it has no Live Runner registry (-useLiveRunners with -orchSecret)".into();
                self.fail(now, RunnerState::Absent, &ABSENT, jitter, "absent", message)
            }
            BeatAnswer::Rejected(words) => {
                let message = format!("RUNNER_ and CAPABILITY_ settings rejected: {words}");
                // A proxy may have answered: the entry lives until its TTL, and only its secret can renew it.
                if live && self.interval * self.misses < self.ttl {
                    return self.missed(now, "bad_body", message);
                }
                self.misses = 0;
                self.fail(now, RunnerState::Denied, &DENIED, jitter, "bad_body", message)
            }
            BeatAnswer::Failed { kind, why } if live => self.missed(now, kind, why),
            BeatAnswer::Failed { kind, why } => self.fail(now, RunnerState::Backoff, &BACKOFF, jitter, kind, why),
        }
    }

    /// One beat failed. The secret is kept: the next answer decides.
    fn missed(&mut self, now: Duration, kind: &'static str, message: String) -> BeatResult {
        self.misses += 1;
        self.due = now + if self.misses == 1 { SHORTEST } else { self.interval };
        BeatResult::Failed { kind, message }
    }

    /// The id is rejected for longer than the registry keeps an entry from before a crash.
    fn is_held_by_another(&mut self, now: Duration) -> bool {
        now - *self.held_since.get_or_insert(now) > self.ttl + 2 * self.interval
    }

    fn held(&mut self, now: Duration, state: RunnerState, quick: u32) -> BeatResult {
        let message = if self.is_held_by_another(now) {
            "another worker holds this RUNNER_ID. Give each worker its own."
        } else {
            "this RUNNER_ID is still registered, perhaps from before a crash. It is free within 25 s."
        };
        self.tries = if self.state == state { self.tries + 1 } else { 1 };
        self.state = state;
        self.due = now + if self.tries <= quick { SHORTEST } else { self.interval };
        BeatResult::Failed { kind: "held", message: message.into() }
    }

    /// Rejected with a text that fits a wrong secret as well as a held id.
    fn unclear(&mut self, now: Duration, jitter: f64, words: &str) -> BeatResult {
        if self.is_held_by_another(now) {
            let message = format!(
                "this worker is rejected ({words}): ORCH_SECRET differs from the orchestrator's secret, or another worker holds this RUNNER_ID"
            );
            return self.fail(now, RunnerState::Denied, &DENIED, jitter, "unauthorized", message);
        }
        self.state = RunnerState::Unclear;
        self.due = now + self.interval;
        let message = format!(
            "this worker is rejected ({words}): this RUNNER_ID may still be registered from before a crash, or ORCH_SECRET is wrong"
        );
        BeatResult::Failed { kind: "unauthorized", message }
    }

    fn taken(
        &mut self,
        now: Duration,
        live: bool,
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
    ) -> BeatResult {
        self.ttl = ttl.unwrap_or(TTL);
        self.interval = interval.unwrap_or(INTERVAL).min(self.ttl / 3).clamp(SHORTEST, LONGEST);
        let missed = std::mem::take(&mut self.misses) > 0;
        self.due = now + self.interval;
        match (secret, live) {
            (Some(secret), _) => {
                (self.state, self.tries) = (RunnerState::Live { secret }, 0);
                // Some registries return a new secret with each answer.
                if live && !missed { BeatResult::Unchanged } else { BeatResult::Registered }
            }
            (None, true) if missed => BeatResult::Registered,
            (None, true) => BeatResult::Unchanged,
            (None, false) => {
                let message = "it accepted the first beat without returning a heartbeat_secret".into();
                self.fail(now, RunnerState::Backoff, &BACKOFF, 0.0, "protocol", message)
            }
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        state: RunnerState,
        waits: &[u64],
        jitter: f64,
        kind: &'static str,
        message: String,
    ) -> BeatResult {
        self.tries = if self.state == state { self.tries + 1 } else { 1 };
        self.state = state;
        let wait = waits[(self.tries as usize - 1).min(waits.len() - 1)];
        self.due = now + Duration::from_secs(wait).mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        BeatResult::Failed { kind, message }
    }
}

#[cfg(test)]
mod tests;
