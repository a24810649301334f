//! Keeps every name registered at every orchestrator, as `pure/lease` says, and the live runner, as `pure/runner` says;
//! takes them out at the end. A thread for each registry of each orchestrator: one that hangs delays no other, and a
//! registration that takes 10 s costs no beat.

mod byoc;
mod runner;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::lease::Row;
use super::orchestrator::{Orchestrator, RegisterError};
use super::pace::{Pace, Side};
use super::registries::{Found, Sight};
use crate::config::url::HttpUrl;
use crate::config::{Capability, Protocol, RunnerConfig, Secret};
use crate::health::sampler::SnapshotStore;
use crate::health::verdict::Verdict;
use crate::sys::counters::Pulse;
use crate::sys::status_table::Rows;
use crate::sys::{secrets, threads};

/// What operators see of all registrations.
pub(crate) type Registrations = Rows<Row>;

/// How often a thread looks up when nothing is due: for jobs that ended, peers that vanished, the verdict.
const TICK: Duration = Duration::from_millis(200);
/// Unregistering has a deadline of its own; this is for threads that do not come back.
const STOP_PATIENCE: Duration = Duration::from_millis(2500);

/// Names that are unregistered at the same time at one orchestrator.
const UNREGISTERING: usize = 4;

/// Why ORCH_PROTOCOL=auto with WORKER_TOKEN does not look for Live Runner.
pub(crate) const BYOC_ALONE: &str = "BYOC alone, since WORKER_TOKEN is set, which a Live Runner's proxy cannot send; without it this worker would be in GET /discovery as well";

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

impl Offer {
    fn uses(&self, side: Side) -> bool {
        match side {
            Side::Byoc => self.protocol != Protocol::LiveRunner,
            Side::Runner => self.protocol.uses_runners(self.token.is_some()),
        }
    }
}

/// The running registrations.
#[derive(Debug)]
pub(crate) struct Registrar {
    tenures: Vec<Arc<Tenure>>,
}

/// The worker at one orchestrator.
#[derive(Debug)]
struct Tenure {
    orchestrator: Mutex<Orchestrator>,
    offer: Arc<Offer>,
    pulse: Pulse,
    board: Arc<SnapshotStore>,
    registrations: Arc<Registrations>,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the threads of one orchestrator share.
#[derive(Debug)]
struct State {
    stopping: bool,
    /// Times that the operator has asked for everything again.
    asked: u64,
    /// Times that each side has heard from the other that the orchestrator was restarted or is back.
    nudges: [u64; 2],
    pace: Pace,
    sight: Sight,
    /// Names that were sent, and may be registered even if no answer came.
    sent: Vec<String>,
    /// A name's registration is under way.
    registering: bool,
    /// Unregistering is over.
    done: bool,
    /// No job is in flight any more: a live runner may be taken out.
    leaving: bool,
    /// It is, or there was none.
    left: bool,
}

impl Registrar {
    /// Starts the threads.
    pub(crate) fn start(
        orchestrators: Vec<Orchestrator>,
        offer: Offer,
        pulse: &Pulse,
        board: &Arc<SnapshotStore>,
        registrations: &Arc<Registrations>,
    ) -> Self {
        let offer = Arc::new(offer);
        if !orchestrators.is_empty() && offer.protocol == Protocol::Auto && !offer.uses(Side::Runner) {
            log::info!("ORCH_PROTOCOL=auto: {BYOC_ALONE}");
        }
        let tenures = orchestrators.into_iter().map(|orchestrator| {
            let state = State {
                stopping: false,
                asked: 0,
                nudges: [0; 2],
                pace: Pace::default(),
                sight: Sight::new(offer.protocol, offer.token.is_some()),
                sent: Vec::new(),
                registering: false,
                done: false,
                leaving: false,
                left: !offer.uses(Side::Runner),
            };
            let tenure = Arc::new(Tenure {
                orchestrator: Mutex::new(orchestrator),
                offer: Arc::clone(&offer),
                pulse: pulse.clone(),
                board: Arc::clone(board),
                registrations: Arc::clone(registrations),
                started: Instant::now(),
                state: Mutex::new(state),
                changed: Condvar::new(),
            });
            let start = |side, name, keep: fn(&Tenure)| {
                let work = Arc::clone(&tenure);
                let started = offer.uses(side).then(|| threads::service(name, move || keep(&work)));
                if let Some(Err(why)) = started {
                    log::error!("no thread to register with: {why}");
                }
            };
            start(Side::Byoc, "registrar", Tenure::keep_names);
            start(Side::Runner, "live-runner", Tenure::keep_runner);
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
            let waits = |state: &mut State| !state.done || state.registering;
            let waited = tenure.changed.wait_timeout_while(tenure.lock(), left, waits);
            if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orchestrator(&self) -> Orchestrator {
        self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.started.elapsed() * self.offer.hurry
    }

    fn is_unhealthy(&self) -> bool {
        self.board.latest().is_some_and(|latest| latest.verdict() == Verdict::Unhealthy)
    }

    /// Takes the turn for a request that has been due since `due`; else how long to wait for it.
    fn turn(&self, side: Side, due: Duration) -> Result<(), Duration> {
        let now = self.now();
        self.lock().pace.take(side, now, due)
    }

    /// One side has seen what there is. Writes it into the log, if that is news.
    fn found(&self, side: Side, found: Found) {
        let url = self.orchestrator().url().to_owned();
        let rows = self.registrations.rows();
        let ours = rows.iter().filter(|row| row.orchestrator == url && row.is_name());
        let names: Vec<String> = ours.map(|row| row.capability.clone()).collect();
        let mut state = self.lock();
        let again = state.sight.see(side, found);
        let news = state.sight.news(&url, &names, &self.offer.runner);
        drop(state);
        match news {
            Some((true, news)) => log::info!("{news}"),
            Some((false, news)) => log::warn!("{news}"),
            None => {}
        }
        if again {
            self.nudge(side.other());
        }
    }

    /// ORCH_PROTOCOL=auto does without this registry, since the orchestrator has the other one.
    fn does_without(&self, side: Side) -> bool {
        self.offer.protocol == Protocol::Auto && self.lock().sight.is_there(side.other())
    }

    /// Has this side look at once whether it is still registered.
    fn nudge(&self, side: Side) {
        self.lock().nudges[side as usize] += 1;
        self.changed.notify_all();
    }

    /// What is new since a thread last heard of it.
    fn calls(&self, side: Side, heard: &mut Heard) -> Calls {
        let state = self.lock();
        let now = Heard { asked: state.asked, nudges: state.nudges[side as usize], stopping: state.stopping };
        let before = std::mem::replace(heard, now);
        Calls {
            stopping: state.stopping,
            leaving: state.leaving,
            renew: before.asked != now.asked,
            nudged: before.nudges != now.nudges,
        }
    }

    /// Waits until something is due or there is a call.
    fn rest(&self, side: Side, wait: Duration, heard: Heard) {
        let idle = |state: &mut State| {
            let now = Heard { asked: state.asked, nudges: state.nudges[side as usize], stopping: state.stopping };
            !state.leaving && now == heard
        };
        drop(self.changed.wait_timeout_while(self.lock(), (wait / self.offer.hurry).min(TICK), idle));
    }

    /// The secret as its file has it now.
    fn read_secret(&self) {
        let Some(path) = &self.offer.secret_file else { return };
        let read =
            secrets::read_again(path).and_then(|secret| Secret::new(secret).ok_or_else(|| "it is no secret".into()));
        match read {
            Ok(secret) => self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).set_secret(secret),
            Err(why) => log::warn!("ORCH_SECRET_FILE={path}: {why}; the secret of before is kept"),
        }
    }

    fn unregister_all(&self) {
        let names = self.lock().sent.clone();
        let orchestrator = self.orchestrator();
        let left = Mutex::new(names.iter());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(name) = next() {
                match orchestrator.unregister(name) {
                    Ok(()) => log::info!("unregistered {name} at {}", orchestrator.url()),
                    Err(RegisterError::NoByoc) => log::debug!("{} has no BYOC to leave", orchestrator.url()),
                    Err(why) => {
                        log::warn!("cannot unregister {name} at {}: {why}", orchestrator.url());
                        if matches!(why, RegisterError::NoAnswer(_)) {
                            return;
                        }
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..UNREGISTERING.min(names.len()) {
                // Without a thread this one does it all.
                drop(thread::Builder::new().name("unregister".into()).spawn_scoped(scope, work));
            }
            work();
        });
        self.lock().done = true;
        self.changed.notify_all();
    }
}

/// What a thread has heard of [`State`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heard {
    asked: u64,
    nudges: u64,
    stopping: bool,
}

/// What is new in it.
struct Calls {
    stopping: bool,
    leaving: bool,
    renew: bool,
    nudged: bool,
}
