//! A worker's entry in an orchestrator's Live Runner registry: what is sent, what the answers mean, and when to send
//! again. Time is an argument. The registry forgets who is silent for 20 s and who had it before a restart; then the
//! same id begins anew.

mod entry;

use std::time::Duration;

use serde::Deserialize;

use super::lease;
use super::{go, text};

pub(crate) use entry::{Beat, MODE, Price, Status, card, metadata, static_entry};

/// Until the orchestrator says otherwise.
const INTERVAL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(20);
/// Nobody is asked more often, whatever interval an answer names.
const SHORTEST: Duration = Duration::from_secs(1);
const BACKOFF: [u64; 5] = [1, 2, 4, 8, 15];
const DENIED: [u64; 3] = [15, 30, 60];
const ABSENT: [u64; 2] = [30, 60];
/// An id that is still alive somewhere: quick tries first, it may be our own earlier life.
const HELD_QUICK: u32 = 5;
/// For this long it may be; then it is another worker.
const HELD_LONG: Duration = Duration::from_secs(60);

/// What an orchestrator said to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken {
        /// Only to the first beat.
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
    },
    /// 401: nobody has this id; or the orchestrator's own secret is another.
    NotRegistered,
    /// 401: somebody holds this id. Or 404: nobody does any more, but it is not free yet.
    Held,
    /// 404: there is no such registry.
    Absent,
    /// 400 or 403, with the orchestrator's words.
    Refused(String),
    /// No answer, or a server in trouble.
    Trouble(String),
}

/// Reads an answer by its status; texts only tell apart what has one status.
pub(crate) fn judge(status: u16, body: &str) -> Answer {
    #[derive(Deserialize)]
    struct Taken {
        runner_id: String,
        heartbeat_secret: Option<String>,
        heartbeat_interval: Option<String>,
        heartbeat_ttl: Option<String>,
    }
    let words = || text::start(body, 200);
    match status {
        200 => match serde_json::from_str::<Taken>(body) {
            Ok(taken) if !taken.runner_id.is_empty() => Answer::Taken {
                secret: taken.heartbeat_secret.filter(|secret| !secret.is_empty()),
                interval: taken.heartbeat_interval.as_deref().and_then(go::duration),
                ttl: taken.heartbeat_ttl.as_deref().and_then(go::duration),
            },
            _ => Answer::Trouble("its 200 is no answer of a Live Runner registry".into()),
        },
        401 if body.contains("heartbeat authorization") => Answer::Held,
        401 => Answer::NotRegistered,
        404 if body.contains("runner not found") => Answer::Held,
        404 => Answer::Absent,
        400 | 403 => Answer::Refused(words()),
        _ => Answer::Trouble(format!("it answered {status}: {}", words())),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Boot,
    Live { secret: String },
    Held { since: Duration },
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
    interval: Duration,
}

impl Runner {
    /// Due at once.
    pub(crate) fn new(now: Duration) -> Self {
        Self { state: State::Boot, due: now, tries: 0, misses: 0, last_boot: None, interval: INTERVAL }
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

    /// Beats at once: something that the registry shows has changed, or the operator wants it.
    pub(crate) fn hasten(&mut self, now: Duration) {
        self.due = self.due.min(now);
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
        match answer {
            Answer::Taken { secret, interval, ttl } => self.taken(now, live, secret, interval, ttl),
            Answer::NotRegistered | Answer::Held | Answer::Absent if live => {
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
            Answer::Held => {
                let since = match self.state {
                    State::Held { since } => since,
                    _ => now,
                };
                self.tries = if matches!(self.state, State::Held { .. }) { self.tries + 1 } else { 1 };
                self.state = State::Held { since };
                self.due = now + if self.tries <= HELD_QUICK { SHORTEST } else { self.interval };
                let message = if now - since > HELD_LONG {
                    "another worker holds this RUNNER_ID: give each its own"
                } else {
                    "this RUNNER_ID is still registered, perhaps from before a crash: it is free within 25 s"
                };
                News::Failed { kind: "held", message: message.into() }
            }
            Answer::Absent => {
                let message = "it has no Live Runner registry (-useLiveRunners with -orchSecret)".into();
                self.fail(now, State::Absent, &ABSENT, spread, "absent", message)
            }
            Answer::Refused(words) => {
                let message = format!("it refuses what the RUNNER_ and CAPABILITY_ settings say: {words}");
                self.fail(now, State::Denied, &DENIED, spread, "bad_body", message)
            }
            Answer::Trouble(why) if live => {
                // The secret is kept: the next answer decides.
                self.misses += 1;
                self.due = now + if self.misses == 1 { SHORTEST } else { self.interval };
                News::Failed { kind: "no_answer", message: why }
            }
            Answer::Trouble(why) => self.fail(now, State::Backoff, &BACKOFF, spread, "no_answer", why),
        }
    }

    fn taken(
        &mut self,
        now: Duration,
        live: bool,
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
    ) -> News {
        let longest = ttl.unwrap_or(TTL) / 3;
        self.interval = interval.unwrap_or(INTERVAL).min(longest).max(SHORTEST);
        let missed = std::mem::take(&mut self.misses) > 0;
        self.due = now + self.interval;
        match (secret, live) {
            (Some(secret), _) => {
                (self.state, self.tries) = (State::Live { secret }, 0);
                News::Registered
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
