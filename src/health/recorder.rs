//! Records the uptime: reads the last snapshot once a second, counts, and has the minutes written to disk.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;
use super::snapshot_store::SnapshotStore;
use super::uptime::{Minute, Seen, Uptime, Windows};
use super::uptime_file::{OtherVersion, UptimeFile, WriteStatus};
use super::verdict::{self, Verdict};
use crate::gpu::state::GpuState;
use crate::sys::exposition::{Exposition, counter, gauge, metrics};
use crate::sys::limits::{boot_clock, unix_now};
use crate::sys::text::counted;
use crate::sys::threads;

const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// The current minute is written this often; a complete one is synced to the disk.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How long recording waits for the file's records: the current minute may be among them.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// For the last write at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// An older sample says nothing about now.
const SAMPLE_MAX_AGE: Duration = Duration::from_secs(60);

metrics! {
    WRITE_ERRORS = counter("agent_net_state_write_errors_total", &[], "Failed writes to STATE_DIR.");
    LAST_WRITE = gauge(
        "agent_net_state_last_write_timestamp_seconds", &[], "Unix time of the last successful write to STATE_DIR."
    );
}

/// The uptime of this machine.
#[derive(Debug)]
pub(crate) struct Recorder {
    uptime: Mutex<Uptime>,
    file: Option<UptimeFile>,
}

impl Recorder {
    /// Starts recording. `dir`: STATE_DIR, and what to do if another version started there last. `interval`: SAMPLE_INTERVAL.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(
        store: &Arc<SnapshotStore>,
        dir: Option<(&str, OtherVersion)>,
        interval: Duration,
    ) -> io::Result<Arc<Self>> {
        let (file, mut records) = match dir.map(|(dir, other)| UptimeFile::start(dir, other)).transpose()? {
            Some((file, records)) => (Some(file), Some(records)),
            None => (None, None),
        };
        let recorder = Arc::new(Self { uptime: Mutex::new(Uptime::new()), file });
        let (work, store) = (Arc::clone(&recorder), Arc::clone(store));
        let max_age = max_age(interval);
        threads::service("uptime", move || work.record(&store, &mut records, max_age))?;
        Ok(recorder)
    }

    /// The windows, and the recorded minutes of the last `minutes` minutes.
    pub(crate) fn history(&self, minutes: u32, now: f64) -> (Windows, Vec<Minute>) {
        let uptime = self.lock();
        (uptime.windows(now), uptime.history(now, minutes))
    }

    /// Whether it is kept across restarts.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Has everything written, within a second.
    pub(crate) fn flush(&self) {
        if let Some(file) = &self.file {
            file.write(self.lock().take_changes(), true);
            file.flush(FLUSH_TIMEOUT);
        }
    }

    /// The metrics of writing.
    pub(crate) fn write_metrics(&self, out: &mut Exposition, now: f64) {
        let Some(WriteStatus { errors, last_success }) = self.file.as_ref().map(UptimeFile::write_status) else {
            return;
        };
        out.single(&WRITE_ERRORS, Some(errors as f64));
        let last = last_success.map(|at| now - at.elapsed().as_secs_f64());
        out.single(&LAST_WRITE, last);
    }

    fn record(&self, store: &SnapshotStore, records: &mut Option<Receiver<Vec<u8>>>, max_age: Duration) {
        let mut timeout = LOAD_TIMEOUT;
        let mut written = Instant::now();
        loop {
            if let Some(channel) = records {
                match channel.recv_timeout(timeout) {
                    Ok(bytes) => self.load(&bytes),
                    Err(RecvTimeoutError::Disconnected) => *records = None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                timeout = Duration::ZERO;
            }
            let seen = store.latest().map_or(Seen::Nothing, |latest| seen(&latest, max_age));
            let now = unix_now();
            let (windows, changes, whole) = {
                let mut uptime = self.lock();
                if self.file.as_ref().is_some_and(UptimeFile::take_recreated) {
                    uptime.change_all();
                }
                let whole = uptime.observe(seen, boot_clock(), now);
                let due = whole || written.elapsed() >= WRITE_EVERY;
                let changes = if self.file.is_some() && due { uptime.take_changes() } else { Vec::new() };
                (uptime.windows(now), changes, whole)
            };
            store.put_uptime(windows);
            if let (Some(file), false) = (&self.file, changes.is_empty()) {
                file.write(changes, whole);
                written = Instant::now();
            }
            thread::sleep(OBSERVE_EVERY);
        }
    }

    fn load(&self, bytes: &[u8]) {
        let damaged = self.lock().load(bytes);
        if damaged > 0 {
            log::warn!("uptime history: skipped {}", counted(damaged, "damaged minute"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Uptime> {
        self.uptime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How old a sample may be that says how the GPUs are. `interval`: SAMPLE_INTERVAL.
fn max_age(interval: Duration) -> Duration {
    (interval * 3).max(SAMPLE_MAX_AGE)
}

/// The state of the GPUs now. Ollama and the past do not count.
fn seen(snapshot: &Snapshot, max_age: Duration) -> Seen {
    let worst = verdict::worst(snapshot.reasons.iter().filter(|r| r.code.of_gpus()));
    match (&snapshot.gpu, worst) {
        _ if snapshot.at.elapsed() > max_age => Seen::Nothing,
        (_, Verdict::Unhealthy) => Seen::Down,
        (GpuState::Sample(_), Verdict::Ok | Verdict::Degraded) => Seen::Up,
        // All expected GPUs are those of the other driver.
        (GpuState::Fault { .. }, Verdict::Ok) if snapshot.gpu.usable().next().is_some() => Seen::Up,
        // A fault that has just begun: they were not read.
        _ => Seen::Nothing,
    }
}

#[test]
fn a_sample_counts_until_the_next_ones_are_overdue() {
    let of = |seconds| max_age(Duration::from_secs(seconds)).as_secs();
    assert_eq!((of(1), of(5), of(20), of(300)), (60, 60, 60, 900), "with the longest interval no time is left out");
}
