//! The Live Runner half: one entry at one orchestrator, kept by beats; and before that, with ORCH_PROTOCOL=auto, the
//! question whether there is such a registry.

use std::sync::Arc;
use std::time::Duration;

use super::{Heard, TICK, Tenure};
use crate::config::Protocol;
use crate::gpu::state::GpuState;
use crate::health::snapshot::Snapshot;
use crate::livepeer::lease::{self, Withdrawal};
use crate::livepeer::orchestrator::Discovery;
use crate::livepeer::pace::Side;
use crate::livepeer::registries::Found;
use crate::livepeer::runner::{self, Beat, Cards, Follow, MODE, News, Runner, Status};
use crate::sys::json::json;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;

/// The first beat waits so long for the first sample: what it says may be kept by others for half an hour.
const FIRST_SAMPLE: Duration = Duration::from_secs(2);
/// What changes together is sent together.
const COALESCE: Duration = Duration::from_millis(250);
/// A worker that starts registers first, and asks then what else there is.
const BYOC_FIRST: Duration = Duration::from_secs(1);
/// How often GET /discovery is asked where there is no registry, and where there is no clear answer.
const ASK_AGAIN: Duration = Duration::from_secs(180);
const ASK_UNCLEAR: [u64; 5] = [5, 15, 30, 60, 180];

/// When to ask GET /discovery.
struct Asking {
    due: Duration,
    /// Answers in a row that were not clear.
    unclear: usize,
}

/// The entry, and what was sent and said of it last.
struct Entry {
    runner: Runner,
    follow: Follow,
    cards: Cards,
    seen: Option<Arc<Snapshot>>,
    row: usize,
    status: Status,
    /// The whole entry as the next beat would say it, and as the last one did.
    now: String,
    sent: String,
    told: Option<(&'static str, String)>,
}

impl Entry {
    fn new(tenure: &Tenure) -> Self {
        let id = &tenure.offer.runner.id;
        let orchestrator = tenure.orchestrator();
        let row = lease::Row::new(orchestrator.url(), id, lease::Row::LIVE_RUNNER);
        Self {
            runner: Runner::new(tenure.now()),
            follow: Follow::new(orchestrator.base().clone()),
            cards: Cards::default(),
            seen: None,
            row: tenure.registrations.put(row, lease::Row::is_same),
            status: Status::Ready,
            now: String::new(),
            sent: String::new(),
            told: None,
        }
    }

    /// There is something to take out at the end.
    fn is_live(&self) -> bool {
        self.runner.secret().is_some()
    }

    fn snapshot(&self) -> Option<&crate::health::snapshot::Snapshot> {
        self.seen.as_deref()
    }
}

impl Tenure {
    /// Does what is due until no job is in flight any more, and takes the entry out.
    pub(super) fn keep_runner(&self) {
        let entry = self.beat_on();
        if let Some(entry) = entry {
            self.leave(&entry);
        }
        self.lock().left = true;
        self.changed.notify_all();
    }

    fn beat_on(&self) -> Option<Entry> {
        let auto = self.offer.protocol == Protocol::Auto;
        let mut asking = auto.then(|| Asking { due: self.now(), unclear: 0 });
        let mut entry = (!auto).then(|| Entry::new(self));
        let mut withdrawal = Withdrawal::default();
        let mut heard = Heard::default();
        loop {
            let now = self.now();
            let calls = self.calls(Side::Runner, &mut heard);
            if calls.leaving || (calls.stopping && !entry.as_ref().is_some_and(Entry::is_live)) {
                return entry;
            }
            if calls.renew {
                self.read_secret();
            }
            let hurried = calls.renew || calls.nudged;
            let wanted = !withdrawal.see(now, self.offer.withdraw && self.is_unhealthy());
            let mut wait = TICK * self.offer.hurry;
            match (&mut asking, &mut entry) {
                (Some(ask), _) => {
                    if hurried {
                        // It may need a moment more than the other registry: short waits again.
                        (ask.due, ask.unclear) = (ask.due.min(now), ask.unclear.min(1));
                    }
                    let early = now < BYOC_FIRST && self.lock().sent.is_empty();
                    match if early { Err(TICK) } else { self.may(ask.due) } {
                        Err(more) => wait = wait.min(more),
                        Ok(()) if self.ask(ask) => {
                            let entry = entry.get_or_insert_with(|| Entry::new(self));
                            entry.runner.hasten(self.now());
                            (asking, wait) = (None, Duration::ZERO);
                        }
                        Ok(()) => {}
                    }
                }
                (None, Some(entry)) => {
                    if hurried {
                        entry.runner.hasten(now);
                    }
                    self.see_change(entry, now, Status::of(calls.stopping, wanted));
                    let early = !self.can_begin(entry);
                    match if early { Err(TICK) } else { self.may(entry.runner.due()) } {
                        Err(more) => wait = wait.min(more),
                        Ok(()) => {
                            let found = self.beat(entry);
                            wait = Duration::ZERO;
                            if auto && found == Some(Found::Absent) {
                                asking = Some(Asking { due: self.now() + ASK_AGAIN, unclear: 0 });
                            }
                            if let Some(found) = found {
                                self.found(Side::Runner, found);
                            }
                        }
                    }
                }
                (None, None) => return None,
            }
            self.rest(Side::Runner, wait, heard);
        }
    }

    /// Whether what is due at `due` may be done now; else for how long not.
    fn may(&self, due: Duration) -> Result<(), Duration> {
        match due.saturating_sub(self.now()) {
            Duration::ZERO => self.turn(Side::Runner, due),
            more => Err(more),
        }
    }

    /// Whether there is a Live Runner registry.
    fn ask(&self, asking: &mut Asking) -> bool {
        let orchestrator = self.orchestrator();
        let answer = orchestrator.discovery(&self.offer.runner.id);
        let now = self.now();
        match answer {
            Ok(Discovery::There { .. }) => return true,
            Ok(Discovery::Absent) => {
                *asking = Asking { due: now + ASK_AGAIN, unclear: 0 };
                self.found(Side::Runner, Found::Absent);
            }
            Err(why) => {
                let wait = ASK_UNCLEAR[asking.unclear.min(ASK_UNCLEAR.len() - 1)];
                if asking.unclear == 0 {
                    log::info!("whether {} has Live Runner is not known: {why}; asking again", orchestrator.url());
                }
                *asking = Asking { due: now + Duration::from_secs(wait), unclear: asking.unclear + 1 };
                self.found(Side::Runner, Found::Unclear);
            }
        }
        false
    }

    /// The first beat has to say what GPU this is.
    fn can_begin(&self, entry: &Entry) -> bool {
        let known = |gpu: &GpuState| !matches!(gpu, GpuState::Pending | GpuState::Starting { .. });
        !entry.sent.is_empty()
            || entry.snapshot().is_some_and(|snapshot| known(&snapshot.gpu))
            || self.started.elapsed() >= FIRST_SAMPLE
    }

    /// Brings the next beat forward when it would say something new.
    fn see_change(&self, entry: &mut Entry, now: Duration, status: Status) {
        let latest = self.board.latest();
        let same = match (&entry.seen, &latest) {
            (Some(seen), Some(latest)) => Arc::ptr_eq(seen, latest),
            (seen, latest) => seen.is_none() && latest.is_none(),
        };
        if same && entry.status == status && !entry.now.is_empty() {
            return;
        }
        let when = if entry.status == status { now + COALESCE } else { now };
        (entry.seen, entry.status) = (latest, status);
        if let Some(seen) = &entry.seen {
            entry.cards.see(&seen.gpu);
        }
        let changed = json(&self.body(entry));
        if changed != entry.now && entry.is_live() && changed != entry.sent {
            entry.runner.hasten(when);
        }
        entry.now = changed;
    }

    fn body<'a>(&'a self, entry: &'a Entry) -> Beat<'a> {
        let offer = &self.offer;
        Beat {
            runner_id: &offer.runner.id,
            runner_url: offer.worker.as_str(),
            app: &offer.runner.app,
            mode: MODE,
            capacity: offer.capability.capacity,
            status: entry.status,
            version: env!("CARGO_PKG_VERSION"),
            metadata: runner::metadata(entry.snapshot(), &entry.cards),
            gpu: entry.cards.first(),
            price_info: offer.runner.price.as_ref(),
        }
    }

    /// Sends the whole entry and takes the answer in. What that says of the registry; None: it is to be sent again.
    fn beat(&self, entry: &mut Entry) -> Option<Found> {
        let orchestrator = self.orchestrator();
        let patience = (entry.runner.patience() / self.offer.hurry).max(Duration::from_millis(500));
        let body = self.body(entry);
        let own = entry.runner.secret().map(|secret| (secret, entry.follow.target()));
        let answer = orchestrator.beat(&body, own, patience);
        entry.sent.clone_from(&entry.now);
        let now = self.now();
        if let Some(note) = entry.follow.gives_up(now, &answer) {
            match note {
                Some(note) => log::warn!("live runner {}: {note}", self.offer.runner.id),
                None => log::debug!("live runner {}: beats go to ORCH_URL again", self.offer.runner.id),
            }
            return None;
        }
        if let runner::Answer::Taken { orchestrator, .. } = &answer
            && let Some(note) = entry.follow.taken(now, orchestrator.as_deref())
        {
            log::info!("live runner {}: {note}", self.offer.runner.id);
        }
        let news = entry.runner.answered(now, answer, unix_now().fract());
        if !entry.is_live() {
            entry.follow.reset();
        }
        Some(self.take_in(entry, orchestrator.url(), news))
    }

    fn take_in(&self, entry: &mut Entry, url: &str, news: News) -> Found {
        let id = &self.offer.runner.id;
        let mut failed = None;
        let found = match news {
            News::Registered => {
                if entry.told.take().is_some_and(|(kind, _)| kind == "no_answer") {
                    // It was away, and the other registry may wait for it.
                    self.nudge(Side::Byoc);
                }
                let worker = self.offer.worker.as_str();
                log::info!("registered {id} as a live runner at {url}: jobs come to {worker}");
                Found::Visible
            }
            News::Same => Found::Visible,
            News::Lost => {
                let then = if entry.status == Status::Draining { "" } else { ": registering it again" };
                log::info!("{url} has lost the live runner {id}{then}");
                // It was restarted, most likely: BYOC has lost its names without a word.
                self.nudge(Side::Byoc);
                Found::Unclear
            }
            News::Failed { kind, message } => {
                // The same complaint at each beat would bury everything else.
                let told = entry.told.replace((kind, message.clone()));
                let same = told.is_some_and(|(_, before)| before == message);
                if same || (kind == "absent" && self.offer.protocol == Protocol::Auto) {
                    log::debug!("live runner {id} at {url}: {message}");
                } else {
                    log::warn!("cannot register {id} as a live runner at {url}: {message}; trying on");
                }
                failed = Some((kind, message));
                match kind {
                    "absent" => Found::Absent,
                    "wrong_secret" | "unauthorized" | "bad_body" | "held" => Found::Refused,
                    _ => Found::Unclear,
                }
            }
        };
        let taken = failed.is_none() && entry.is_live();
        let absent = found == Found::Absent && self.does_without(Side::Runner);
        self.registrations.change(entry.row, |row| {
            row.state = match entry.runner.shown() {
                lease::State::Registered if entry.status != Status::Ready => lease::State::Withdrawn,
                _ if absent => lease::State::Absent,
                state => state,
            };
            if taken {
                row.renewals += u64::from(row.last_success.is_some());
                row.last_success = Some(millis(unix_now()));
                row.error = None;
            }
            if let Some((kind, message)) = &failed {
                *row.failures.entry(kind).or_default() += 1;
                row.error = Some(message.clone());
            }
        });
        if failed.is_some_and(|(kind, _)| matches!(kind, "wrong_secret" | "unauthorized")) {
            self.read_secret();
        }
        found
    }

    /// Takes the entry out, if it is there.
    fn leave(&self, entry: &Entry) {
        let orchestrator = self.orchestrator();
        let (id, url) = (&self.offer.runner.id, orchestrator.url());
        if let Some(secret) = entry.runner.secret() {
            match orchestrator.leave(id, secret, entry.follow.target()) {
                Ok(()) => log::info!("unregistered the live runner {id} at {url}"),
                Err(why) => log::warn!("cannot unregister the live runner {id} at {url}: {why}"),
            }
        }
    }
}
