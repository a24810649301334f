//! Keeps every name registered at every orchestrator, as `lease` decides, and the live runner, as `runner` decides;
//! unregisters them at the end. One thread for each registry of each orchestrator: one that hangs delays no other, and a
//! registration that takes 10 s costs no beat.

mod byoc;
mod runner;
pub(crate) mod session;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::kept_secrets::Secrets;
use super::lease::Registrations;
use super::orchestrator::Orchestrator;
use super::pace::Registry;
use crate::config::Protocol;
use crate::health::snapshot_store::SnapshotStore;
use crate::sys::counters::Pulse;
use crate::sys::threads;
use session::{Offer, Session, SessionState};

/// Unregistering has its own deadline; this is for threads that hang.
const STOP_TIMEOUT: Duration = Duration::from_millis(2500);

/// What ORCH_PROTOCOL=auto does when WORKER_TOKEN is set.
pub(crate) const BYOC_ALONE: &str = "BYOC only, because a Live Runner's proxy cannot send WORKER_TOKEN. Without WORKER_TOKEN this worker would also be listed in GET /discovery";

/// The running registrations.
#[derive(Debug)]
pub(crate) struct Registrar {
    sessions: Vec<Arc<Session>>,
}

impl Registrar {
    /// Starts the threads. `kept`: the secrets of entries that the previous worker left registered.
    pub(crate) fn start(
        orchestrators: Vec<Orchestrator>,
        offer: Offer,
        pulse: &Pulse,
        snapshots: &Arc<SnapshotStore>,
        registrations: &Arc<Registrations>,
        kept: &Secrets,
    ) -> Self {
        let offer = Arc::new(offer);
        if !orchestrators.is_empty() && offer.protocol == Protocol::Auto && !offer.uses(Registry::Runner) {
            log::info!("ORCH_PROTOCOL=auto: {BYOC_ALONE}");
        }
        let sessions = orchestrators.into_iter().map(|orchestrator| {
            let session =
                Session::new(orchestrator, &offer, pulse.clone(), Arc::clone(snapshots), Arc::clone(registrations));
            session.lock().secret =
                kept.iter().find(|(url, _)| url == session.orchestrator().url()).map(|(_, secret)| secret.clone());
            let session = Arc::new(session);
            let start = |registry, name, keep: fn(&Session)| {
                let work = Arc::clone(&session);
                let started = offer.uses(registry).then(|| threads::service(name, move || keep(&work)));
                if let Some(Err(why)) = started {
                    log::error!("cannot start a thread to register: {why}");
                }
            };
            start(Registry::Byoc, "registrar", Session::keep_names);
            start(Registry::Runner, "live-runner", Session::keep_runner);
            session
        });
        Self { sessions: sessions.collect() }
    }

    /// Reads the secret's file again and registers everything again.
    pub(crate) fn renew(&self) {
        for session in &self.sessions {
            let mut state = session.lock();
            state.asked += 1;
            state.secret_error = None;
            drop(state);
            session.changed.notify_all();
        }
    }

    /// Unregisters everything at all orchestrators at once, within `STOP_TIMEOUT`.
    pub(crate) fn stop(&self) {
        let end = Instant::now() + STOP_TIMEOUT;
        for session in &self.sessions {
            session.lock().stopping = true;
            session.changed.notify_all();
            let work = Arc::clone(session);
            if threads::spawn("unregister", move || work.unregister_all()).is_err() {
                // The system gives no thread: one orchestrator after the other.
                session.unregister_all();
            }
        }
        for session in &self.sessions {
            let left = end.saturating_duration_since(Instant::now());
            let waits = |state: &mut SessionState| !state.done || state.registering;
            let waited = session.changed.wait_timeout_while(session.lock(), left, waits);
            if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                log::warn!("{} does not answer: it may still send jobs for a moment", session.orchestrator().url());
            }
        }
    }

    /// There may be entries of live runners.
    pub(crate) fn has_runners(&self) -> bool {
        self.sessions.iter().any(|session| !session.lock().left)
    }

    /// Nothing is unregistered, live runners only if `runners`: the next worker goes on.
    pub(crate) fn keep(&self, runners: bool) {
        self.sessions.iter().for_each(|session| session.lock().keeps = runners);
    }

    /// The secrets of the live runners that are left registered, by orchestrator.
    pub(crate) fn secrets(&self) -> Secrets {
        let secret =
            |session: &Arc<Session>| Some((session.orchestrator().url().to_owned(), session.lock().secret.take()?));
        self.sessions.iter().filter_map(secret).collect()
    }

    /// Unregisters live runners, once no job is in flight: some orchestrators abort jobs then. Within `STOP_TIMEOUT`.
    pub(crate) fn leave(&self) {
        let end = Instant::now() + STOP_TIMEOUT;
        for session in &self.sessions {
            session.lock().leaving = true;
            session.changed.notify_all();
        }
        for session in &self.sessions {
            let left = end.saturating_duration_since(Instant::now());
            drop(session.changed.wait_timeout_while(session.lock(), left, |state| !state.left));
        }
    }
}
