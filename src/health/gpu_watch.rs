//! The GPUs for the probe of a model: the last samples answer what can be answered from them, and the thread `gpus` takes
//! an extra sample for the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::severity::Verdict;
use super::snapshot_store::SnapshotStore;
use crate::gpu::mig_instance::MigInstance;
use crate::gpu::sample::{FaultKind, Gpu, GpuSample};
use crate::gpu::state::GpuState;
use crate::gpu::wire::ActivityAsk;
use crate::ollama::probe::watch::GpuWatch;
use crate::ollama::probe::witness::WORKS_PERCENT;
use crate::ollama::state::{OllamaState, Reach};
use crate::sys::order;

/// How long a probe waits for an extra sample. A driver that hangs does not block it longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Asks that wait at a time. Each model asks for one.
const MOST_ASKS: usize = 16;

/// An ask for an extra sample.
#[derive(Debug)]
pub(super) struct GpuAsk {
    pub(super) activity: ActivityAsk,
    until: Instant,
    /// An answer of its own for each ask: a late one reaches no other.
    answer: SyncSender<Option<GpuSample>>,
}

impl GpuAsk {
    /// The probe does not wait any more.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub(super) fn answer(self, sample: Option<GpuSample>) {
        // The probe may have stopped waiting.
        let _ = self.answer.try_send(sample);
    }
}

/// The GPUs as the sampler reads them.
#[derive(Debug)]
pub(crate) struct SampledGpus {
    store: Arc<SnapshotStore>,
    asks: SyncSender<GpuAsk>,
    /// The last mark was set in time.
    marked: AtomicBool,
    deadline: Duration,
    identity: Mutex<Identity>,
}

/// As each part was last known: a reading that fails for a moment does not make another machine.
#[derive(Debug, Default)]
struct Identity {
    gpus: String,
    driver: String,
    ollama: Option<String>,
}

impl SampledGpus {
    /// And where its asks arrive.
    pub(super) fn new(store: &Arc<SnapshotStore>) -> (Self, Receiver<GpuAsk>) {
        let (asks, asked) = mpsc::sync_channel(MOST_ASKS);
        let (marked, identity) = (AtomicBool::new(false), Mutex::default());
        (Self { store: Arc::clone(store), asks, marked, deadline: DEADLINE, identity }, asked)
    }

    fn ask(&self, activity: ActivityAsk) -> Option<GpuSample> {
        let (answer, answers) = mpsc::sync_channel(1);
        self.asks.try_send(GpuAsk { activity, until: Instant::now() + self.deadline, answer }).ok()?;
        answers.recv_timeout(self.deadline).ok()?
    }
}

impl GpuWatch for SampledGpus {
    fn busy(&self) -> Option<String> {
        busy(&self.store.gpu(), self.store.busiest_gpu())
    }

    fn mark(&self) -> Option<String> {
        let sample = self.ask(ActivityAsk::Mark);
        self.marked.store(sample.is_some(), Ordering::Relaxed);
        let busiest = sample.and_then(|sample| sample.busiest());
        busiest.and_then(in_use)
    }

    fn since_mark(&self) -> Option<GpuSample> {
        let mut sample = self.ask(ActivityAsk::SinceMark)?;
        if !self.marked.load(Ordering::Relaxed) {
            sample.gpus.iter_mut().for_each(|gpu| gpu.activity = None);
        }
        Some(sample)
    }

    fn has_room(&self, bytes: u64) -> bool {
        let Some(latest) = self.store.latest() else { return false };
        let sick = |gpu: &Gpu| {
            let id = gpu.id();
            latest.reasons.iter().any(|r| r.severity == Verdict::Unhealthy && r.gpu.as_ref() == Some(&id))
        };
        latest.gpu.usable().any(|gpu| has_free(gpu, bytes) && !sick(gpu))
    }

    fn identity(&self) -> String {
        let latest = self.store.latest();
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = latest {
            identity.see(&latest.gpu, &latest.ollama);
        }
        identity.text()
    }
}

/// Why a probe would disturb others or show nothing. `busiest`: index and utilization of the last samples.
fn busy(gpus: &GpuState, busiest: Option<(u32, u32)>) -> Option<String> {
    match gpus {
        GpuState::Pending => Some("the GPUs have not been read yet".into()),
        GpuState::Starting { .. } => Some("the driver is starting".into()),
        GpuState::Fault { fault, gpus, .. } => match fault.kind {
            FaultKind::Stuck => Some("the driver does not respond".into()),
            // There is nothing else to read here, and a model can run all the same.
            FaultKind::LibMissing
            | FaultKind::HelperMissing
            | FaultKind::HelperNotExecutable
            | FaultKind::NoPermission
            | FaultKind::DriverNotLoaded
                if gpus.iter().all(Gpu::usable) =>
            {
                busiest.and_then(in_use)
            }
            _ => Some("the GPUs cannot be read".into()),
        },
        GpuState::Sample(sample) => {
            let silent = sample.gpus.iter().find(|gpu| gpu.is_slow());
            let silent = silent.map(|gpu| format!("GPU {} does not respond", gpu.index));
            silent.or_else(|| busiest.and_then(in_use))
        }
    }
}

/// Why a probe would disturb others, by index and utilization of the busiest GPU. A desktop alone takes some 10 %.
fn in_use((index, percent): (u32, u32)) -> Option<String> {
    (percent >= WORKS_PERCENT).then(|| format!("GPU {index} is in use: {percent} %"))
}

/// Memory that the GPU shares with the CPU never counts: a lack of room there is not why a model fell to the CPU. In MIG mode
/// each instance needs the room, because which one Ollama uses may be unknown.
fn has_free(gpu: &Gpu, bytes: u64) -> bool {
    if gpu.mig_mode == Some(true) {
        let has_room = |one: &MigInstance| one.free_bytes().is_some_and(|free| free >= bytes);
        return gpu.memories().next().is_some() && gpu.memories().all(has_room);
    }
    !gpu.unified_memory && gpu.vram_free_bytes.is_some_and(|free| free >= bytes)
}

impl Identity {
    fn see(&mut self, gpus: &GpuState, ollama: &OllamaState) {
        if let GpuState::Sample(sample) = gpus {
            // One that is slow is still there.
            let here = || sample.gpus.iter().filter(|gpu| gpu.usable() || gpu.is_slow());
            let mut names: Vec<&str> = here().filter_map(|gpu| gpu.uuid.as_deref().or(gpu.name.as_deref())).collect();
            // Another instance is another speed.
            names.extend(here().flat_map(|gpu| gpu.mig.iter().flatten()).filter_map(|one| one.uuid.as_deref()));
            order::sort(&mut names);
            let is_unsure = here().any(|gpu| gpu.is_slow() || gpu.failed().any(|(name, _)| name == "mig"));
            if !is_unsure || self.gpus.is_empty() {
                self.gpus = names.join(",");
            }
            if let Some(driver) = &sample.driver_version {
                self.driver.clone_from(driver);
            }
        }
        if let Reach::Up { version } = &ollama.reach {
            self.ollama = Some(version.clone());
        }
    }

    /// Empty before Ollama's version is known.
    fn text(&self) -> String {
        let Self { gpus, driver, ollama } = self;
        ollama.as_ref().map(|ollama| format!("{gpus} driver {driver} ollama {ollama}")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
