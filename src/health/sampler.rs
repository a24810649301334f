//! The threads that read GPUs, Ollama and the kernel, and the one place where what they read becomes a snapshot.
//! A thread each, because a slow Ollama may not make a GPU reading old, nor a hung driver a model list.

mod once;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::history::Recent;
use super::reading_log::History;
use super::rules::{self, Facts};
use super::snapshot::{Counts, Snapshot};
use super::uptime::Windows;
use super::verdict::Reason;
use crate::config::Config;
use crate::config::limits::Limits;
use crate::gpu::client::Gpus;
use crate::gpu::host;
use crate::gpu::kmsg::{Kmsg, monotonic_seconds};
use crate::gpu::sample::{FaultKind, GpuSample};
use crate::gpu::state::{GpuState, XidSource};
use crate::gpu::surroundings::Surroundings;
use crate::gpu::tegra::Tegra;
use crate::gpu::xid::{self, KernelEvent, XidLog};
use crate::ollama::fetch::Ollama;
use crate::ollama::keepers::Keepers;
use crate::ollama::state::OllamaState;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;
use crate::sys::threads;
pub(crate) use once::{Once, once};

/// After this long the first snapshot is published with whatever is known: a hung driver must not keep the first
/// job waiting longer than it is allowed to wait.
const FIRST_SNAPSHOT: Duration = Duration::from_millis(1500);

/// A fault is looked at again this often at least, however long the interval: recovery should be seen soon.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the kernel's log is read, and how often the machine is looked at: every few samples, at most this rarely.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);
const SURROUNDINGS_INTERVAL: Duration = Duration::from_secs(30);
const SURROUNDINGS_SAMPLES: u32 = 6;

/// The last snapshot, replaced whole.
#[derive(Debug)]
pub(crate) struct Board {
    limits: Limits,
    /// Models that are to be loaded.
    wanted: Vec<String>,
    /// How they stand.
    keepers: Arc<Keepers>,
    started: Instant,
    state: Mutex<State>,
    published: Condvar,
}

#[derive(Debug)]
struct State {
    gpu: GpuState,
    gpu_at: Instant,
    /// There was no driver when the GPUs were last asked.
    no_driver: bool,
    ollama: OllamaState,
    /// Ollama was asked once to the end, whatever came of it.
    ollama_asked: bool,
    /// None: nobody has looked to the end yet.
    around: Option<Surroundings>,
    history: History,
    recent: Recent,
    xids: XidLog,
    kernel_log: bool,
    uptime: Windows,
    counts: Counts,
    latest: Option<Arc<Snapshot>>,
}

impl Board {
    pub(crate) fn new(limits: Limits, wanted: Vec<String>, keepers: Arc<Keepers>) -> Self {
        let state = State {
            gpu: GpuState::Pending,
            gpu_at: Instant::now(),
            no_driver: false,
            ollama: OllamaState::PENDING,
            ollama_asked: false,
            around: None,
            history: History::default(),
            recent: Recent::default(),
            xids: XidLog::default(),
            kernel_log: false,
            uptime: Windows::default(),
            counts: Counts::default(),
            latest: None,
        };
        Self { limits, wanted, keepers, started: Instant::now(), state: Mutex::new(state), published: Condvar::new() }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The last snapshot; None before the first.
    pub(crate) fn latest(&self) -> Option<Arc<Snapshot>> {
        self.lock().latest.clone()
    }

    /// The last snapshot, waiting for the first at most `patience`.
    pub(crate) fn wait_first(&self, patience: Duration) -> Option<Arc<Snapshot>> {
        let state = self.lock();
        let waited = self.published.wait_timeout_while(state, patience, |state| state.latest.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.latest.clone()
    }

    /// The body of GET /history.
    pub(crate) fn recent(&self, now: f64) -> String {
        self.lock().recent.answer(now)
    }

    /// What the operator knows of is no longer held against the GPUs: errors so far, and GPUs that are gone. What is left.
    pub(crate) fn acknowledge(&self) -> Arc<Snapshot> {
        let mut state = self.lock();
        state.xids.settle();
        let given = state.gpu.gpus().iter().filter(|gpu| gpu.given()).count();
        state.history.forget_missing(given);
        let news = self.publish(&mut state);
        let now = Arc::clone(&news.1);
        unlock(state, Some(news));
        now
    }

    /// From now on part of each snapshot; the first is shown at once.
    pub(crate) fn put_uptime(&self, windows: Windows) {
        let mut state = self.lock();
        let first = state.uptime == Windows::default() && windows != Windows::default();
        state.uptime = windows;
        let news = (first && state.latest.is_some()).then(|| self.publish(&mut state));
        unlock(state, news);
    }

    fn put_gpu(&self, gpu: GpuState, reinits: u64) {
        let now = unix_now();
        let mut state = self.lock();
        if let GpuState::Sample(sample) = &gpu {
            let State { history, recent, ollama, .. } = &mut *state;
            history.see(sample, ollama, self.limits.max_temp_c, self.started.elapsed());
            recent.see(&sample.gpus, self.started.elapsed());
            state.counts.last_success = Some(now);
            let reloaded = std::mem::take(&mut state.no_driver);
            // The kernel's log has all of it, with the times at which it happened.
            if !state.kernel_log {
                if reloaded {
                    // What the driver reported before it was loaded again is over.
                    state.xids.settle();
                }
                record_events(&mut state.xids, sample, monotonic_seconds());
            }
        }
        if let GpuState::Fault { fault, .. } = &gpu {
            state.no_driver = matches!(fault.kind, FaultKind::DriverNotLoaded | FaultKind::LibMismatch);
        }
        state.counts.reinits = reinits;
        state.gpu = gpu;
        state.gpu_at = Instant::now();
        let news = self.publish_what_is_whole(&mut state);
        let code = state.latest.as_ref().and_then(|latest| {
            let faulty = matches!(latest.gpu, GpuState::Fault { .. });
            latest.reasons.iter().find(|r| faulty && r.gpu.is_none() && r.code.of_gpus()).map(|r| r.code)
        });
        if let Some(code) = code {
            *state.counts.failures.entry(code.name()).or_default() += 1;
        }
        unlock(state, news);
    }

    fn put_ollama(&self, ollama: OllamaState) {
        let mut state = self.lock();
        state.ollama = ollama;
        state.ollama_asked = true;
        let news = self.publish_what_is_whole(&mut state);
        unlock(state, news);
    }

    fn put_surroundings(&self, around: Surroundings) {
        let mut state = self.lock();
        let before = state.around.replace(around);
        let news = (before != state.around).then(|| self.publish_what_is_whole(&mut state));
        unlock(state, news.flatten());
    }

    fn put_kernel_events(&self, events: &[(KernelEvent, f64)]) {
        let mut state = self.lock();
        for (event, at) in events {
            match event {
                KernelEvent::Xid { pci, number, class } => state.xids.record(*pci, *number, *class, *at),
                KernelEvent::DriverLoaded => state.xids.settle_before(*at),
            }
        }
        let news = (!events.is_empty() && state.latest.is_some()).then(|| self.publish(&mut state));
        unlock(state, news);
    }

    /// The first snapshot waits until everybody has been heard, or until `publish_the_first_anyway`.
    fn publish_what_is_whole(&self, state: &mut State) -> Option<News> {
        let whole = state.ollama_asked && state.gpu != GpuState::Pending && state.around.is_some();
        (whole || state.latest.is_some()).then(|| self.publish(state))
    }

    fn publish_the_first_anyway(&self) {
        let mut state = self.lock();
        let news = state.latest.is_none().then(|| self.publish(&mut state));
        unlock(state, news);
    }

    fn publish(&self, state: &mut State) -> News {
        let before = state.latest.as_ref().map(|l| l.reasons.as_slice()).unwrap_or_default();
        let unseen = Surroundings::default();
        let (monotonic, unix) = (monotonic_seconds(), unix_now());
        state.xids.see_clocks(monotonic, unix);
        let keepers = self.keepers.rows();
        let facts = Facts {
            gpu: &state.gpu,
            ollama: &state.ollama,
            history: &state.history,
            xids: &state.xids,
            monotonic,
            uptime: &state.uptime,
            around: state.around.as_ref().unwrap_or(&unseen),
            limits: &self.limits,
            wanted: &self.wanted,
            keepers: &keepers,
        };
        let reasons = rules::judge(&facts, before, millis(unix));
        let listening = state.gpu.sample().is_some_and(|sample| sample.events.is_some());
        let snapshot = Snapshot {
            at: state.gpu_at,
            gpu: state.gpu.clone(),
            ollama: state.ollama.clone(),
            reasons,
            uptime: state.uptime,
            xids: state.xids.all(),
            xid_source: match (state.kernel_log, listening) {
                (true, _) => XidSource::Kmsg,
                (false, true) => XidSource::Nvml,
                (false, false) => XidSource::None,
            },
            counts: state.counts.clone(),
        };
        let now = Arc::new(snapshot);
        let before = state.latest.replace(Arc::clone(&now));
        self.published.notify_all();
        (before, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Values are replaced whole: a panic elsewhere leaves nothing half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `at`: monotonic seconds.
fn record_events(xids: &mut XidLog, sample: &GpuSample, at: f64) {
    for event in sample.events.iter().flatten() {
        let gpu = sample.gpus.iter().find(|gpu| gpu.index == event.index);
        if let Some(pci) = gpu.and_then(|gpu| gpu.pci()) {
            xids.record(pci, event.xid, xid::class(event.xid, ""), at);
        }
    }
}

/// The snapshot before and the new one.
type News = (Option<Arc<Snapshot>>, Arc<Snapshot>);

/// Unlocks the board, whose lock every job takes, and only then logs each reason that came or went.
fn unlock(state: MutexGuard<'_, State>, news: Option<News>) {
    drop(state);
    let Some((before, now)) = news else { return };
    let before = before.as_ref().map_or(&[][..], |before| &before.reasons);
    let now = &now.reasons;
    let missing = |all: &[Reason], one: &Reason| !all.iter().any(|r| r.same_as(one));
    for reason in now.iter().filter(|r| missing(before, r)) {
        log::warn!("{} {}: {}; {}", reason.severity, reason.code.name(), reason.message, reason.action);
    }
    for reason in before.iter().filter(|r| missing(now, r)) {
        log::info!("no longer {} {}: {}", reason.severity, reason.code.name(), reason.message);
    }
}

/// Where GPU readings come from.
#[derive(Debug)]
enum Source {
    Helper(Box<Gpus>),
    Tegra(Tegra),
}

impl Source {
    /// A Tegra board has its own GPU only, unless there are cards in it.
    fn find(config: &Config) -> Self {
        let root = Path::new(&config.host_root);
        let cards = host::count_cards(root).unwrap_or(0);
        match Tegra::detect(root).filter(|board| board.is_alone(cards)) {
            Some(board) => Self::Tegra(board),
            None => {
                let (helper, library) = (config.nvml_helper.clone(), config.nvml_lib.clone());
                Self::Helper(Box::new(Gpus::new(helper, library, config.slow_interval, config.hurry)))
            }
        }
    }

    fn sample(&mut self, events: bool) -> (GpuState, u64) {
        match self {
            Self::Helper(gpus) => {
                let state = gpus.sample(events);
                (state, gpus.reinits())
            }
            Self::Tegra(board) => (GpuState::Sample(board.sample()), 0),
        }
    }
}

/// Starts the threads; they run as long as the process.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(board: &Arc<Board>, config: &Config) -> io::Result<()> {
    let spawn = |name: &'static str, mut work: Box<dyn FnMut(&Board) + Send>| {
        let board = Arc::clone(board);
        threads::service(name, move || work(&board))
    };
    let root = PathBuf::from(&config.host_root);
    let log = Kmsg::open(&root);
    if let Err(why) = &log {
        log::debug!("the kernel's log cannot be read ({why}): XIDs come from NVML");
    }
    board.lock().kernel_log = log.is_ok();
    let interval = config.sample_interval;
    let (settings, events) = (config.clone(), log.is_err());
    spawn(
        "gpus",
        Box::new(move |board| {
            let mut source = Source::find(&settings);
            loop {
                let (gpu, reinits) = source.sample(events);
                let pause = match gpu {
                    // Waiting for it is the pause.
                    GpuState::Starting { .. } => Duration::ZERO,
                    GpuState::Fault { .. } => interval.min(FAULT_INTERVAL),
                    _ => interval,
                };
                board.put_gpu(gpu, reinits);
                thread::sleep(pause);
            }
        }),
    )?;
    let mut ollama = Ollama::new(&config.ollama);
    spawn(
        "ollama",
        Box::new(move |board| {
            loop {
                board.put_ollama(ollama.read());
                thread::sleep(interval);
            }
        }),
    )?;
    let look_every = (interval * SURROUNDINGS_SAMPLES).min(SURROUNDINGS_INTERVAL);
    let mut log = log.ok();
    spawn("kernel", Box::new(move |board| watch_kernel(board, &root, log.as_mut(), look_every)))?;
    spawn(
        "first-snapshot",
        Box::new(|board| {
            thread::sleep(FIRST_SNAPSHOT);
            board.publish_the_first_anyway();
        }),
    )
}

/// Reads the kernel's log and looks at devices: one that hangs when it is opened holds up nothing else.
fn watch_kernel(board: &Board, root: &Path, mut log: Option<&mut Kmsg>, look_every: Duration) {
    let mut looked: Option<Instant> = None;
    loop {
        if let Some(log) = log.as_deref_mut() {
            board.put_kernel_events(&log.read());
        }
        if looked.is_none_or(|at| at.elapsed() >= look_every) {
            board.put_surroundings(look_around(root, log.as_deref()));
            looked = Some(Instant::now());
        }
        thread::sleep(KERNEL_INTERVAL);
    }
}

/// What the machine shows without NVML, the kernel's log among it.
pub(crate) fn look_around(root: &Path, log: Option<&Kmsg>) -> Surroundings {
    Surroundings { legacy: log.map(|log| log.legacy().clone()).unwrap_or_default(), ..host::look(root) }
}
