//! The Live Runner half of a session: one entry at one orchestrator, kept alive by beats. With ORCH_PROTOCOL=auto it first
//! finds out whether there is such a registry.

use std::sync::Arc;
use std::time::Duration;

use super::session::{LastSeen, Session, TICK};
use crate::config::Protocol;
use crate::gpu::state::GpuState;
use crate::health::snapshot::Snapshot;
use crate::livepeer::lease::{self, Withdrawal};
use crate::livepeer::orchestrator::runner::Discovery;
use crate::livepeer::pace::Registry;
use crate::livepeer::registries::RegistryStatus;
use crate::livepeer::runner::{self, Beat, BeatResult, Cards, Follow, MODE, Runner, RunnerStatus};
use crate::sys::backoff::jitter;
use crate::sys::json::json;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;

/// How long the first beat waits for the first sample: clients may cache what it says for half an hour.
const FIRST_SAMPLE: Duration = Duration::from_secs(2);
/// Changes within this time are sent together.
const COALESCE: Duration = Duration::from_millis(250);
/// At start BYOC registers first.
const BYOC_FIRST: Duration = Duration::from_secs(1);
/// Seconds between requests to GET /discovery where there is no registry, and after unclear answers.
const ASK_AGAIN: Duration = Duration::from_secs(180);
const ASK_UNCLEAR: [u64; 5] = [5, 15, 30, 60, 180];

/// When to request GET /discovery.
struct Asking {
    due: Duration,
    /// Unclear answers in a row.
    unclear: usize,
}

/// The entry, and what was last sent and logged.
struct Entry {
    runner: Runner,
    follow: Follow,
    cards: Cards,
    seen: Option<Arc<Snapshot>>,
    row: usize,
    status: RunnerStatus,
    /// The entry as the next beat would send it, and as the last one did.
    now: String,
    sent: String,
    logged: Option<(&'static str, String)>,
}

impl Entry {
    fn new(session: &Session) -> Self {
        let id = &session.offer.runner.id;
        let orchestrator = session.orchestrator();
        let row = lease::RegistrationRow::new(orchestrator.url(), id, lease::RegistrationRow::LIVE_RUNNER);
        let mut runner = Runner::new(session.now());
        let kept = session.lock().secret.take();
        if let Some(secret) = kept {
            log::info!("live runner {id} at {}: still registered by the previous worker", orchestrator.url());
            runner.resume(secret);
        }
        Self {
            runner,
            follow: Follow::new(orchestrator.base().clone()),
            cards: Cards::default(),
            seen: None,
            row: session.registrations.put(row, lease::RegistrationRow::is_same),
            status: RunnerStatus::Ready,
            now: String::new(),
            sent: String::new(),
            logged: None,
        }
    }

    /// It must be unregistered at the end.
    fn is_live(&self) -> bool {
        self.runner.secret().is_some()
    }

    fn snapshot(&self) -> Option<&crate::health::snapshot::Snapshot> {
        self.seen.as_deref()
    }
}

impl Session {
    /// Beats until the worker stops and no job is in flight, then unregisters the entry.
    pub(super) fn keep_runner(&self) {
        let entry = self.beat_on();
        if let Some(entry) = entry {
            let keeps = self.lock().keeps;
            if keeps {
                self.lock().secret = entry.runner.secret().map(str::to_owned);
            } else {
                self.leave(&entry);
            }
        }
        self.lock().left = true;
        self.changed.notify_all();
    }

    fn beat_on(&self) -> Option<Entry> {
        let auto = self.offer.protocol == Protocol::Auto;
        let mut asking = auto.then(|| Asking { due: self.now(), unclear: 0 });
        let mut entry = (!auto).then(|| Entry::new(self));
        let mut withdrawal = Withdrawal::default();
        let mut last_seen = LastSeen::default();
        loop {
            let now = self.now();
            let changes = self.changes(Registry::Runner, &mut last_seen);
            if changes.leaving || (changes.stopping && !entry.as_ref().is_some_and(Entry::is_live)) {
                return entry;
            }
            if changes.renew {
                self.read_secret();
            }
            let hasten = changes.renew || changes.nudged;
            let wanted = !withdrawal.see(now, self.offer.withdraw && self.is_unhealthy());
            let mut wait = TICK * self.offer.time_scale;
            match (&mut asking, &mut entry) {
                (Some(ask), _) => {
                    if hasten {
                        // It may start later than the other registry: back to short waits.
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
                    if hasten {
                        entry.runner.hasten(now);
                    }
                    self.see_change(entry, now, RunnerStatus::of(changes.stopping, wanted));
                    let early = !self.can_begin(entry);
                    match if early { Err(TICK) } else { self.may(entry.runner.due()) } {
                        Err(more) => wait = wait.min(more),
                        Ok(()) => {
                            let found = self.beat(entry);
                            wait = Duration::ZERO;
                            if auto && found == Some(RegistryStatus::Absent) {
                                asking = Some(Asking { due: self.now() + ASK_AGAIN, unclear: 0 });
                            }
                            if let Some(found) = found {
                                self.found(Registry::Runner, found);
                            }
                        }
                    }
                }
                (None, None) => return None,
            }
            self.rest(Registry::Runner, wait, last_seen);
        }
    }

    /// Ok: what is due at `due` may be done now. Err: how long to wait. A worker that stops says so without a turn, since jobs
    /// are sent to it until then.
    fn may(&self, due: Duration) -> Result<(), Duration> {
        match due.saturating_sub(self.now()) {
            Duration::ZERO if self.lock().stopping => Ok(()),
            Duration::ZERO => self.turn(Registry::Runner, due),
            more => Err(more),
        }
    }

    /// Requests GET /discovery. True: there is a Live Runner registry.
    fn ask(&self, asking: &mut Asking) -> bool {
        let orchestrator = self.orchestrator();
        let answer = orchestrator.discovery(&self.offer.runner.id);
        let now = self.now();
        match answer {
            Ok(Discovery::There { .. }) => return true,
            Ok(Discovery::Absent) => {
                *asking = Asking { due: now + ASK_AGAIN, unclear: 0 };
                self.found(Registry::Runner, RegistryStatus::Absent);
            }
            Err(why) => {
                let wait = ASK_UNCLEAR[asking.unclear.min(ASK_UNCLEAR.len() - 1)];
                if asking.unclear == 0 {
                    log::info!("cannot find out whether {} has Live Runner: {why}; retrying", orchestrator.url());
                }
                *asking = Asking { due: now + Duration::from_secs(wait), unclear: asking.unclear + 1 };
                self.found(Registry::Runner, RegistryStatus::Unclear);
            }
        }
        false
    }

    /// The first beat waits for the GPU's name.
    fn can_begin(&self, entry: &Entry) -> bool {
        let known = |gpu: &GpuState| !matches!(gpu, GpuState::Pending | GpuState::Starting { .. });
        !entry.sent.is_empty()
            || entry.snapshot().is_some_and(|snapshot| known(&snapshot.gpu))
            || self.started.elapsed() >= FIRST_SAMPLE
    }

    /// Brings the next beat forward when the entry has changed.
    fn see_change(&self, entry: &mut Entry, now: Duration, status: RunnerStatus) {
        let latest = self.snapshots.latest();
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
            metadata: runner::metadata(entry.snapshot(), self.verdict_of(entry.snapshot()), &entry.cards),
            gpu: entry.cards.first(),
            price_info: offer.runner.price.as_ref(),
        }
    }

    /// Sends the entry and takes the answer. Returns what that says about the registry; None: send it again.
    fn beat(&self, entry: &mut Entry) -> Option<RegistryStatus> {
        let orchestrator = self.orchestrator();
        let timeout = (entry.runner.timeout() / self.offer.time_scale).max(Duration::from_millis(500));
        let body = self.body(entry);
        let own = entry.runner.secret().map(|secret| (secret, entry.follow.target()));
        let answer = orchestrator.beat(&body, own, timeout);
        entry.sent.clone_from(&entry.now);
        let now = self.now();
        if let Some(note) = entry.follow.falls_back(now, &answer) {
            match note {
                Some(note) => log::warn!("live runner {}: {note}", self.offer.runner.id),
                None => log::debug!("live runner {}: beats go back to ORCH_URL", self.offer.runner.id),
            }
            return None;
        }
        if let runner::BeatAnswer::Taken { orchestrator, .. } = &answer
            && let Some(note) = entry.follow.taken(now, orchestrator.as_deref())
        {
            log::info!("live runner {}: {note}", self.offer.runner.id);
        }
        let news = entry.runner.answered(now, answer, jitter());
        if !entry.is_live() {
            entry.follow.reset();
        }
        Some(self.take_in(entry, orchestrator.url(), news))
    }

    fn take_in(&self, entry: &mut Entry, url: &str, news: BeatResult) -> RegistryStatus {
        let id = &self.offer.runner.id;
        let mut failed = None;
        let found = match news {
            BeatResult::Registered => {
                if entry.logged.take().is_some_and(|(kind, _)| matches!(kind, "no_answer" | "absent")) {
                    // It was down: the other registry may be waiting for it.
                    self.nudge(Registry::Byoc);
                }
                let worker = self.offer.worker.as_str();
                log::info!("registered live runner {id} at {url}; jobs go to {worker}");
                RegistryStatus::Visible
            }
            BeatResult::Unchanged => RegistryStatus::Visible,
            BeatResult::Lost => {
                let then = if entry.status == RunnerStatus::Draining { "" } else { "; registering it again" };
                log::info!("{url} has lost live runner {id}{then}");
                // Most likely it was restarted, so BYOC has lost its names too.
                self.nudge(Registry::Byoc);
                RegistryStatus::Unclear
            }
            BeatResult::Failed { kind, message } => {
                let logged = entry.logged.replace((kind, message.clone()));
                let same = logged.is_some_and(|(_, before)| before == message);
                if same || (kind == "absent" && self.offer.protocol == Protocol::Auto) {
                    log::debug!("live runner {id} at {url}: {message}");
                } else {
                    log::warn!("cannot register live runner {id} at {url}, retrying: {message}");
                }
                failed = Some((kind, message));
                match kind {
                    "absent" => RegistryStatus::Absent,
                    "wrong_secret" | "unauthorized" | "bad_body" | "held" => RegistryStatus::Refused,
                    _ => RegistryStatus::Unclear,
                }
            }
        };
        let taken = failed.is_none() && entry.is_live();
        let absent = found == RegistryStatus::Absent && self.does_without(Registry::Runner);
        self.registrations.change(entry.row, |row| {
            row.state = match entry.runner.shown() {
                lease::RegistrationState::Registered if entry.status != RunnerStatus::Ready => {
                    lease::RegistrationState::Withdrawn
                }
                _ if absent => lease::RegistrationState::Absent,
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

    /// Unregisters the entry, if it is registered.
    fn leave(&self, entry: &Entry) {
        let orchestrator = self.orchestrator();
        let (id, url) = (&self.offer.runner.id, orchestrator.url());
        if let Some(secret) = entry.runner.secret() {
            match orchestrator.leave(id, secret, entry.follow.target()) {
                Ok(()) => log::info!("unregistered live runner {id} at {url}"),
                Err(why) => log::warn!("cannot unregister live runner {id} at {url}: {why}"),
            }
        }
    }
}
