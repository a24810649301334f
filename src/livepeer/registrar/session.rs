//! The worker at one orchestrator: what the threads of its two registries share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::url::HttpUrl;
use crate::config::{Capability, Protocol, RunnerConfig, Secret};
use crate::health::snapshot::Snapshot;
use crate::health::snapshot_store::SnapshotStore;
use crate::health::verdict::Verdict;
use crate::livepeer::lease::Registrations;
use crate::livepeer::orchestrator::{Orchestrator, RegisterError};
use crate::livepeer::pace::{Pace, Registry};
use crate::livepeer::registries::{KnownRegistries, RegistryStatus};
use crate::sys::counters::Pulse;
use crate::sys::secrets;

/// How often a thread checks for finished jobs, lost peers and the verdict when nothing is due.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// Names unregistered at the same time at one orchestrator.
const UNREGISTERING: usize = 4;

/// What is registered at every orchestrator.
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
    /// SAMPLE_INTERVAL.
    pub(crate) sample_interval: Duration,
    pub(crate) protocol: Protocol,
    pub(crate) runner: RunnerConfig,
    /// Time runs this many times faster, for tests.
    pub(crate) time_scale: u32,
}

impl Offer {
    pub(super) fn uses(&self, registry: Registry) -> bool {
        match registry {
            Registry::Byoc => self.protocol != Protocol::LiveRunner,
            Registry::Runner => self.protocol.uses_runners(self.token.is_some()),
        }
    }
}

/// The worker at one orchestrator.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) orchestrator: Mutex<Orchestrator>,
    pub(super) offer: Arc<Offer>,
    pub(super) pulse: Pulse,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) registrations: Arc<Registrations>,
    pub(super) started: Instant,
    pub(super) state: Mutex<SessionState>,
    pub(super) changed: Condvar,
}

/// What the threads of one orchestrator share.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) stopping: bool,
    /// How often the operator has asked to register again.
    pub(super) asked: u64,
    /// How often each registry's thread has reported to the other that the orchestrator was restarted or is back.
    pub(super) nudges: [u64; 2],
    pub(super) pace: Pace,
    pub(super) known: KnownRegistries,
    /// Names that were sent: they may be registered even without an answer.
    pub(super) sent: Vec<String>,
    /// A name's registration is under way.
    pub(super) registering: bool,
    /// Unregistering is over.
    pub(super) done: bool,
    /// No job is in flight any more: a live runner may unregister.
    pub(super) leaving: bool,
    /// The live runner stays registered when the worker ends.
    pub(super) keeps: bool,
    /// The secret of a live runner that the previous worker left registered, or that this one leaves.
    pub(super) secret: Option<String>,
    /// The live runner has unregistered, or never was registered.
    pub(super) left: bool,
    /// Why the secret's file could not be read, as it was last logged.
    pub(super) secret_error: Option<String>,
}

impl Session {
    pub(super) fn new(
        orchestrator: Orchestrator,
        offer: &Arc<Offer>,
        pulse: Pulse,
        snapshots: Arc<SnapshotStore>,
        registrations: Arc<Registrations>,
    ) -> Self {
        let state = SessionState {
            stopping: false,
            asked: 0,
            nudges: [0; 2],
            pace: Pace::default(),
            known: KnownRegistries::new(offer.protocol, offer.token.is_some()),
            sent: Vec::new(),
            registering: false,
            done: false,
            leaving: false,
            keeps: false,
            secret: None,
            left: !offer.uses(Registry::Runner),
            secret_error: None,
        };
        Self {
            orchestrator: Mutex::new(orchestrator),
            offer: Arc::clone(offer),
            pulse,
            snapshots,
            registrations,
            started: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn orchestrator(&self) -> Orchestrator {
        self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed() * self.offer.time_scale
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.verdict_of(self.snapshots.latest().as_deref()) == Verdict::Unhealthy
    }

    /// The verdict as it is now: a snapshot that has become too old is not believed here either.
    pub(super) fn verdict_of(&self, snapshot: Option<&Snapshot>) -> Verdict {
        snapshot.map_or(Verdict::Unknown, |s| s.verdict_at(s.at.elapsed(), self.offer.sample_interval))
    }

    /// Takes the turn for a request due since `due`. Err: how long to wait.
    pub(super) fn turn(&self, registry: Registry, due: Duration) -> Result<(), Duration> {
        let now = self.now();
        self.lock().pace.take(registry, now, due)
    }

    /// Takes the status of one registry, and logs it when it changes.
    pub(super) fn found(&self, registry: Registry, found: RegistryStatus) {
        let url = self.orchestrator().url().to_owned();
        let rows = self.registrations.rows();
        let ours = rows.iter().filter(|row| row.orchestrator == url && row.is_name());
        let names: Vec<String> = ours.map(|row| row.capability.clone()).collect();
        let mut state = self.lock();
        let again = state.known.see(registry, found);
        let news = state.known.news(&url, &names, &self.offer.runner);
        drop(state);
        match news {
            Some((true, news)) => log::info!("{news}"),
            Some((false, news)) => log::warn!("{news}"),
            None => {}
        }
        if again {
            self.nudge(registry.other());
        }
    }

    /// With ORCH_PROTOCOL=auto this registry may be missing, since the orchestrator has the other one.
    pub(super) fn does_without(&self, registry: Registry) -> bool {
        self.offer.protocol == Protocol::Auto && self.lock().known.is_there(registry.other())
    }

    /// Has this registry's thread check its registrations immediately.
    pub(super) fn nudge(&self, registry: Registry) {
        self.lock().nudges[registry as usize] += 1;
        self.changed.notify_all();
    }

    /// What has changed since `last_seen`.
    pub(super) fn changes(&self, registry: Registry, last_seen: &mut LastSeen) -> Changes {
        let state = self.lock();
        let now = LastSeen { asked: state.asked, nudges: state.nudges[registry as usize], stopping: state.stopping };
        let before = std::mem::replace(last_seen, now);
        Changes {
            stopping: state.stopping,
            leaving: state.leaving,
            renew: before.asked != now.asked,
            nudged: before.nudges != now.nudges,
        }
    }

    /// Waits until something is due or has changed.
    pub(super) fn rest(&self, registry: Registry, wait: Duration, last_seen: LastSeen) {
        let idle = |state: &mut SessionState| {
            let now =
                LastSeen { asked: state.asked, nudges: state.nudges[registry as usize], stopping: state.stopping };
            !state.leaving && now == last_seen
        };
        drop(self.changed.wait_timeout_while(self.lock(), (wait / self.offer.time_scale).min(TICK), idle));
    }

    /// Reads the secret's file again.
    pub(super) fn read_secret(&self) {
        let Some(path) = &self.offer.secret_file else { return };
        let read =
            secrets::read_again(path).and_then(|secret| Secret::new(secret).ok_or_else(|| "not a valid secret".into()));
        let error = match read {
            Ok(secret) => {
                self.orchestrator.lock().unwrap_or_else(PoisonError::into_inner).set_secret(secret);
                None
            }
            Err(why) => Some(why),
        };
        // Each refusal of each name reads it.
        let before = std::mem::replace(&mut self.lock().secret_error, error.clone());
        if let Some(why) = error.filter(|why| before.as_ref() != Some(why)) {
            log::warn!("ORCH_SECRET_FILE={path}: {why}; keeping the previous secret");
        }
    }

    pub(super) fn unregister_all(&self) {
        let names = self.lock().sent.clone();
        let orchestrator = self.orchestrator();
        let left = Mutex::new(names.iter());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(name) = next() {
                match orchestrator.unregister(name) {
                    Ok(()) => log::info!("unregistered {name} at {}", orchestrator.url()),
                    Err(RegisterError::NoByoc) => log::debug!("{} has no BYOC to unregister from", orchestrator.url()),
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
                drop(thread::Builder::new().name("unregister".into()).spawn_scoped(scope, work));
            }
            work();
        });
        self.lock().done = true;
        self.changed.notify_all();
    }
}

/// What a thread last saw of the session's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LastSeen {
    pub(super) asked: u64,
    pub(super) nudges: u64,
    pub(super) stopping: bool,
}

/// What has changed since then.
pub(super) struct Changes {
    pub(super) stopping: bool,
    pub(super) leaving: bool,
    pub(super) renew: bool,
    pub(super) nudged: bool,
}
