//! The heartbeat of HEARTBEAT_URL: when the push monitor is called, with what, and what its answer means. Time is an
//! argument.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call::{Answer, NoAnswer};
use crate::config::SecretUrl;
use crate::health::standing::Standing;
use crate::health::verdict::{Code, Verdict};
use crate::sys::status_table::StatusTable;
use crate::sys::text;

/// Healthchecks drops calls beyond five a minute.
const MOST_CALLS: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// Waits before the second and the third try of one interval.
const RETRIES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];
/// Uptime Kuma keeps 200 characters.
const MOST_CHARACTERS: usize = 199;

/// The state of the heartbeat, for operators.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Heartbeat"))]
pub(crate) struct HeartbeatRow {
    /// The monitor, without its secret path.
    pub(crate) target: String,
    /// Unix seconds of the last call that the monitor accepted.
    pub(crate) last_success: Option<f64>,
    /// Why the last call failed, and what to do; null after a success.
    pub(crate) error: Option<String>,
    /// Intervals by result, in the order of [`Beat::ALL`].
    #[serde(skip)]
    pub(crate) counts: [u64; 3],
}

/// One row, or none without HEARTBEAT_URL.
pub(crate) type Heartbeats = StatusTable<HeartbeatRow>;

/// What became of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    Ok,
    Failed,
    /// Nothing was sent, on purpose.
    Skipped,
}

impl Beat {
    pub(crate) const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Skipped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// When the monitor is called. Intervals follow each other without drift; those that a sleep of the machine skipped are
/// not made up for.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    /// When this interval began.
    start: Duration,
    /// The next try.
    due: Duration,
    /// Tries in this interval.
    tries: usize,
    /// The last calls.
    calls: VecDeque<Duration>,
}

impl Schedule {
    /// Due immediately.
    pub(crate) fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, start: now, due: now, tries: 0, calls: VecDeque::new() }
    }

    /// How long until the next try.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// A call begins.
    pub(crate) fn called(&mut self, now: Duration) {
        if self.calls.len() == MOST_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(now);
        self.tries += 1;
    }

    /// A call failed for now. False: no more tries in this interval.
    pub(crate) fn retry(&mut self, now: Duration) -> bool {
        // A short interval leaves room for fewer tries.
        let most = (self.interval.as_secs() * MOST_CALLS as u64 / MINUTE.as_secs()).max(1);
        let Some(wait) = self.tries.checked_sub(1).and_then(|tried| RETRIES.get(tried)) else { return false };
        let due = (now + *wait).max(self.allowed());
        let again = self.tries < usize::try_from(most).unwrap_or(usize::MAX) && due < self.start + self.interval;
        if again {
            self.due = due;
        }
        again
    }

    /// The next try is that of the next interval.
    pub(crate) fn done(&mut self, now: Duration) {
        let whole = now.saturating_sub(self.start).as_nanos() / self.interval.as_nanos().max(1);
        self.start += self.interval * u32::try_from(whole + 1).unwrap_or(u32::MAX);
        self.due = self.start.max(self.allowed());
        self.tries = 0;
    }

    fn allowed(&self) -> Duration {
        let full = self.calls.front().filter(|_| self.calls.len() == MOST_CALLS);
        full.map_or(Duration::ZERO, |first| *first + MINUTE)
    }
}

/// The URL to call; None: silence. `serves`: the worker's own /health responds.
pub(crate) fn url(of: &SecretUrl, standing: &Standing, serves: bool) -> Option<String> {
    let template = of.expose();
    // An old sample says nothing of now, although it degrades the verdict only.
    let is_old = standing.reasons.iter().any(|reason| reason.code == Code::Stale);
    let up = serves && !is_old && matches!(standing.verdict, Verdict::Ok | Verdict::Degraded);
    if !up && !template.contains("{status}") {
        return None;
    }
    let message = match (serves, up) {
        (false, _) => "unhealthy: /health of the worker does not respond".to_owned(),
        // Healthchecks can be set to take a message with this word for a failure.
        (_, true) => standing.summary_of(MOST_CHARACTERS, |reason| !reason.code.name().contains("FAIL")),
        (_, false) => standing.summary(MOST_CHARACTERS),
    };
    let status = if up { "up" } else { "down" };
    Some(template.replace("{status}", status).replace("{message}", &escaped(&message)))
}

/// For any part of a URL.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    /// Another try may succeed.
    Retry(String),
    /// Another try in this interval would fail as well.
    Wait(String),
}

/// Uptime Kuma's answer.
#[derive(Deserialize)]
struct Body {
    ok: Option<bool>,
}

/// The text of an answer is not shown: it may repeat the URL.
pub(crate) fn outcome(answer: &Result<Answer, NoAnswer>) -> Outcome {
    let Answer { status, body, .. } = match answer {
        Ok(answer) => answer,
        Err(why) => return Outcome::Retry(why.to_string()),
    };
    let says_no = serde_json::from_slice(body.as_bytes()).is_ok_and(|body: Body| body.ok == Some(false));
    let page = text::is_web_page(body);
    let problem = match status {
        200..=299 if !says_no && !page => return Outcome::Accepted,
        408 | 500..=599 => return Outcome::Retry(format!("the monitor has a problem of its own (status {status})")),
        200..=299 if page => "a web page answers in place of the monitor: check the path in HEARTBEAT_URL",
        200..=299 => {
            "the monitor does not accept the call (\"ok\": false): check HEARTBEAT_URL, and resume the monitor if it is paused"
        }
        300..=399 => "the monitor redirects, which is not followed: set HEARTBEAT_URL to the new address",
        401 | 403 => "the monitor refuses the login: check the login in HEARTBEAT_URL",
        404 | 410 => "the monitor does not know this URL: check HEARTBEAT_URL, and resume the monitor if it is paused",
        429 => "the monitor limits calls: raise HEARTBEAT_INTERVAL, and check that no other worker uses this URL",
        _ => "the monitor does not accept the call: check HEARTBEAT_URL",
    };
    Outcome::Wait(format!("{problem} (status {status})"))
}

#[cfg(test)]
mod tests;
