//! The threads that read GPUs and Ollama, and the one place where what they read becomes a snapshot.
//! Two threads, because a slow Ollama may not make a GPU reading old, nor a hung driver a model list.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::edge::gpus::Gpus;
use crate::edge::limits::unix_now;
use crate::edge::ollama::Ollama;
use crate::pure::snapshot::{GpuState, OllamaState, Snapshot};
use crate::pure::verdict::{self, Limits};

/// After this long the first snapshot is published with whatever is known: a hung driver must not keep the first
/// job waiting longer than it is allowed to wait.
const FIRST_SNAPSHOT: Duration = Duration::from_millis(1500);

/// A fault is looked at again this often at least, however long the interval: recovery should be seen soon.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// The last snapshot, replaced whole.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    state: Mutex<State>,
    published: Condvar,
}

#[derive(Debug)]
struct State {
    gpu: GpuState,
    gpu_at: Instant,
    ollama: OllamaState,
    /// Ollama was asked once to the end, whatever came of it.
    ollama_asked: bool,
    snapshot: Option<Arc<Snapshot>>,
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            gpu: GpuState::Pending,
            gpu_at: Instant::now(),
            ollama: OllamaState::PENDING,
            ollama_asked: false,
            snapshot: None,
        };
        Self { limits, state: Mutex::new(state), published: Condvar::new() }
    }

    /// The last snapshot; None before the first.
    pub(crate) fn latest(&self) -> Option<Arc<Snapshot>> {
        self.lock().snapshot.clone()
    }

    /// The last snapshot, waiting for the first at most `patience`.
    pub(crate) fn wait_first(&self, patience: Duration) -> Option<Arc<Snapshot>> {
        let state = self.lock();
        let waited = self.published.wait_timeout_while(state, patience, |state| state.snapshot.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.snapshot.clone()
    }

    fn put_gpu(&self, gpu: GpuState) {
        let mut state = self.lock();
        state.gpu = gpu;
        state.gpu_at = Instant::now();
        if state.ollama_asked || state.snapshot.is_some() {
            self.publish(&mut state);
        }
    }

    fn put_ollama(&self, ollama: OllamaState) {
        let mut state = self.lock();
        state.ollama = ollama;
        state.ollama_asked = true;
        if state.gpu != GpuState::Pending || state.snapshot.is_some() {
            self.publish(&mut state);
        }
    }

    fn publish_the_first_anyway(&self) {
        let mut state = self.lock();
        if state.snapshot.is_none() {
            self.publish(&mut state);
        }
    }

    fn publish(&self, state: &mut State) {
        let before = state.snapshot.as_ref().map(|s| s.reasons.as_slice()).unwrap_or_default();
        let reasons = verdict::judge(&state.gpu, &state.ollama, self.limits, before, unix_now());
        log_changes(before, &reasons);
        let (gpu, ollama) = (state.gpu.clone(), state.ollama.clone());
        state.snapshot = Some(Arc::new(Snapshot { at: state.gpu_at, gpu, ollama, reasons }));
        self.published.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Values are replaced whole: a panic elsewhere leaves nothing half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line for each reason that came or went.
fn log_changes(before: &[verdict::Reason], now: &[verdict::Reason]) {
    let missing = |all: &[verdict::Reason], one: &verdict::Reason| !all.iter().any(|r| r.same_as(one));
    for reason in now.iter().filter(|r| missing(before, r)) {
        log::warn!("{}: {}; {}", reason.severity, reason.message, reason.action);
    }
    for reason in before.iter().filter(|r| missing(now, r)) {
        log::info!("no longer {}: {}", reason.severity, reason.message);
    }
}

/// Starts the threads; they run as long as the process.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(board: &Arc<Board>, mut gpus: Gpus, mut ollama: Ollama, interval: Duration) -> io::Result<()> {
    let spawn = |name: &str, work: Box<dyn FnOnce(&Board) + Send>| {
        let board = Arc::clone(board);
        thread::Builder::new().name(name.into()).spawn(move || work(&board)).map(drop)
    };
    spawn(
        "gpus",
        Box::new(move |board| {
            loop {
                let gpu = gpus.sample();
                let pause = if matches!(gpu, GpuState::Fault { .. }) { interval.min(FAULT_INTERVAL) } else { interval };
                board.put_gpu(gpu);
                thread::sleep(pause);
            }
        }),
    )?;
    spawn(
        "ollama",
        Box::new(move |board| {
            loop {
                board.put_ollama(ollama.read());
                thread::sleep(interval);
            }
        }),
    )?;
    spawn(
        "first-snapshot",
        Box::new(|board| {
            thread::sleep(FIRST_SNAPSHOT);
            board.publish_the_first_anyway();
        }),
    )
}
