//! The threads that read GPUs, Ollama and the kernel, and put what they read into the store of snapshots.
//! One thread each: a slow Ollama must not delay a GPU reading, nor a hung driver a model list.

use super::acknowledged::{Acknowledgments, LOADING};
use super::gpu_watch::{GpuAsk, SampledGpus};
use super::snapshot_store::SnapshotStore;
use super::source::{Source, host_facts};
use crate::config::Config;
use crate::gpu::amd_cards::AmdGpus;
use crate::gpu::kmsg::Kmsg;
use crate::gpu::state::GpuState;
use crate::gpu::wire::ActivityAsk;
use crate::ollama::fetch::Ollama;
use crate::sys::threads;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// After this time the first snapshot is published with what is known: a hung driver must not delay the first job
/// beyond its deadline.
const FIRST_SNAPSHOT: Duration = Duration::from_millis(1500);

/// A fault is checked at least this often, however long the interval, so that recovery is seen soon.
const FAULT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the kernel's log is read. The host is looked at every few samples, and at least every 30 s.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);
const HOST_INTERVAL: Duration = Duration::from_secs(30);
const HOST_SAMPLES: u32 = 6;

/// Starts the threads; they run as long as the process. The GPUs, as a probe asks for them.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(store: &Arc<SnapshotStore>, config: &Config) -> io::Result<SampledGpus> {
    let spawn = |name: &'static str, mut work: Box<dyn FnMut(&SnapshotStore) + Send>| {
        let store = Arc::clone(store);
        threads::service(name, move || work(&store))
    };
    let root = PathBuf::from(&config.host_root);
    let log = Kmsg::open(&root);
    if let Err(why) = &log {
        log::debug!("cannot read the kernel's log ({why}): XIDs come from NVML");
    }
    store.set_kernel_log(log.is_ok());
    let mut earlier = None;
    if let Some(dir) = config.state_dir.as_deref() {
        let (acknowledgments, kept) = Acknowledgments::start(dir, &root)?;
        store.keep_acknowledgments(acknowledgments);
        earlier = Some(kept);
    }
    let interval = config.sample_interval;
    let (settings, events) = (config.clone(), log.is_err());
    let (gpus, asks) = SampledGpus::new(store);
    spawn(
        "gpus",
        Box::new(move |store| {
            let mut source = Source::find(&settings);
            watch_gpus(store, |activity| source.sample(events, activity), interval, &asks);
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
    let (mut log, amd) = (log.ok(), config.amd_gpus);
    spawn(
        "kernel",
        Box::new(move |store| {
            let acknowledged = earlier.take().and_then(|earlier| earlier.recv_timeout(LOADING).ok());
            if let Some((log, record)) = log.as_mut().zip(acknowledged) {
                log.acknowledge(record);
            }
            watch_kernel(store, &root, amd, log.as_mut(), look_every);
        }),
    )?;
    spawn(
        "first-snapshot",
        Box::new(|store| {
            thread::sleep(FIRST_SNAPSHOT);
            store.publish_the_first_anyway();
        }),
    )?;
    Ok(gpus)
}

/// Takes a sample at each interval, and an extra one for each ask in between. A flood of asks delays no ordinary sample.
pub(super) fn watch_gpus(
    store: &SnapshotStore,
    mut sample: impl FnMut(Option<ActivityAsk>) -> (GpuState, u64),
    interval: Duration,
    asks: &Receiver<GpuAsk>,
) {
    let mut due = Instant::now();
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        let ask = if wait.is_zero() { Err(RecvTimeoutError::Timeout) } else { asks.recv_timeout(wait) };
        let ask = match ask {
            // Its probe has ended, and the next one has a mark of its own.
            Ok(ask) if ask.is_over() => continue,
            Ok(ask) => Some(ask),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(wait);
                None
            }
        };
        let (gpu, reinits) = sample(ask.as_ref().map(|ask| ask.activity));
        let next = Instant::now()
            + match gpu {
                // `sample` has waited already.
                GpuState::Starting { .. } => Duration::ZERO,
                GpuState::Fault { .. } => interval.min(FAULT_INTERVAL),
                _ => interval,
            };
        match ask {
            Some(ask) => {
                due = due.min(next);
                store.put_extra_gpu(gpu.clone(), reinits);
                ask.answer(gpu.sample().cloned());
            }
            None => {
                due = next;
                store.put_gpu(gpu, reinits);
            }
        }
    }
}

/// Reads the kernel's log and looks at devices, on its own thread: a device may hang when it is opened.
fn watch_kernel(store: &SnapshotStore, root: &Path, amd: AmdGpus, mut log: Option<&mut Kmsg>, look_every: Duration) {
    let mut looked: Option<Instant> = None;
    loop {
        if let Some(log) = log.as_deref_mut() {
            let events = log.read();
            store.put_kernel_events(&events, log.last_record());
        }
        if looked.is_none_or(|at| at.elapsed() >= look_every) {
            store.put_host(host_facts(root, amd, log.as_deref()));
            looked = Some(Instant::now());
        }
        thread::sleep(KERNEL_INTERVAL);
    }
}
