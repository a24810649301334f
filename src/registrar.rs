//! Registers every name at every orchestrator, trying until it is taken, and takes it out again at the end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::edge::limits::unix_now;
use crate::edge::orchestrator::{Orchestrator, RegisterError};
use crate::pure::config::{Capability, Secret};
use crate::pure::schedule::Backoff;
use crate::pure::url::HttpUrl;

/// First and longest wait between tries.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
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
}

/// The running registrations.
#[derive(Debug)]
pub(crate) struct Registrar {
    tenures: Vec<Arc<Tenure>>,
}

/// The names at one orchestrator.
#[derive(Debug)]
struct Tenure {
    orchestrator: Orchestrator,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// Names that were sent, and may be registered even if no answer came.
    sent: Vec<String>,
    /// Unregistering is over.
    done: bool,
}

impl Registrar {
    /// Starts one thread for each orchestrator: one that hangs delays no other.
    pub(crate) fn start(orchestrators: Vec<Orchestrator>, offer: Offer) -> Self {
        let offer = Arc::new(offer);
        let tenures = orchestrators.into_iter().map(|orchestrator| {
            let tenure =
                Arc::new(Tenure { orchestrator, state: Mutex::new(State::default()), changed: Condvar::new() });
            let (work, offer) = (Arc::clone(&tenure), Arc::clone(&offer));
            if let Err(why) = thread::Builder::new().name("registrar".into()).spawn(move || work.register_all(&offer)) {
                log::error!("no thread to register with: {why}");
            }
            tenure
        });
        Self { tenures: tenures.collect() }
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
                log::warn!("{} does not answer: it may send jobs a little longer", tenure.orchestrator.url());
            }
        }
    }
}

impl Tenure {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register_all(&self, offer: &Offer) {
        for name in &offer.capability.names {
            if !self.register(name, offer) {
                return;
            }
        }
    }

    /// Tries until the name is taken; false when the worker stops.
    fn register(&self, name: &str, offer: &Offer) -> bool {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut told: Option<RegisterError> = None;
        let url = self.orchestrator.url();
        loop {
            {
                let mut state = self.lock();
                if state.stopping {
                    return false;
                }
                if !state.sent.iter().any(|sent| sent == name) {
                    state.sent.push(name.to_owned());
                }
            }
            let answer = self.orchestrator.register(name, &offer.worker, &offer.capability, offer.token.as_ref());
            let Err(why) = answer else {
                log::info!("registered {name} at {url}: jobs come to {}", offer.worker.as_str());
                if self.lock().stopping {
                    // The answer came after the worker had taken its names out.
                    let _ = self.orchestrator.unregister(name);
                    return false;
                }
                return true;
            };
            let wait = backoff.after_failure(unix_now().fract());
            // The same complaint every minute would bury everything else.
            if told.as_ref() == Some(&why) {
                log::debug!("{name} at {url}: {why}; next try in {:.1} s", wait.as_secs_f64());
            } else {
                log::warn!(
                    "cannot register {name} at {url}: {why}; trying again in {:.1} s and on",
                    wait.as_secs_f64()
                );
            }
            told = Some(why);
            let waited = self.changed.wait_timeout_while(self.lock(), wait, |state| !state.stopping);
            drop(waited);
        }
    }

    fn unregister_all(&self) {
        let names = self.lock().sent.clone();
        thread::scope(|scope| {
            for name in &names {
                scope.spawn(move || match self.orchestrator.unregister(name) {
                    Ok(()) => log::info!("unregistered {name} at {}", self.orchestrator.url()),
                    Err(why) => log::warn!("cannot unregister {name} at {}: {why}", self.orchestrator.url()),
                });
            }
        });
        self.lock().done = true;
        self.changed.notify_all();
    }
}
