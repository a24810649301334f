//! The threads that read GPUs, Ollama and the kernel, and the store in which their readings become a snapshot.
//! One thread each: a slow Ollama must not delay a GPU reading, nor a hung driver a model list.

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
use crate::gpu::host_facts::HostFacts;
use crate::gpu::kmsg::{Kmsg, monotonic_seconds};
use crate::gpu::sample::{FaultKind, GpuSample};
use crate::gpu::state::{GpuState, XidSource};
use crate::gpu::tegra::Tegra;
use crate::gpu::xid::{self, KernelEvent, XidLog};
use crate::ollama::fetch::Ollama;
use crate::ollama::keeper_thread::Keepers;
use crate::ollama::state::OllamaState;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;
use crate::sys::threads;
pub(crate) use once::{Once, once};

/// After this time the first snapshot is published with what is known: a hung driver must not delay the first job
/// beyond its deadline.
const FIRST_SNAPSHOT: Duration = Duration::from_millis(1500);

/// A fault is checked at least this often, however long the interval, so that recovery is seen soon.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the kernel's log is read. The host is looked at every few samples, and at least every 30 s.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);
const HOST_INTERVAL: Duration = Duration::from_secs(30);
const HOST_SAMPLES: u32 = 6;

/// The last snapshot, replaced whole.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    limits: Limits,
    /// MODEL.
    wanted: Vec<String>,
    keepers: Arc<Keepers>,
    started: Instant,
    state: Mutex<StoreState>,
    published: Condvar,
}

#[derive(Debug)]
struct StoreState {
    gpu: GpuState,
    gpu_at: Instant,
    /// The driver was not loaded when the GPUs were last read.
    no_driver: bool,
    ollama: OllamaState,
    /// Ollama was asked once, with or without success.
    ollama_asked: bool,
    /// None before the first look.
    host: Option<HostFacts>,
    history: History,
    recent: Recent,
    xids: XidLog,
    kernel_log: bool,
    uptime: Windows,
    counts: Counts,
    latest: Option<Arc<Snapshot>>,
}

impl SnapshotStore {
    pub(crate) fn new(limits: Limits, wanted: Vec<String>, keepers: Arc<Keepers>) -> Self {
        let state = StoreState {
            gpu: GpuState::Pending,
            gpu_at: Instant::now(),
            no_driver: false,
            ollama: OllamaState::PENDING,
            ollama_asked: false,
            host: None,
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

    /// The last snapshot, waiting for the first at most `timeout`.
    pub(crate) fn wait_first(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        let state = self.lock();
        let waited = self.published.wait_timeout_while(state, timeout, |state| state.latest.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.latest.clone()
    }

    /// The body of GET /history.
    pub(crate) fn recent(&self, now: f64) -> String {
        self.lock().recent.answer(now)
    }

    /// Acknowledges errors so far and missing GPUs: they raise no reason any more. The snapshot without them.
    pub(crate) fn acknowledge(&self) -> Arc<Snapshot> {
        let mut state = self.lock();
        state.xids.settle();
        let given = state.gpu.gpus().iter().filter(|gpu| gpu.given()).count();
        state.history.forget_missing(given);
        let news = self.publish(&mut state);
        let latest = Arc::clone(&news.1);
        unlock(state, Some(news));
        latest
    }

    /// Part of each snapshot from now on; the first is published immediately.
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
            let StoreState { history, recent, ollama, .. } = &mut *state;
            history.see(sample, ollama, self.limits.max_temp_c, self.started.elapsed());
            recent.see(&sample.gpus, self.started.elapsed());
            state.counts.last_success = Some(now);
            let reloaded = std::mem::take(&mut state.no_driver);
            // The kernel's log has all of them, with their times.
            if !state.kernel_log {
                if reloaded {
                    // Errors from before a reload of the driver are settled.
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
        let news = self.publish_when_complete(&mut state);
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
        let news = self.publish_when_complete(&mut state);
        unlock(state, news);
    }

    fn put_host(&self, host: HostFacts) {
        let mut state = self.lock();
        let before = state.host.replace(host);
        let news = (before != state.host).then(|| self.publish_when_complete(&mut state));
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

    /// The first snapshot waits for all sources, or for `publish_the_first_anyway`.
    fn publish_when_complete(&self, state: &mut StoreState) -> Option<News> {
        let complete = state.ollama_asked && state.gpu != GpuState::Pending && state.host.is_some();
        (complete || state.latest.is_some()).then(|| self.publish(state))
    }

    fn publish_the_first_anyway(&self) {
        let mut state = self.lock();
        let news = state.latest.is_none().then(|| self.publish(&mut state));
        unlock(state, news);
    }

    fn publish(&self, state: &mut StoreState) -> News {
        let before = state.latest.as_ref().map(|l| l.reasons.as_slice()).unwrap_or_default();
        let unknown = HostFacts { place: *host::PLACE, ..HostFacts::default() };
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
            host: state.host.as_ref().unwrap_or(&unknown),
            limits: &self.limits,
            wanted: &self.wanted,
            keepers: &keepers,
        };
        let reasons = rules::reasons(&facts, before, millis(unix));
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

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        // Values are replaced as a whole: a panic elsewhere leaves nothing half-written.
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

/// Unlocks the store, whose lock every job takes, and then logs each reason that was raised or cleared.
fn unlock(state: MutexGuard<'_, StoreState>, news: Option<News>) {
    drop(state);
    let Some((before, now)) = news else { return };
    let before = before.as_ref().map_or(&[][..], |before| &before.reasons);
    let now = &now.reasons;
    let missing = |all: &[Reason], one: &Reason| !all.iter().any(|r| r.same_as(one));
    for reason in now.iter().filter(|r| missing(before, r)) {
        log::warn!("{} {}: {}", reason.severity, reason.code, reason.message);
        log::warn!("what to do about {}: {}", reason.code, reason.action);
    }
    for reason in before.iter().filter(|r| missing(now, r)) {
        log::info!("cleared: {} {}: {}", reason.severity, reason.code, reason.message);
    }
}

/// Where GPU readings come from.
#[derive(Debug)]
enum Source {
    Helper(Box<Gpus>),
    Tegra(Tegra),
}

impl Source {
    /// A Tegra board has its own GPU only, unless it has cards.
    fn find(config: &Config) -> Self {
        let root = Path::new(&config.host_root);
        let cards = host::count_cards(root).unwrap_or(0);
        match Tegra::detect(root).filter(|board| board.is_alone(cards)) {
            Some(board) => Self::Tegra(board),
            None => {
                let (helper, library) = (config.nvml_helper.clone(), config.nvml_lib.clone());
                Self::Helper(Box::new(Gpus::new(helper, library, config.slow_interval, config.faults.time_scale)))
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
pub(crate) fn start(store: &Arc<SnapshotStore>, config: &Config) -> io::Result<()> {
    let spawn = |name: &'static str, mut work: Box<dyn FnMut(&SnapshotStore) + Send>| {
        let store = Arc::clone(store);
        threads::service(name, move || work(&store))
    };
    let root = PathBuf::from(&config.host_root);
    let log = Kmsg::open(&root);
    if let Err(why) = &log {
        log::debug!("cannot read the kernel's log ({why}): XIDs come from NVML");
    }
    store.lock().kernel_log = log.is_ok();
    let interval = config.sample_interval;
    let (settings, events) = (config.clone(), log.is_err());
    spawn(
        "gpus",
        Box::new(move |store| {
            let mut source = Source::find(&settings);
            loop {
                let (gpu, reinits) = source.sample(events);
                let pause = match gpu {
                    // `sample` has waited already.
                    GpuState::Starting { .. } => Duration::ZERO,
                    GpuState::Fault { .. } => interval.min(FAULT_INTERVAL),
                    _ => interval,
                };
                store.put_gpu(gpu, reinits);
                thread::sleep(pause);
            }
        }),
    )?;
    let mut ollama = Ollama::new(&config.ollama);
    spawn(
        "ollama",
        Box::new(move |store| {
            loop {
                store.put_ollama(ollama.read());
                thread::sleep(interval);
            }
        }),
    )?;
    let look_every = (interval * HOST_SAMPLES).min(HOST_INTERVAL);
    let mut log = log.ok();
    spawn("kernel", Box::new(move |store| watch_kernel(store, &root, log.as_mut(), look_every)))?;
    spawn(
        "first-snapshot",
        Box::new(|store| {
            thread::sleep(FIRST_SNAPSHOT);
            store.publish_the_first_anyway();
        }),
    )
}

/// Reads the kernel's log and looks at devices, on its own thread: a device may hang when it is opened.
fn watch_kernel(store: &SnapshotStore, root: &Path, mut log: Option<&mut Kmsg>, look_every: Duration) {
    let mut looked: Option<Instant> = None;
    loop {
        if let Some(log) = log.as_deref_mut() {
            store.put_kernel_events(&log.read());
        }
        if looked.is_none_or(|at| at.elapsed() >= look_every) {
            store.put_host(host_facts(root, log.as_deref()));
            looked = Some(Instant::now());
        }
        thread::sleep(KERNEL_INTERVAL);
    }
}

/// What the host shows without NVML, the kernel's log included.
pub(crate) fn host_facts(root: &Path, log: Option<&Kmsg>) -> HostFacts {
    HostFacts { legacy: log.map(|log| log.legacy().clone()).unwrap_or_default(), ..host::look(root) }
}
