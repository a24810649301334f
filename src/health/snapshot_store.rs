//! The one place where what is read becomes a snapshot.

use super::acknowledged::Acknowledgments;
use super::history::History;
use super::recent::Recent;
use super::rules::{self, Facts};
use super::snapshot::{Counts, Snapshot};
use super::uptime::Windows;
use super::verdict::Reason;
use super::worked::Worked;
use crate::config::limits::Limits;
use crate::gpu::host;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::kmsg::monotonic_seconds;
use crate::gpu::sample::{FaultKind, GpuSample};
use crate::gpu::state::{GpuState, XidSource};
use crate::gpu::vendor::Vendor;
use crate::gpu::xid::{self, KernelEvent, XidLog};
use crate::ollama::keeper_thread::Keepers;
use crate::ollama::state::OllamaState;
use crate::sys::json::millis;
use crate::sys::limits::unix_now;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The last snapshot, replaced whole.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    limits: Limits,
    /// MODEL.
    wanted: Vec<String>,
    keepers: Arc<Keepers>,
    started: Instant,
    /// Unset: they end with this process.
    acknowledgments: OnceLock<Acknowledgments>,
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
    worked: Worked,
    recent: Recent,
    /// Index and utilization of the busiest GPU, of the last two samples.
    busiest: [Option<(u32, u32)>; 2],
    xids: XidLog,
    kernel_log: bool,
    /// The last record of the kernel's log whose events are here.
    last_record: Option<u64>,
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
            worked: Worked::default(),
            recent: Recent::default(),
            busiest: [None; 2],
            xids: XidLog::default(),
            kernel_log: false,
            last_record: None,
            uptime: Windows::default(),
            counts: Counts::default(),
            latest: None,
        };
        Self {
            limits,
            wanted,
            keepers,
            started: Instant::now(),
            acknowledgments: OnceLock::new(),
            state: Mutex::new(state),
            published: Condvar::new(),
        }
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

    /// Waits until there is another snapshot than `known`, at most `timeout`; the last one.
    pub(crate) fn wait_changed(&self, known: Option<&Arc<Snapshot>>, timeout: Duration) -> Option<Arc<Snapshot>> {
        let is_known = |state: &mut StoreState| match (&state.latest, known) {
            (Some(latest), Some(known)) => Arc::ptr_eq(latest, known),
            (latest, known) => latest.is_none() && known.is_none(),
        };
        let waited = self.published.wait_timeout_while(self.lock(), timeout, is_known);
        waited.unwrap_or_else(PoisonError::into_inner).0.latest.clone()
    }

    /// The GPUs as they were last read.
    pub(super) fn gpu(&self) -> GpuState {
        self.lock().gpu.clone()
    }

    /// Whose driver is asked, as far as it is known.
    pub(super) fn vendor(&self) -> Vendor {
        let amd_alone = |host: &HostFacts| host.pci_gpus == Some(0) && host.amd_gpus > 0;
        if self.lock().host.as_ref().is_some_and(amd_alone) { Vendor::Amd } else { Vendor::Nvidia }
    }

    /// Times that NVML was started again.
    pub(super) fn reinits(&self) -> u64 {
        self.lock().counts.reinits
    }

    /// XIDs come from the kernel's log, which can be read, or from NVML.
    pub(super) fn set_kernel_log(&self, readable: bool) {
        self.lock().kernel_log = readable;
    }

    /// The body of GET /history.
    pub(crate) fn recent(&self, now: f64) -> String {
        // Every job takes the lock: it is not held while they are rendered.
        let (recent, latest) = {
            let state = self.lock();
            (state.recent.clone(), state.latest.clone())
        };
        recent.answer(latest.as_deref(), now)
    }

    /// From now on acknowledgments are kept there.
    pub(super) fn keep_acknowledgments(&self, acknowledgments: Acknowledgments) {
        // This is called once.
        let _ = self.acknowledgments.set(acknowledgments);
    }

    /// Acknowledges errors so far and missing GPUs: they raise no reason any more. The snapshot without them; or with it
    /// why they may return after a restart.
    pub(crate) fn acknowledge(&self) -> (Arc<Snapshot>, Result<(), String>) {
        let mut state = self.lock();
        state.xids.settle();
        let given = state.gpu.gpus().iter().filter(|gpu| gpu.given()).count();
        state.history.forget_missing(given);
        let news = self.publish(&mut state);
        let latest = Arc::clone(&news.1);
        let last_record = state.last_record;
        unlock(state, Some(news));
        let kept = self.acknowledgments.get().zip(last_record).map_or(Ok(()), |(file, record)| file.keep(record));
        (latest, kept)
    }

    /// Part of each snapshot from now on; the first is published immediately.
    pub(crate) fn put_uptime(&self, windows: Windows) {
        let mut state = self.lock();
        let first = state.uptime == Windows::default() && windows != Windows::default();
        state.uptime = windows;
        let news = (first && state.latest.is_some()).then(|| self.publish(&mut state));
        unlock(state, news);
    }

    /// Index and utilization of the busiest GPU in the last two ordinary samples.
    pub(super) fn busiest_gpu(&self) -> Option<(u32, u32)> {
        self.lock().busiest.into_iter().flatten().max_by_key(|(_, percent)| *percent)
    }

    /// An ordinary sample.
    pub(super) fn put_gpu(&self, gpu: GpuState, reinits: u64) {
        self.put_sample(gpu, reinits, true);
    }

    /// A sample between two ordinary ones. Rules that count samples in a row do not count it, and it is part of no mean:
    /// a GPU at work for a probe is not the rule.
    pub(super) fn put_extra_gpu(&self, gpu: GpuState, reinits: u64) {
        self.put_sample(gpu, reinits, false);
    }

    fn put_sample(&self, mut gpu: GpuState, reinits: u64, counts: bool) {
        let now = unix_now();
        let mut state = self.lock();
        state.worked.see(&mut gpu);
        if counts {
            let StoreState { history, recent, ollama, busiest, .. } = &mut *state;
            history.see_state(&gpu, ollama, self.limits.max_temp_c, self.started.elapsed());
            // A total fault adds nothing.
            if gpu.sample().is_some() || gpu.usable().next().is_some() {
                recent.see(gpu.gpus(), self.started.elapsed());
                *busiest = [gpu.busiest(), busiest[0]];
            }
        }
        if let GpuState::Sample(sample) = &gpu {
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

    pub(super) fn put_ollama(&self, ollama: OllamaState) {
        let mut state = self.lock();
        state.ollama = ollama;
        state.ollama_asked = true;
        let news = self.publish_when_complete(&mut state);
        unlock(state, news);
    }

    pub(super) fn put_host(&self, host: HostFacts) {
        let mut state = self.lock();
        let before = state.host.replace(host);
        let news = (before != state.host).then(|| self.publish_when_complete(&mut state));
        unlock(state, news.flatten());
    }

    pub(super) fn put_kernel_events(&self, events: &[(KernelEvent, f64)], last_record: Option<u64>) {
        let mut state = self.lock();
        state.last_record = last_record;
        for (event, at) in events {
            match event {
                KernelEvent::Xid { pci, number, class } => state.xids.record(*pci, *number, *class, *at),
                KernelEvent::Amd { pci, said } => state.xids.amd.record(*pci, *said, *at),
                KernelEvent::DriverLoaded => state.xids.settle_before(*at),
                KernelEvent::Acknowledged => state.xids.settle(),
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

    pub(super) fn publish_the_first_anyway(&self) {
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
            keepers,
            reasons,
            uptime: state.uptime,
            xids: state.xids.all(),
            resets: state.xids.amd.resets(),
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

#[cfg(test)]
mod tests;
