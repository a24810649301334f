//! Keeps the uptime: looks at the last snapshot once a second, counts, and has the minutes written to disk.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::sampler::Board;
use super::snapshot::Snapshot;
use super::uptime::{Minute, Seen, Uptime, Windows};
use super::uptime_file::{Health, UptimeFile};
use super::verdict::{self, Verdict};
use crate::gpu::state::GpuState;
use crate::sys::exposition::{Exposition, Kind};
use crate::sys::limits::{boot_clock, unix_now};
use crate::sys::threads;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The running minute is written this often; a whole one is brought onto the disk itself.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How long the first look waits for what the disk knows: the running minute may be on it.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);
/// At the end, for the disk.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// The first seconds are nobody's: before the first sample nothing can be seen.
const SAMPLE_MAX_AGE: Duration = Duration::from_secs(60);

/// The uptime of this machine.
#[derive(Debug)]
pub(crate) struct Recorder {
    uptime: Mutex<Uptime>,
    file: Option<UptimeFile>,
}

impl Recorder {
    /// Starts recording. `dir`: STATE_DIR. `interval`: SAMPLE_INTERVAL.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(board: &Arc<Board>, dir: Option<&str>, interval: Duration) -> io::Result<Arc<Self>> {
        let (file, mut records) = match dir.map(UptimeFile::start).transpose()? {
            Some((file, records)) => (Some(file), Some(records)),
            None => (None, None),
        };
        let recorder = Arc::new(Self { uptime: Mutex::new(Uptime::new()), file });
        let (work, board) = (Arc::clone(&recorder), Arc::clone(board));
        let max_age = (interval * 3).max(SAMPLE_MAX_AGE);
        threads::service("uptime", move || work.record(&board, &mut records, max_age))?;
        Ok(recorder)
    }

    /// The minutes on record of the last `minutes` minutes, and the windows.
    pub(crate) fn history(&self, minutes: u32, now: f64) -> (Windows, Vec<Minute>) {
        let uptime = self.lock();
        (uptime.windows(now), uptime.history(now, minutes))
    }

    /// Whether it outlives the process.
    pub(crate) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Has everything written, within a second.
    pub(crate) fn flush(&self) {
        if let Some(file) = &self.file {
            file.write(self.lock().take_changes(), true);
            file.flush(FLUSH_PATIENCE);
        }
    }

    /// How writing goes.
    pub(crate) fn write_metrics(&self, out: &mut Exposition, now: f64) {
        let Some(Health { errors, last_success }) = self.file.as_ref().map(UptimeFile::health) else { return };
        let help = "Failed attempts to write STATE_DIR.";
        out.single("agent_net_state_write_errors_total", Kind::Counter, help, Some(errors as f64));
        let last = last_success.map(|at| now - at.elapsed().as_secs_f64());
        let help = "Unix time of the last write to STATE_DIR that succeeded.";
        out.single("agent_net_state_last_write_timestamp_seconds", Kind::Gauge, help, last);
    }

    fn record(&self, board: &Board, records: &mut Option<Receiver<Vec<u8>>>, max_age: Duration) {
        let mut patience = LOAD_PATIENCE;
        let mut written = Instant::now();
        loop {
            if let Some(channel) = records {
                match channel.recv_timeout(patience) {
                    Ok(bytes) => self.load(&bytes),
                    Err(RecvTimeoutError::Disconnected) => *records = None,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                patience = Duration::ZERO;
            }
            let seen = board.latest().map_or(Seen::Nothing, |latest| seen(&latest, max_age));
            let now = unix_now();
            let (windows, changes, whole) = {
                let mut uptime = self.lock();
                if self.file.as_ref().is_some_and(UptimeFile::take_anew) {
                    uptime.change_all();
                }
                let whole = uptime.look(seen, boot_clock(), now);
                let due = whole || written.elapsed() >= WRITE_EVERY;
                let changes = if self.file.is_some() && due { uptime.take_changes() } else { Vec::new() };
                (uptime.windows(now), changes, whole)
            };
            board.put_uptime(windows);
            if let (Some(file), false) = (&self.file, changes.is_empty()) {
                file.write(changes, whole);
                written = Instant::now();
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn load(&self, bytes: &[u8]) {
        let damaged = self.lock().load(bytes);
        if damaged > 0 {
            log::warn!("{damaged} damaged minutes of the uptime history were left out");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Uptime> {
        self.uptime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the GPUs are at the moment. Ollama and the past do not count.
fn seen(snapshot: &Snapshot, max_age: Duration) -> Seen {
    let worst = verdict::worst(snapshot.reasons.iter().filter(|r| r.code.of_gpus()));
    match (&snapshot.gpu, worst) {
        _ if snapshot.at.elapsed() > max_age => Seen::Nothing,
        (_, Verdict::Unhealthy) => Seen::Down,
        (GpuState::Sample(_), Verdict::Ok | Verdict::Degraded) => Seen::Up,
        // A fault that has just begun: nobody has read them.
        _ => Seen::Nothing,
    }
}
