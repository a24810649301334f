//! A worker's entry in an orchestrator's Live Runner registry: what is sent, what the answers mean, and when to send
//! again. Time is an argument. The registry forgets who is silent for 20 s and who had it before a restart; then the
//! same id begins anew.

mod answer;
mod card;
mod entry;
mod follow;

use std::time::Duration;

use super::lease;

pub(crate) use answer::{Answer, judge, lists_runners};
pub(crate) use card::{Cards, metadata};
pub(crate) use entry::{Beat, MODE, Status, static_entry};
pub(crate) use follow::Follow;

/// Until the orchestrator says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(20);
/// Nobody is asked more often, whatever interval an answer names.
const SHORTEST: Duration = Duration::from_secs(1);
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 15];
const DENIED: [u64; 3] = [15, 30, 60];
const ABSENT: [u64; 2] = [30, 60];
/// An id that is held: quick tries first, our own earlier life may end at any moment.
const HELD_QUICK: u32 = 5;
/// An id that has expired is free at the next sweep, 5 s later at most.
const SWEEP_QUICK: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Boot,
    Live { secret: String },
    Held,
    Expired,
    Unclear,
    Backoff,
    Denied,
    Absent,
}

/// What was learned from an answer, for the log and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Registered,
    /// It goes on as before.
    Same,
    /// The registry has lost it; it is registered anew at once.
    Lost,
    Failed {
        /// What metrics call it.
        kind: &'static str,
        message: String,
    },
}

/// The entry at one orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    state: State,
    due: Duration,
    tries: u32,
    misses: u32,
    last_boot: Option<Duration>,
    /// Since when the id has been refused in a way that an earlier life of it can explain.
    held_since: Option<Duration>,
    interval: Duration,
    ttl: Duration,
}

impl Runner {
    /// Due at once.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            state: State::Boot,
            due: now,
            tries: 0,
            misses: 0,
            last_boot: None,
            held_since: None,
            interval: INTERVAL,
            ttl: TTL,
        }
    }

    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// The secret of the entry; None: the next beat is a first one, with the orchestrator's own.
    pub(crate) fn secret(&self) -> Option<&str> {
        match &self.state {
            State::Live { secret } => Some(secret),
            _ => None,
        }
    }

    /// For one call, so that a hung one costs one beat.
    pub(crate) fn patience(&self) -> Duration {
        self.interval.clamp(SHORTEST, Duration::from_secs(4))
    }

    /// Beats at `when` at the latest: something that the registry shows has changed, or the operator wants it.
    pub(crate) fn hasten(&mut self, when: Duration) {
        self.due = self.due.min(when);
    }

    pub(crate) fn shown(&self) -> lease::State {
        match self.state {
            // The registry keeps it for a while, but nobody knows.
            State::Live { .. } if self.misses == 0 => lease::State::Registered,
            State::Boot => lease::State::Waiting,
            _ => lease::State::Failing,
        }
    }

    /// The answer to the beat that was due. `spread` in 0..1 keeps many workers apart.
    pub(crate) fn answered(&mut self, now: Duration, answer: Answer, spread: f64) -> News {
        let live = matches!(self.state, State::Live { .. });
        if !live {
            self.last_boot = Some(now);
        }
        if !matches!(answer, Answer::Held | Answer::Expired | Answer::Unclear(_)) {
            self.held_since = None;
        }
        match answer {
            Answer::Taken { secret, interval, ttl, .. } => self.taken(now, live, secret, interval, ttl),
            Answer::NotRegistered | Answer::Held | Answer::Expired | Answer::Unclear(_) | Answer::Absent if live => {
                self.misses = 0;
                (self.state, self.tries) = (State::Boot, 0);
                // Two first beats in a row within a second would be a storm.
                self.due = now.max(self.last_boot.map_or(now, |at| at + SHORTEST));
                News::Lost
            }
            Answer::NotRegistered => {
                let message = "it refuses the secret: make ORCH_SECRET equal to its -orchSecret".into();
                self.fail(now, State::Denied, &DENIED, spread, "wrong_secret", message)
            }
            Answer::Held => self.held(now, State::Held, HELD_QUICK),
            Answer::Expired => self.held(now, State::Expired, SWEEP_QUICK),
            Answer::Unclear(words) => self.unclear(now, spread, &words),
            Answer::Absent => {
                let message = "it has no Live Runner registry (-useLiveRunners with -orchSecret)".into();
                self.fail(now, State::Absent, &ABSENT, spread, "absent", message)
            }
            Answer::Refused(words) => {
                let message = format!("it refuses what the RUNNER_ and CAPABILITY_ settings say: {words}");
                // A proxy may have said so: the entry is there until its time is up, and only its secret keeps it.
                if live && self.interval * self.misses < self.ttl {
                    return self.missed(now, "bad_body", message);
                }
                self.misses = 0;
                self.fail(now, State::Denied, &DENIED, spread, "bad_body", message)
            }
            Answer::Trouble { kind, why } if live => self.missed(now, kind, why),
            Answer::Trouble { kind, why } => self.fail(now, State::Backoff, &BACKOFF, spread, kind, why),
        }
    }

    /// One beat was not taken. The secret is kept: the next answer decides.
    fn missed(&mut self, now: Duration, kind: &'static str, message: String) -> News {
        self.misses += 1;
        self.due = now + if self.misses == 1 { SHORTEST } else { self.interval };
        News::Failed { kind, message }
    }

    /// The id is refused for longer than the registry would keep an earlier life of this worker.
    fn outlasted(&mut self, now: Duration) -> bool {
        now - *self.held_since.get_or_insert(now) > self.ttl + 2 * self.interval
    }

    fn held(&mut self, now: Duration, state: State, quick: u32) -> News {
        let message = if self.outlasted(now) {
            "another worker holds this RUNNER_ID: give each worker its own"
        } else {
            "this RUNNER_ID is still registered, perhaps from before a crash: it is free within 25 s"
        };
        self.tries = if self.state == state { self.tries + 1 } else { 1 };
        self.state = state;
        self.due = now + if self.tries <= quick { SHORTEST } else { self.interval };
        News::Failed { kind: "held", message: message.into() }
    }

    /// Refused with words that fit a wrong secret as well as an id that is held.
    fn unclear(&mut self, now: Duration, spread: f64, words: &str) -> News {
        if self.outlasted(now) {
            let message = format!(
                "it refuses this worker ({words}): ORCH_SECRET differs from the orchestrator's secret, or another worker holds this RUNNER_ID"
            );
            return self.fail(now, State::Denied, &DENIED, spread, "unauthorized", message);
        }
        self.state = State::Unclear;
        self.due = now + self.interval;
        let message = format!(
            "it refuses this worker ({words}): this RUNNER_ID may still be registered from before a crash, or ORCH_SECRET is wrong"
        );
        News::Failed { kind: "unauthorized", message }
    }

    fn taken(
        &mut self,
        now: Duration,
        live: bool,
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
    ) -> News {
        self.ttl = ttl.unwrap_or(TTL);
        self.interval = interval.unwrap_or(INTERVAL).min(self.ttl / 3).max(SHORTEST);
        let missed = std::mem::take(&mut self.misses) > 0;
        self.due = now + self.interval;
        match (secret, live) {
            (Some(secret), _) => {
                (self.state, self.tries) = (State::Live { secret }, 0);
                // A registry may give a new secret with each answer.
                if live && !missed { News::Same } else { News::Registered }
            }
            (None, true) if missed => News::Registered,
            (None, true) => News::Same,
            (None, false) => {
                let message = "it took the first beat and gave no heartbeat_secret".into();
                self.fail(now, State::Backoff, &BACKOFF, 0.0, "protocol", message)
            }
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        state: State,
        waits: &[u64],
        spread: f64,
        kind: &'static str,
        message: String,
    ) -> News {
        self.tries = if self.state == state { self.tries + 1 } else { 1 };
        self.state = state;
        let wait = waits[(self.tries as usize - 1).min(waits.len() - 1)];
        self.due = now + Duration::from_secs(wait).mul_f64(0.8 + 0.4 * spread.clamp(0.0, 1.0));
        News::Failed { kind, message }
    }
}

#[cfg(test)]
mod tests;
