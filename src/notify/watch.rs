//! Which changes are sent: one that lasts is sent once, a state that does not settle is sent as such, with few reminders.
//! Time is an argument: a monotonic clock for every hold, Unix seconds for messages alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Event, EventKind, Flapping, state_of};
use crate::health::standing::Standing;
use crate::health::verdict::{Code, Verdict};
use crate::sys::backoff::Backoff;
use crate::sys::hash::hash64;

/// How long a state must last before it is sent: a first one that says nothing, and any after flapping.
const CALM: Duration = Duration::from_secs(60);
/// How long a state must last once changes that each lasted have become too many; and at most, where flapping starts again
/// and again.
const LONG_CALM: Duration = Duration::from_secs(600);
const LONGEST_CALM: Duration = Duration::from_secs(3600);
/// Flapping that starts again within this time doubles the calm.
const AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Once this many changes are sent within this time, the next one counts as flapping.
const MOST: usize = 5;
const WINDOW: Duration = Duration::from_secs(3600);
/// First and longest wait between two messages about one flapping state.
const REMINDERS: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(6 * 3600));
/// States that are remembered to notice one that returns.
const MOST_STATES: usize = 64;

/// A state and since when it lasts.
#[derive(Debug, Clone)]
struct Seen {
    state: u64,
    since: Duration,
    /// Unix seconds.
    unix: f64,
    standing: Standing,
}

/// What has happened since the state differed from the reported one.
#[derive(Debug)]
struct Unrest {
    since: Duration,
    changes: u32,
    states: Vec<u64>,
    /// A state came back: it alternates, and does not only grow.
    returned: bool,
    /// The worst state since the last message.
    worst: Seen,
    flapping: Option<FlappingState>,
}

#[derive(Debug)]
struct FlappingState {
    /// How long a state must last.
    calm: Duration,
    reminder: Duration,
    reminders: Backoff,
    /// The worst verdict that was sent, and the number of changes then.
    sent: (Verdict, u32),
    /// Unhealthy reasons that a message had, and others with the time since when they last.
    said: Vec<u64>,
    news: Vec<(u64, Duration)>,
}

/// Decides what is sent.
#[derive(Debug)]
pub(crate) struct Watch {
    worker: Arc<str>,
    after: Duration,
    current: Option<Seen>,
    reported: Option<Seen>,
    unrest: Option<Unrest>,
    /// Since when the reported verdict is not ok.
    bad_since: Option<Duration>,
    /// When the last changes were sent.
    sent: VecDeque<Duration>,
    /// The calm of the last flapping, and when that ended.
    flapped: Option<(Duration, Duration)>,
}

impl Watch {
    /// `after`: NOTIFY_AFTER.
    pub(crate) fn new(worker: &Arc<str>, after: Duration) -> Self {
        Self {
            worker: Arc::clone(worker),
            after,
            current: None,
            reported: None,
            unrest: None,
            bad_since: None,
            sent: VecDeque::new(),
            flapped: None,
        }
    }

    /// The state at `now`; `unix`: Unix seconds. What to send, if anything.
    pub(crate) fn see(&mut self, now: Duration, unix: f64, standing: Standing) -> Option<Event> {
        self.take(Seen { state: state_of(&standing), since: now, unix, standing });
        if self.reported.is_none() {
            return self.first(now, unix);
        }
        match self.unrest.as_ref()?.flapping {
            None => self.change(now, unix),
            Some(_) => self.flap(now, unix),
        }
    }

    /// How long nothing is due, if no other state comes.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        let since = self.current.as_ref()?.since;
        let unrest = self.unrest.as_ref();
        let hold = match (unrest.and_then(|unrest| unrest.flapping.as_ref()), &self.reported) {
            (Some(flapping), _) => flapping.calm,
            (None, Some(_)) => self.after,
            (None, None) => self.first_hold(),
        };
        let reminder = unrest.and_then(|unrest| Some(unrest.flapping.as_ref()?.reminder));
        let unsettled = unrest.filter(|unrest| unrest.flapping.is_none()).map(|unrest| unrest.since + hold * 2);
        let news = unrest.and_then(|unrest| Some(unrest.flapping.as_ref()?.news.first()?.1 + self.after));
        let due = [Some(since + hold), reminder, unsettled, news];
        due.into_iter().flatten().filter(|due| *due > now).min().map(|due| due - now)
    }

    fn take(&mut self, seen: Seen) {
        match &mut self.current {
            Some(current) if current.state == seen.state => {
                current.standing = seen.standing;
                return;
            }
            current => *current = Some(seen.clone()),
        }
        let before = self.reported.as_ref();
        match &mut self.unrest {
            Some(unrest) => unrest.take(seen),
            None if before.is_some_and(|before| before.state == seen.state) || says_nothing(&seen.standing) => {}
            None => {
                let worst = before.filter(|before| before.standing.verdict > seen.standing.verdict).unwrap_or(&seen);
                self.unrest = Some(Unrest {
                    since: seen.since,
                    changes: 1,
                    states: before.map(|before| before.state).into_iter().chain([seen.state]).collect(),
                    returned: false,
                    worst: worst.clone(),
                    flapping: None,
                });
            }
        }
    }

    fn first_hold(&self) -> Duration {
        let unclear = self.current.as_ref().is_some_and(|current| current.standing.verdict == Verdict::Unknown);
        if unclear { self.after.max(CALM) } else { self.after }
    }

    fn first(&mut self, now: Duration, unix: f64) -> Option<Event> {
        let hold = self.first_hold();
        let current = self.current.clone()?;
        if now - current.since >= hold {
            self.unrest = None;
            return Some(self.report(EventKind::Started, current, None, unix));
        }
        let unrest = self.unrest.as_ref().filter(|unrest| now - unrest.since >= hold * 2)?;
        if unrest.returned {
            return Some(self.start_flapping(EventKind::Started, now, unix, self.after.max(CALM)));
        }
        self.unrest = None;
        Some(self.report(EventKind::Started, current, None, unix))
    }

    fn change(&mut self, now: Duration, unix: f64) -> Option<Event> {
        let (current, unrest) = (self.current.clone()?, self.unrest.as_ref()?);
        let is_reported = self.reported.as_ref().is_some_and(|reported| reported.state == current.state);
        let settled = now - current.since >= self.after;
        if settled && is_reported {
            self.unrest = None;
            return None;
        }
        let too_long = now - unrest.since >= self.after * 2;
        if !settled && too_long && unrest.returned {
            return Some(self.start_flapping(EventKind::Verdict, now, unix, self.after.max(CALM)));
        }
        if !settled && (!too_long || is_reported) {
            return None;
        }
        self.sent.retain(|sent| now - *sent < WINDOW);
        if self.sent.len() >= MOST {
            return Some(self.start_flapping(EventKind::Verdict, now, unix, self.after.max(LONG_CALM)));
        }
        self.sent.push_back(now);
        self.unrest = None;
        Some(self.report(EventKind::Verdict, current, None, unix))
    }

    fn flap(&mut self, now: Duration, unix: f64) -> Option<Event> {
        let current = self.current.clone()?;
        let unrest = self.unrest.as_mut()?;
        let flapping = unrest.flapping.as_mut()?;
        if now - current.since >= flapping.calm {
            self.flapped = Some((flapping.calm, now));
            self.unrest = None;
            self.sent.push_back(now);
            return Some(self.report(EventKind::Verdict, current, None, unix));
        }
        let (verdict, changes) = flapping.sent;
        let worse = unrest.worst.standing.verdict > verdict && now - unrest.worst.since >= self.after;
        // What flaps must not hide what lasts.
        let news = flapping.has_news(&current.standing, now, self.after);
        if now >= flapping.reminder {
            flapping.reminder = now + flapping.reminders.after_failure(0.0);
            if unrest.changes == changes && !news {
                return None;
            }
        } else if !worse && !news {
            return None;
        }
        flapping.sent = (verdict.max(unrest.worst.standing.verdict), unrest.changes);
        let found = Flapping { changes: unrest.changes, during: now - unrest.since };
        let worst = std::mem::replace(&mut unrest.worst, current.clone());
        let shown = if news { current } else { worst };
        flapping.say(&shown.standing);
        Some(Event { reminder: true, ..self.report(EventKind::Verdict, shown, Some(found), unix) })
    }

    /// `calm`: how long a state must last, unless flapping starts again and again.
    fn start_flapping(&mut self, kind: EventKind, now: Duration, unix: f64, calm: Duration) -> Event {
        let repeated = self.flapped.filter(|(_, ended)| now - *ended < AGAIN);
        let calm = repeated.map_or(calm, |(before, _)| calm.max(before * 2)).min(LONGEST_CALM.max(self.after));
        let Some((current, unrest)) = self.current.clone().zip(self.unrest.as_mut()) else {
            unreachable!("flapping starts from unrest")
        };
        // Changes that were sent one by one are part of it.
        if let Some(first) = self.sent.front().filter(|_| self.sent.len() >= MOST) {
            unrest.changes += u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
            unrest.since = *first;
        }
        let found = Flapping { changes: unrest.changes, during: now - unrest.since };
        let worst = std::mem::replace(&mut unrest.worst, current);
        let mut reminders = Backoff::new(REMINDERS.0, REMINDERS.1);
        unrest.flapping = Some(FlappingState {
            calm,
            reminder: now + reminders.after_failure(0.0),
            reminders,
            sent: (worst.standing.verdict, unrest.changes),
            said: unhealthy(&worst.standing).collect(),
            news: Vec::new(),
        });
        self.report(kind, worst, Some(found), unix)
    }

    /// The message about a state, which is the reported one from now on.
    fn report(&mut self, kind: EventKind, seen: Seen, flapping: Option<Flapping>, unix: f64) -> Event {
        let mut event = Event::new(kind, &self.worker, Some(seen.standing.clone()), unix);
        (event.since, event.flapping) = (seen.unix, flapping);
        if seen.standing.verdict == Verdict::Ok {
            event.lasted = self.bad_since.take().map(|bad| seen.since.saturating_sub(bad));
        } else {
            self.bad_since.get_or_insert(seen.since);
        }
        self.reported = Some(seen);
        event
    }
}

impl Unrest {
    fn take(&mut self, seen: Seen) {
        self.changes = self.changes.saturating_add(1);
        if self.states.contains(&seen.state) {
            self.returned = true;
        } else if self.states.len() < MOST_STATES {
            self.states.push(seen.state);
        }
        if weight(&seen.standing) > weight(&self.worst.standing) {
            self.worst = seen;
        }
    }
}

impl FlappingState {
    /// An unhealthy reason that no message had lasts for `after`, whatever else changes.
    fn has_news(&mut self, standing: &Standing, now: Duration, after: Duration) -> bool {
        self.news.retain(|(reason, _)| unhealthy(standing).any(|other| other == *reason));
        for reason in unhealthy(standing) {
            if !self.said.contains(&reason) && self.news.iter().all(|(other, _)| *other != reason) {
                self.news.push((reason, now));
            }
        }
        self.news.iter().any(|(_, since)| now - *since >= after)
    }

    /// A message has these reasons.
    fn say(&mut self, standing: &Standing) {
        self.said.extend(unhealthy(standing));
        self.said.sort_unstable();
        self.said.dedup();
        self.news.retain(|(reason, _)| !self.said.contains(reason));
    }
}

fn unhealthy(standing: &Standing) -> impl Iterator<Item = u64> {
    let reasons = standing.reasons.iter().filter(|reason| reason.severity == Verdict::Unhealthy);
    reasons.map(|reason| hash64(&[reason.code.name(), reason.gpu.as_deref().unwrap_or_default()]))
}

/// Of two states with the same verdict the worse one has more reasons for it.
fn weight(standing: &Standing) -> (Verdict, usize) {
    let reasons = standing.reasons.iter().filter(|reason| reason.severity == standing.verdict);
    (standing.verdict, reasons.count())
}

/// Nothing was read yet.
fn says_nothing(standing: &Standing) -> bool {
    standing.reasons.iter().any(|reason| reason.code == Code::NoSample)
}

#[cfg(test)]
mod tests;
