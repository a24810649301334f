//! The thread of one receiver: sends what is due, and waits. A receiver that hangs delays no other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::call::Caller;
use super::delivery::{Delivery, Line, Next, Outcome, judge};
use super::event::{Event, EventKind};
use super::format;
use super::notified::key;
use super::notified_file::NotifiedBook;
use super::row::Notifications;
use crate::config::{NotifyTarget, SecretUrl};
use crate::health::verdict::Verdict;
use crate::sys::backoff::jitter;
use crate::sys::limits::unix_now;
use crate::sys::secrets;

/// For one request; and for the last one.
const DEADLINE: Duration = Duration::from_secs(10);
const LAST_DEADLINE: Duration = Duration::from_secs(2);

/// Sends one message once; what the answer means.
pub(crate) fn send_once(caller: &Caller, target: &NotifyTarget, event: &Event) -> Outcome {
    send(caller, target, event, None, DEADLINE)
}

fn send(
    caller: &Caller,
    target: &NotifyTarget,
    event: &Event,
    previous: Option<Verdict>,
    deadline: Duration,
) -> Outcome {
    let (url, message) = format::request(target, event, previous);
    let reply = caller.send(&target.url, &url, &message, deadline);
    judge(target, &reply, unix_now())
}

/// What all receivers of a worker share.
#[derive(Debug)]
pub(super) struct Common {
    /// As they were at the start.
    pub(super) targets: Vec<NotifyTarget>,
    /// NOTIFY_URL_FILE.
    pub(super) file: Option<String>,
    pub(super) caller: Caller,
    pub(super) book: NotifiedBook,
    pub(super) rows: Arc<Notifications>,
    pub(super) started: Instant,
    /// Time runs this many times faster, for tests.
    pub(super) time_scale: u32,
}

impl Common {
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed() * self.time_scale
    }

    /// Reads NOTIFY_URL_FILE again. None: there is none, or it cannot be used.
    pub(super) fn read_again(&self) -> Option<Vec<NotifyTarget>> {
        let file = self.file.as_ref()?;
        match secrets::read_again(file).map(|text| NotifyTarget::renewed(&self.targets, &text)) {
            Ok(Some(targets)) => return Some(targets),
            Ok(None) => log::warn!(
                "NOTIFY_URL_FILE={file}: must hold as many valid URLs as at the start: {}; keeping the old ones",
                self.targets.len()
            ),
            Err(why) => log::warn!("NOTIFY_URL_FILE={file}: {why}; keeping the old URLs"),
        }
        None
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    common: Arc<Common>,
    /// In NOTIFY_URL.
    index: usize,
    state: Mutex<ReceiverState>,
    changed: Condvar,
}

#[derive(Debug)]
struct ReceiverState {
    url: SecretUrl,
    delivery: Delivery,
    stopping: bool,
    /// The last message was tried.
    done: bool,
}

impl Receiver {
    pub(super) fn new(common: &Arc<Common>, index: usize) -> Self {
        let target = &common.targets[index];
        let delivery = Delivery::new(target);
        common.rows.put(delivery.row(), |_, _| false);
        let state = ReceiverState { url: target.url.clone(), delivery, stopping: false, done: false };
        Self { common: Arc::clone(common), index, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, ReceiverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a message sent, unless the receiver knows it.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        let mut state = self.lock();
        if !state.stopping {
            state.delivery.offer(event, self.common.now(), unix_now());
            self.publish(&state);
        }
    }

    /// Has the last message sent.
    pub(super) fn stop(&self, event: &Arc<Event>) {
        let mut state = self.lock();
        state.stopping = true;
        state.done = !state.delivery.stop(event);
        self.publish(&state);
    }

    /// Waits until the last message was tried, at most until `end`.
    pub(super) fn wait(&self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(self.lock(), left, |state| !state.done));
    }

    /// Takes its URL from what was read again. True: it is another one.
    pub(super) fn renew(&self, targets: &[NotifyTarget]) -> bool {
        let url = targets[self.index].url.clone();
        let mut state = self.lock();
        let changed = state.url != url;
        if changed {
            self.common.book.rename(&key(&state.url), &key(&url));
            state.url = url;
            let target = self.target(&state);
            state.delivery.renewed(&target);
            self.publish(&state);
        }
        changed
    }

    fn target(&self, state: &ReceiverState) -> NotifyTarget {
        NotifyTarget { url: state.url.clone(), format: self.common.targets[self.index].format }
    }

    /// For operators, and for the thread that waits.
    fn publish(&self, state: &ReceiverState) {
        let row = state.delivery.row();
        self.common.rows.change(self.index, |old| *old = row);
        self.changed.notify_all();
    }

    /// Until the last message was tried.
    pub(super) fn deliver_forever(&self) {
        let known = self.common.book.known(&key(&self.common.targets[self.index].url));
        let often = self.common.book.restarts_often();
        {
            let mut state = self.lock();
            state.delivery.load(known, often, self.common.now(), unix_now());
            self.publish(&state);
        }
        while let Some((target, event, previous, deadline)) = self.next() {
            let outcome = send(&self.common.caller, &target, &event, previous, deadline);
            let may_be_old = matches!(outcome, Outcome::Refused { url: true, .. });
            if may_be_old && self.common.read_again().is_some_and(|targets| self.renew(&targets)) {
                continue;
            }
            self.took(&target, &event, outcome);
        }
    }

    /// The next message, when it is due; None: there is no more.
    fn next(&self) -> Option<(NotifyTarget, Arc<Event>, Option<Verdict>, Duration)> {
        let mut state = self.lock();
        loop {
            if state.done {
                return None;
            }
            let wait = match state.delivery.next(self.common.now()) {
                Next::Send(event, previous) => {
                    let hurried = (DEADLINE / self.common.time_scale).max(LAST_DEADLINE);
                    let deadline = if state.stopping { LAST_DEADLINE } else { hurried };
                    return Some((self.target(&state), event, previous, deadline));
                }
                Next::Wait(wait) => wait,
            };
            state = match wait {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let wait = wait / self.common.time_scale;
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes what became of a message.
    fn took(&self, target: &NotifyTarget, event: &Arc<Event>, outcome: Outcome) {
        let accepted = outcome == Outcome::Accepted;
        let mut state = self.lock();
        let line = state.delivery.see(event, outcome, self.common.now(), unix_now(), jitter());
        // It stays done where an earlier message was on its way at the stop.
        state.done |= state.stopping && event.kind == EventKind::Stopping;
        let known = state.delivery.known().filter(|_| accepted).cloned();
        // The file is written before anyone who waits for this goes on.
        if let Some(known) = known {
            self.common.book.put(&key(&target.url), known);
        }
        self.publish(&state);
        drop(state);
        if accepted {
            log::info!("notified {}: {}", target.url.shown(), event.kind.name());
        }
        match line {
            Some(Line::Info(line)) => log::info!("{line}"),
            Some(Line::Warn(line)) => log::warn!("{line}"),
            None => {}
        }
    }
}
