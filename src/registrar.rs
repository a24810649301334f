//! Keeps every name registered at every orchestrator, as `pure/lease` says, and takes it out at the end. One thread for
//! each orchestrator: one that hangs delays no other.

mod runner;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::counters::Pulse;
use crate::edge::limits::unix_now;
use crate::edge::orchestrator::{Orchestrator, RegisterError};
use crate::edge::secrets;
use crate::pure::config::{Capability, Protocol, RunnerConfig, Secret};
use crate::pure::contract::millis;
use crate::pure::lease::{Action, Hint, Lease, Row, State, Withdrawal};
use crate::pure::runner::Status;
use crate::pure::url::HttpUrl;
use crate::pure::verdict::Verdict;
use crate::rows::Rows;
use crate::sampler::Board;
use crate::threads;
use runner::Entry;

/// What operators see of all registrations.
pub(crate) type Registrations = Rows<Row>;

/// No orchestrator is asked more often than this, whatever is due.
const APART: Duration = Duration::from_secs(1);
/// How often the thread looks up when nothing is due: for jobs that ended, peers that vanished, the verdict.
const TICK: Duration = Duration::from_millis(200);
/// Unregistering has a deadline of its own; this is for threads that do not come back.
const STOP_PATIENCE: Duration = Duration::from_millis(2500);

/// What is registered everywhere.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) capability: Capability,
    /// Where jobs are sent.
    pub(crate) worker: HttpUrl,
    /// WORKER_TOKEN, which the orchestrator sends back with each job.
    pub(crate) token: Option<Secret>,
    /// ORCH_SECRET_FILE, which may change.
    pub(crate) secret_file: Option<String>,
    /// WITHDRAW_WHEN_UNHEALTHY.
    pub(crate) withdraw: bool,
    pub(crate) protocol: Protocol,
    pub(crate) runner: RunnerConfig,
    /// So many times faster than life, for tests.
    pub(crate) hurry: u32,
}

/// The running registrations.
#[derive(Debug)]
pub(crate) struct Registrar {
    tenures: Vec<Arc<Tenure>>,
}

/// The names at one orchestrator.
#[derive(Debug)]
struct Tenure {
    orchestrator: Mutex<Orchestrator>,
    offer: Arc<Offer>,
    pulse: Pulse,
    board: Arc<Board>,
    registrations: Arc<Registrations>,
    started: Instant,
    state: Mutex<Stop>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stop {
    stopping: bool,
    /// Times that the operator has asked for everything anew.
    asked: u64,
    /// Names that were sent, and may be registered even if no answer came.
    sent: Vec<String>,
    /// Unregistering is over.
    done: bool,
    /// No job is in flight any more: a live runner may be taken out.
    leaving: bool,
    /// It is, or there was none.
    left: bool,
}

/// One name and what was said of it last.
struct Name {
    name: String,
    row: usize,
    lease: Lease,
    told: Option<RegisterError>,
}

impl Registrar {
    /// Starts one thread for each orchestrator.
    pub(crate) fn start(
        orchestrators: Vec<Orchestrator>,
        offer: Offer,
        pulse: &Pulse,
        board: &Arc<Board>,
        registrations: &Arc<Registrations>,
    ) -> Self {
        let offer = Arc::new(offer);
        let tenures = orchestrators.into_iter().map(|orchestrator| {
            let tenure = Arc::new(Tenure {
                orchestrator: Mutex::new(orchestrator),
                offer: Arc::clone(&offer),
                pulse: pulse.clone(),
                board: Arc::clone(board),
                registrations: Arc::clone(registrations),
                started: Instant::now(),
                state: Mutex::new(Stop::default()),
                changed: Condvar::new(),
            });
            let work = Arc::clone(&tenure);
            if let Err(why) = threads::essential("registrar", move || work.keep()) {
                log::error!("no thread to register with: {why}");
            }
            tenure
        });
        Self { tenures: tenures.collect() }
    }

    /// Reads the secret's file anew and registers everything again.
    pub(crate) fn renew(&self) {
        for tenure in &self.tenures {
            tenure.lock().asked += 1;
            tenure.changed.notify_all();
        }
    }

    /// Unregisters everything, everywhere at the same time; returns after `STOP_PATIENCE` whatever happens.
    pub(crate) fn stop(&self) {
        let end = Instant::now() + STOP_PATIENCE;
        for tenure in &self.tenures {
            tenure.lock().stopping = true;
            tenure.changed.notify_all();
            let work = Arc::clone(tenure);
            if thread::Builder::new().name("unregister".into()).spawn(move || work.unregister_all()).is_err() {
                tenure.lock().done = true;
            }
        }
        for tenure in &self.tenures {
            let left = end.saturating_duration_since(Instant::now());
            let waited = tenure.changed.wait_timeout_while(tenure.lock(), left, |state| !state.done);
            if !waited.unwrap_or_else(PoisonError::into_inner).0.done {
                log::warn!("{} does not answer: it may send jobs a little longer", tenure.orchestrator().url());
            }
        }
    }
}

impl Registrar {
    /// Takes live runners out, once no job is in flight: some orchestrators cut jobs off then. Within `STOP_PATIENCE`.
    pub(crate) fn leave(&self) {
        let end = Instant::now() + STOP_PATIENCE;
        for tenure in &self.tenures {
            tenure.lock().leaving = true;
            tenure.changed.notify_all();
        }
        for tenure in &self.tenures {
            let left = end.saturating_duration_since(Instant::now());
            drop(tenure.changed.wait_timeout_while(tenure.lock(), left, |state| !state.left));
        }
    }
}

impl Tenure {
    fn lock(&self) -> MutexGuard<'_, Stop> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orchestrator(&self) -> Orchestrator {
        self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.started.elapsed() * self.offer.hurry
    }

    fn keep(&self) {
        let entry = self.keep_up();
        if let Some(entry) = entry {
            self.leave(&entry);
        }
        self.lock().left = true;
        self.changed.notify_all();
    }

    /// Does what is due until the worker ends; the live runner that is left then.
    fn keep_up(&self) -> Option<Entry> {
        let protocol = self.offer.protocol;
        let mut names = if protocol == Protocol::LiveRunner { Vec::new() } else { self.names() };
        let mut entry = matches!(protocol, Protocol::LiveRunner | Protocol::Both).then(|| Entry::new(self));
        let mut withdrawal = Withdrawal::default();
        let mut heard = self.pulse.heard();
        let mut asked = 0;
        let mut next_ask = Duration::ZERO;
        loop {
            let now = self.now();
            let (stopping, leaving, renew) = {
                let state = self.lock();
                (state.stopping, state.leaving, std::mem::replace(&mut asked, state.asked) != state.asked)
            };
            if leaving || (stopping && !entry.as_ref().is_some_and(Entry::is_live)) {
                return entry;
            }
            if renew {
                self.read_secret();
                names.iter_mut().for_each(|name| name.lease.hint(now, Hint::Asked));
                entry.iter_mut().for_each(|entry| entry.hasten(now));
            }
            let hints = self.pulse.since(&mut heard);
            for name in &mut names {
                hints.iter().for_each(|hint| name.lease.hint(now, *hint));
            }
            let unhealthy = self.board.latest().is_some_and(|latest| latest.verdict() == Verdict::Unhealthy);
            let wanted = !withdrawal.see(now, self.offer.withdraw && unhealthy);
            let status = Status::of(stopping, wanted);
            let mut wait = TICK * self.offer.hurry;
            if now < next_ask {
                wait = next_ask - now;
            } else if let Some(more) = entry.as_mut().map(|entry| entry.wait(now, status)) {
                wait = wait.min(more);
            }
            if now >= next_ask {
                let acted = match &mut entry {
                    Some(entry) if wait.is_zero() => {
                        self.beat(entry);
                        true
                    }
                    _ if stopping => false,
                    _ => self.act_on_one(&mut names, now, wanted, &mut wait),
                };
                if acted {
                    (next_ask, wait) = (self.now() + APART, Duration::ZERO);
                }
            }
            let out = |name: &Name| matches!(name.told, Some(RegisterError::NoByoc));
            if entry.is_none() && protocol == Protocol::Auto && self.offer.token.is_none() && names.iter().any(out) {
                entry = Some(Entry::new(self));
            }
            let seen = (asked, stopping);
            let idle = |state: &mut Stop| !state.leaving && (state.asked, state.stopping) == seen;
            drop(self.changed.wait_timeout_while(self.lock(), (wait / self.offer.hurry).min(TICK), idle));
        }
    }

    fn names(&self) -> Vec<Name> {
        let url = self.orchestrator().url().to_owned();
        let name = |name: &String| Name {
            name: name.clone(),
            row: self.registrations.add(Row::new(&url, name, "byoc")),
            lease: Lease::new(self.now()),
            told: None,
        };
        self.offer.capability.names.iter().map(name).collect()
    }

    /// Does what is due for one of the names, if anything is; else lowers `wait` to when it will be.
    fn act_on_one(&self, names: &mut [Name], now: Duration, wanted: bool, wait: &mut Duration) -> bool {
        for name in names {
            match name.lease.next(now, self.pulse.jobs() > 0, wanted) {
                Action::Wait(more) => *wait = (*wait).min(more),
                action => {
                    self.act(action, name);
                    return true;
                }
            }
        }
        false
    }

    fn act(&self, action: Action, name: &mut Name) {
        let orchestrator = self.orchestrator();
        let url = orchestrator.url();
        let Action::Register { with_load } = action else {
            match orchestrator.unregister(&name.name) {
                Ok(()) => log::warn!("took {} out of {url} while the worker is unhealthy", name.name),
                Err(why) => log::warn!("cannot take {} out of {url}: {why}", name.name),
            }
            name.lease.withdrawn(self.now());
            self.show(name, |_| ());
            return;
        };
        {
            let mut state = self.lock();
            if !state.sent.contains(&name.name) {
                state.sent.push(name.name.clone());
            }
        }
        let load = with_load.then(|| self.pulse.jobs());
        let offer = &self.offer;
        let answer = orchestrator.register(&name.name, &offer.worker, &offer.capability, offer.token.as_ref(), load);
        let spread = unix_now().fract();
        match answer {
            Ok(()) => self.was_taken(name, url, spread),
            Err(why) => self.was_refused(name, url, why, spread),
        }
        if self.lock().stopping && name.lease.state() == State::Registered {
            // The answer came after the worker had taken its names out.
            let _ = orchestrator.unregister(&name.name);
        }
    }

    fn was_taken(&self, name: &mut Name, url: &str, spread: f64) {
        let renewal = name.lease.state() == State::Registered;
        name.lease.taken(self.now(), spread);
        if renewal {
            log::debug!("renewed {} at {url}", name.name);
        } else {
            log::info!("registered {} at {url}: jobs come to {}", name.name, self.offer.worker.as_str());
        }
        name.told = None;
        self.show(name, |row| {
            row.renewals += u64::from(row.last_success.is_some());
            row.last_success = Some(millis(unix_now()));
            row.error = None;
        });
    }

    fn was_refused(&self, name: &mut Name, url: &str, why: RegisterError, spread: f64) {
        let wait = name.lease.refused(self.now(), spread);
        // The same complaint every minute would bury everything else.
        if name.told.as_ref() == Some(&why) {
            log::debug!("{} at {url}: {why}; next try in {:.1} s", name.name, wait.as_secs_f64());
        } else {
            log::warn!(
                "cannot register {} at {url}: {why}; trying again in {:.1} s and on",
                name.name,
                wait.as_secs_f64()
            );
        }
        self.show(name, |row| {
            *row.failures.entry(why.kind()).or_default() += 1;
            row.error = Some(why.to_string());
        });
        if matches!(why, RegisterError::WrongSecret { .. }) {
            self.read_secret();
        }
        name.told = Some(why);
    }

    fn show(&self, name: &Name, change: impl FnOnce(&mut Row)) {
        self.registrations.change(name.row, |row| {
            row.state = name.lease.state();
            change(row);
        });
    }

    /// The secret as its file has it now.
    fn read_secret(&self) {
        let Some(path) = &self.offer.secret_file else { return };
        let read = secrets::read(path).and_then(|secret| Secret::new(secret).ok_or_else(|| "it is no secret".into()));
        match read {
            Ok(secret) => self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).set_secret(secret),
            Err(why) => log::warn!("ORCH_SECRET_FILE={path}: {why}; the secret of before is kept"),
        }
    }

    fn unregister_all(&self) {
        let names = self.lock().sent.clone();
        let orchestrator = self.orchestrator();
        thread::scope(|scope| {
            for name in &names {
                let orchestrator = &orchestrator;
                scope.spawn(move || match orchestrator.unregister(name) {
                    Ok(()) => log::info!("unregistered {name} at {}", orchestrator.url()),
                    Err(why) => log::warn!("cannot unregister {name} at {}: {why}", orchestrator.url()),
                });
            }
        });
        self.lock().done = true;
        self.changed.notify_all();
    }
}
