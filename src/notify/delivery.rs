//! What a receiver's answer means, and what is sent to it next: one message at a time, and of all that wait the newest.
//! Time is an argument.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::call::{Answer, NoAnswer};
use super::event::{Event, EventKind};
use super::notified::Known;
use super::row::{NotificationRow, NotificationState};
use crate::config::{NotifyFormat, NotifyTarget, SecretUrl};
use crate::health::verdict::Verdict;
use crate::sys::backoff::Backoff;
use crate::sys::text::{self, start};

/// First and longest wait between tries, where the receiver names none.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// What a receiver may ask for.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// ntfy: no more messages today. It names no time.
const NTFY_QUOTA: u64 = 42908;
const NTFY_QUOTA_WAIT: Duration = Duration::from_secs(3600);
/// The first message of a worker that restarts often comes this long after the one before. In seconds.
const RARE: f64 = 600.0;
/// Characters of a receiver's own words.
const MOST_WORDS: usize = 120;

/// What an answer means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Accepted,
    /// Try again, after this wait if the receiver named one.
    Retry {
        why: String,
        wait: Option<Duration>,
        /// It was sent and not answered: the receiver may have it.
        unclear: bool,
    },
    /// The same message would be refused again. `url`: NOTIFY_URL may be out of date.
    Refused {
        why: String,
        fix: &'static str,
        url: bool,
    },
}

/// The fields of answers: Discord's, ntfy's, and those of others.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerBody {
    retry_after: Option<f64>,
    code: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
    message: Option<serde_json::Value>,
    /// ntfy's, of a message that it accepted.
    id: Option<serde_json::Value>,
    ok: Option<serde_json::Value>,
    success: Option<serde_json::Value>,
}

/// `unix`: the time of the answer in Unix seconds.
pub(crate) fn judge(target: &NotifyTarget, reply: &Result<Answer, NoAnswer>, unix: f64) -> Outcome {
    let answer = match reply {
        Ok(answer) => answer,
        Err(why) => return Outcome::Retry { why: why.why.clone(), wait: None, unclear: !why.unsent },
    };
    // A list would be read as the fields in their order.
    let is_object = answer.body.trim_start().starts_with('{');
    let json = serde_json::from_slice::<AnswerBody>(answer.body.as_bytes()).ok().filter(|_| is_object);
    let accepted = match target.format {
        NotifyFormat::Slack if answer.status == 200 => slack_accepted(&answer.body, json.as_ref()),
        NotifyFormat::Ntfy => json.as_ref().is_some_and(|body| body.id.is_some()),
        NotifyFormat::Discord => !text::is_web_page(&answer.body),
        NotifyFormat::Slack | NotifyFormat::Json | NotifyFormat::Text => true,
    };
    let body = json.unwrap_or_default();
    let why = || match words(&target.url, answer, &body) {
        Some(words) => format!("{} {words}", answer.status),
        None => answer.status.to_string(),
    };
    match answer.status {
        200..=299 if accepted => Outcome::Accepted,
        200..=299 => not_accepted(target.format, answer.status),
        408 | 425 | 429 | 500..=599 => Outcome::Retry { why: why(), wait: wait(answer, &body, unix), unclear: false },
        300..=399 => Outcome::Refused {
            why: format!("{} (a redirect, which is not followed)", answer.status),
            fix: "Set NOTIFY_URL to the address that it leads to, or let messages pass where that is a login page.",
            url: false,
        },
        401 | 403 | 404 | 410 => {
            Outcome::Refused { why: why(), fix: "Check NOTIFY_URL: its path, token or login is not valid.", url: true }
        }
        413 => Outcome::Refused {
            why: why(),
            fix: "The message is too large for the receiver: raise its limit, or that of the proxy in front of it.",
            url: false,
        },
        _ => Outcome::Refused { why: why(), fix: "Check NOTIFY_URL and NOTIFY_FORMAT.", url: false },
    }
}

/// Slack itself says `ok`. Servers that take its messages (Rocket.Chat, Zulip) answer with a JSON object.
fn slack_accepted(text: &str, json: Option<&AnswerBody>) -> bool {
    let says_no = |value: &Option<serde_json::Value>| *value == Some(false.into());
    text.trim() == "ok"
        || json.is_some_and(|body| !says_no(&body.ok) && !says_no(&body.success) && body.error.is_none())
}

/// A status of success from something else than the receiver, such as a login page in front of it.
fn not_accepted(format: NotifyFormat, status: u16) -> Outcome {
    let (without, fix) = match format {
        NotifyFormat::Slack => ("the word ok", "It is not a Slack webhook: check NOTIFY_URL and NOTIFY_FORMAT."),
        NotifyFormat::Ntfy => (
            "a message's id",
            "It is not ntfy: check NOTIFY_URL, and that a login page in front of ntfy lets POST requests to the server's root pass.",
        ),
        _ => ("the receiver's answer", "It is a web page: check NOTIFY_URL and NOTIFY_FORMAT."),
    };
    Outcome::Refused { why: format!("{status} without {without}"), fix, url: false }
}

/// How long the receiver asks to wait.
fn wait(answer: &Answer, body: &AnswerBody, unix: f64) -> Option<Duration> {
    if body.code.as_ref().and_then(serde_json::Value::as_u64) == Some(NTFY_QUOTA) {
        return Some(NTFY_QUOTA_WAIT);
    }
    let header = answer.retry_after.as_deref().map(str::trim).and_then(|text| {
        let date = || httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
        text.parse().ok().or_else(|| Some(date()?.as_secs_f64() - unix))
    });
    let seconds = header.or(body.retry_after).filter(|seconds: &f64| seconds.is_finite())?;
    Some(Duration::from_secs_f64(seconds.clamp(RETRY_AFTER.0.as_secs_f64(), RETRY_AFTER.1.as_secs_f64())))
}

/// The receiver's own words for an error; None where they could repeat what is secret.
fn words(url: &SecretUrl, answer: &Answer, body: &AnswerBody) -> Option<String> {
    let field = [&body.error, &body.message].into_iter().flatten().find_map(|field| field.as_str());
    // Slack answers with a word such as no_service. A page is of no use.
    let word = Some(answer.body.trim()).filter(|text| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    // All of them: what is cut off may end a secret.
    let said = field.or(word).filter(|said| !url.is_part_of(said))?;
    Some(start(said, MOST_WORDS)).filter(|said| !said.is_empty())
}

/// What a thread is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// Nothing, for this long at most if there is a message that waits.
    Wait(Option<Duration>),
    /// The message, and the verdict that the receiver knows.
    Send(Arc<Event>, Option<Verdict>),
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Info(String),
    Warn(String),
}

/// The messages for one receiver.
#[derive(Debug)]
pub(crate) struct Delivery {
    row: NotificationRow,
    pending: Option<Arc<Event>>,
    /// The last one that was offered. The receiver may need it once the one before has arrived.
    latest: Option<Arc<Event>>,
    /// A new URL may help it.
    refused: Option<Arc<Event>>,
    known: Option<Known>,
    /// It may know something newer than `known`.
    unclear: bool,
    restarts_often: bool,
    /// No try before.
    due: Duration,
    waits: Backoff,
}

impl Delivery {
    pub(crate) fn new(target: &NotifyTarget) -> Self {
        Self {
            row: NotificationRow::new(target),
            pending: None,
            latest: None,
            refused: None,
            known: None,
            unclear: false,
            restarts_often: false,
            due: Duration::ZERO,
            waits: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    pub(crate) fn row(&self) -> NotificationRow {
        let waiting = self.row.state == NotificationState::Waiting && self.pending.is_none();
        let state = match (waiting, &self.known) {
            (true, None) => NotificationState::Idle,
            (true, Some(_)) => NotificationState::Ok,
            (false, _) => self.row.state,
        };
        NotificationRow { state, pending: self.pending.is_some(), ..self.row.clone() }
    }

    /// What an earlier run knew of the receiver. `restarts_often`: this worker has been up for a short time several times.
    pub(crate) fn load(&mut self, known: Option<Known>, restarts_often: bool, now: Duration, unix: f64) {
        self.restarts_often = restarts_often;
        if let Some(known) = known.filter(|_| self.known.is_none()) {
            (self.row.state, self.row.last_sent) = (NotificationState::Ok, Some(known.at));
            self.known = Some(known);
        }
        if let Some(early) = self.pending.take() {
            self.offer(&early, now, unix);
        }
    }

    pub(crate) fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Takes a new message. One that waits is out of date.
    pub(crate) fn offer(&mut self, event: &Arc<Event>, now: Duration, unix: f64) {
        if self.pending.take().is_some() {
            self.row.counts.dropped += 1;
        }
        self.refused = None;
        self.latest = Some(Arc::clone(event));
        if !self.is_known(event) {
            self.pending = Some(Arc::clone(event));
            if self.row.state != NotificationState::Waiting {
                self.due = now;
            }
            if let Some(known) = self.known.as_ref().filter(|_| self.restarts_often && event.kind == EventKind::Started)
            {
                let wait = Duration::from_secs_f64((known.at + RARE - unix).clamp(0.0, RARE));
                self.due = self.due.max(now + wait);
            }
        }
    }

    /// The worker stops: its last message is tried once, now. False: the receiver has no message that it would end.
    pub(crate) fn stop(&mut self, event: &Arc<Event>) -> bool {
        let running = self.known.as_ref().is_some_and(|known| !known.stopped);
        (self.pending, self.due) = (running.then(|| Arc::clone(event)), Duration::ZERO);
        self.latest = self.pending.clone();
        running
    }

    /// There is another URL: what the old one refused is tried again, and nothing waits.
    pub(crate) fn renewed(&mut self, target: &NotifyTarget) {
        self.row.target = NotificationRow::new(target).target;
        self.due = Duration::ZERO;
        if let Some(refused) = self.refused.take().filter(|_| self.pending.is_none()) {
            self.pending = Some(refused);
        }
    }

    pub(crate) fn next(&self, now: Duration) -> Next {
        match &self.pending {
            None => Next::Wait(None),
            Some(_) if now < self.due => Next::Wait(Some(self.due - now)),
            Some(event) => Next::Send(Arc::clone(event), self.known.as_ref().map(|known| known.verdict)),
        }
    }

    /// Takes what became of a message. `unix`: Unix seconds. `jitter`: 0..1.
    pub(crate) fn see(
        &mut self,
        event: &Arc<Event>,
        outcome: Outcome,
        now: Duration,
        unix: f64,
        jitter: f64,
    ) -> Option<Line> {
        let to = self.row.target.clone();
        let before = std::mem::replace(&mut self.row.state, NotificationState::Ok);
        let is_pending = self.pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, event));
        self.due = now;
        let newer = self.latest.clone().filter(|latest| !Arc::ptr_eq(latest, event));
        let line = match outcome {
            Outcome::Accepted => {
                self.waits.success();
                self.row.counts.sent += 1;
                (self.row.last_sent, self.row.last_error) = (Some(unix), None);
                (self.known, self.unclear) = (Some(Known::new(event, unix)), false);
                self.pending.take_if(|_| is_pending);
                let failed = matches!(before, NotificationState::Waiting | NotificationState::Failed);
                failed.then(|| Line::Info(format!("{to} accepts notifications again")))
            }
            Outcome::Retry { why, wait, unclear } => {
                self.row.counts.failed += 1;
                self.row.state = NotificationState::Waiting;
                self.unclear |= unclear;
                let own = self.waits.after_failure(jitter);
                // A receiver that names a short wait again and again is left alone for longer.
                let least = if before == NotificationState::Waiting { own } else { Duration::ZERO };
                self.due = now + wait.map_or(own, |wait| wait.mul_f64(1.0 + 0.1 * jitter).max(least));
                self.row.last_error = Some(why.clone());
                let line = format!("cannot notify {to}: {why}; retrying with the newest state");
                (before != NotificationState::Waiting).then_some(Line::Warn(line))
            }
            Outcome::Refused { why, fix, .. } => {
                self.row.counts.failed += 1;
                self.row.state = NotificationState::Failed;
                self.row.last_error = Some(format!("{why}. {fix}"));
                if self.pending.take_if(|_| is_pending).is_some() {
                    self.row.counts.dropped += 1;
                    self.refused = Some(Arc::clone(event));
                }
                let line = format!("{to} refused a notification: {why}. {fix}");
                (before != NotificationState::Failed).then_some(Line::Warn(line))
            }
        };
        if let Some(newer) = newer {
            self.pending = None;
            self.offer(&newer, now, unix);
        }
        line
    }

    /// The receiver knows it, and knows nothing newer.
    fn is_known(&self, event: &Event) -> bool {
        let same = |known: &Known| !known.stopped && known.is_of(event);
        !self.unclear && !event.reminder && event.kind != EventKind::Stopping && self.known.as_ref().is_some_and(same)
    }
}

#[cfg(test)]
mod tests;
