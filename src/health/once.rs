//! Snapshots without the threads of a worker, for commands that ask once or now and then.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::gpu_watch::SampledGpus;
use super::snapshot_store::SnapshotStore;
use super::source::{Source, host_facts};
use crate::config::Config;
use crate::gpu::host::PLACE;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::kmsg::Kmsg;
use crate::gpu::sample::{FaultKind, Gpu, GpuFault};
use crate::gpu::state::GpuState;
use crate::gpu::vendor::Vendor;
use crate::gpu::xid::KernelEvent;
use crate::health::rules;
use crate::health::snapshot::Snapshot;
use crate::ollama::state::OllamaState;
use crate::sys::threads;

/// Some conditions count only when several samples show them.
const SAMPLES_AT_ONCE: u32 = 3;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(200);
/// A helper that has crashed gets this long to be started again, and to crash again.
const SECOND_CHANCE: Duration = Duration::from_secs(4);

/// One snapshot within `timeout`. `ollama`: what is known of it.
pub(crate) fn once(config: &Config, ollama: OllamaState, timeout: Duration) -> Snapshot {
    let end = Instant::now() + timeout;
    let mut once = Once::new(config);
    once.read(timeout);
    // A GPU that hangs has used all of it.
    once.conclude(ollama, end.saturating_duration_since(Instant::now()))
}

/// The GPUs for a command that probes: they are read when a probe asks.
pub(crate) fn gpus(config: &Config) -> SampledGpus {
    let store = SnapshotStore::new(config.limits, config.models.names.clone(), Arc::default());
    let (gpus, asks) = SampledGpus::new(&Arc::new(store));
    let settings = config.clone();
    let started = threads::spawn("gpus", move || {
        let mut source = Source::find(&settings);
        for ask in asks {
            let mut gpu = GpuState::Pending;
            // The driver may be starting.
            while !ask.is_over() && !matches!(gpu, GpuState::Sample(_) | GpuState::Fault { .. }) {
                gpu = source.sample(false, Some(ask.activity)).0;
            }
            ask.answer(gpu.sample().cloned());
        }
    });
    if let Err(why) = started {
        log::error!("no thread can be started: {why}");
    }
    gpus
}

/// Reads the GPUs when it is asked, on a thread of its own: a driver that hangs keeps the thread, not the command.
/// Between two asks the helper stays alive.
#[derive(Debug)]
pub(crate) struct Once {
    store: SnapshotStore,
    /// The thread ends with this.
    asks: Sender<()>,
    answers: Receiver<Reading>,
    /// An ask that was not answered in time may still be.
    asked: bool,
    /// What was read and is not in the store yet.
    read: Option<(GpuState, u64)>,
    concluded: bool,
}

/// What is read at once of the host and its GPUs.
#[derive(Debug)]
struct Reading {
    host: HostFacts,
    /// None: the kernel's log cannot be read.
    events: Option<Vec<(KernelEvent, f64)>>,
    gpu: GpuState,
    reinits: u64,
}

impl Once {
    pub(crate) fn new(config: &Config) -> Self {
        let (asks, asked) = mpsc::channel();
        let (sender, answers) = mpsc::sync_channel(1);
        let settings = config.clone();
        let started = threads::spawn("gpus", move || watch(&settings, &asked, &sender));
        if let Err(why) = started {
            log::error!("no thread can be started: {why}");
        }
        let store = SnapshotStore::new(config.limits, config.models.names.clone(), Arc::default());
        Self { store, asks, answers, asked: false, read: None, concluded: false }
    }

    /// Waits for the GPUs until they were read, something final is wrong, or the time is over.
    pub(crate) fn read(&mut self, timeout: Duration) {
        self.read = Some(self.next(timeout, Instant::now() + timeout));
    }

    /// What follows from what was read. Where that is the first sample, a few more are taken as far as `left` allows.
    pub(crate) fn conclude(&mut self, ollama: OllamaState, left: Duration) -> Snapshot {
        let deadline = Instant::now() + left;
        self.store.put_ollama(ollama);
        if let Some((gpu, reinits)) = self.read.take() {
            self.store.put_gpu(gpu, reinits);
        }
        let samples = if self.concluded { 1 } else { SAMPLES_AT_ONCE };
        self.concluded = true;
        for _ in 1..samples {
            let healthy = matches!(self.store.gpu(), GpuState::Sample(_));
            if !healthy || Instant::now() + BETWEEN_SAMPLES >= deadline {
                break;
            }
            thread::sleep(BETWEEN_SAMPLES);
            let (gpu, reinits) = self.next(left, deadline);
            self.store.put_gpu(gpu, reinits);
        }
        self.store.publish_the_first_anyway();
        let latest = self.store.latest().unwrap_or_else(|| unreachable!("it was published"));
        let mut snapshot = Snapshot::clone(&latest);
        rules::settle(&mut snapshot.reasons, &snapshot.gpu, *PLACE);
        snapshot
    }

    /// `timeout`: what led to `deadline`.
    fn next(&mut self, timeout: Duration, mut deadline: Instant) -> (GpuState, u64) {
        let end = deadline;
        let mut crashed: Option<(GpuState, u64)> = None;
        let mut partly: Option<(GpuState, u64)> = None;
        while let Some((gpu, reinits)) = self.reading(deadline) {
            match &gpu {
                GpuState::Sample(sample) if sample.gpus.iter().any(Gpu::is_slow) => partly = Some((gpu, reinits)),
                GpuState::Sample(_) => return (gpu, reinits),
                GpuState::Fault { fault, .. } => match (fault.kind, &crashed) {
                    (FaultKind::Stuck, _) => {}
                    (FaultKind::HelperFailed, None) => {
                        deadline = end.min(Instant::now() + SECOND_CHANCE);
                        crashed = Some((gpu, reinits));
                    }
                    // Until the helper is started again, this is still the first crash.
                    (FaultKind::HelperFailed, Some((_, before))) if reinits == *before => {}
                    _ => return (gpu, reinits),
                },
                // The driver is still starting.
                GpuState::Pending | GpuState::Starting { .. } => {}
            }
            thread::sleep(BETWEEN_SAMPLES.min(deadline.saturating_duration_since(Instant::now())));
        }
        partly.or(crashed).unwrap_or_else(|| (self.stuck(timeout), self.store.reinits()))
    }

    /// One reading; None when it does not come in time.
    fn reading(&mut self, deadline: Instant) -> Option<(GpuState, u64)> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        if !self.asked {
            // Where the thread is gone, its answers say so.
            let _ = self.asks.send(());
        }
        self.asked = true;
        match self.answers.recv_timeout(left) {
            Ok(reading) => {
                self.asked = false;
                if let Some(events) = reading.events {
                    self.store.set_kernel_log(true);
                    self.store.put_kernel_events(&events, None);
                }
                self.store.put_host(reading.host);
                Some((reading.gpu, reading.reinits))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let detail = "no thread can be started to read the GPUs; raise ulimit -u".into();
                let fault = GpuFault { kind: FaultKind::HelperMissing, detail };
                Some((GpuState::Fault { vendor: Vendor::Nvidia, fault, lasting_s: 0.0, gpus: Vec::new() }, 0))
            }
        }
    }

    /// The driver has not answered within `timeout`.
    fn stuck(&self, timeout: Duration) -> GpuState {
        let time = if timeout.subsec_millis() == 0 {
            format!("{} s", timeout.as_secs())
        } else {
            format!("{} ms", timeout.as_millis())
        };
        let detail = format!("the driver did not answer within {time}");
        let gpus = self.store.gpu().gpus().iter().map(|gpu| gpu.silent(&detail)).collect();
        let fault = GpuFault { kind: FaultKind::Stuck, detail };
        let vendor = self.store.vendor();
        GpuState::Fault { vendor, fault, lasting_s: timeout.as_secs_f64(), gpus }
    }
}

/// Looks whenever it is asked, until the other end is dropped.
fn watch(config: &Config, asked: &Receiver<()>, sender: &mpsc::SyncSender<Reading>) {
    let root = Path::new(&config.host_root);
    let mut log: io::Result<Kmsg> = Kmsg::open(root);
    let mut source = Source::find(config);
    while asked.recv().is_ok() {
        let events = log.as_mut().ok().map(|log| log.read());
        let host = host_facts(root, config.amd_gpus, log.as_ref().ok());
        let (gpu, reinits) = source.sample(false, None);
        if sender.send(Reading { host, events, gpu, reinits }).is_err() {
            return;
        }
    }
}
