//! The thread that calls the push monitor of HEARTBEAT_URL.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::call::{Caller, Message};
use super::heartbeat::{self, Beat, HeartbeatRow, Heartbeats, Outcome, Schedule};
use crate::config::{Config, HeartbeatConfig, SecretUrl};
use crate::health::snapshot::Snapshot;
use crate::health::snapshot_store::SnapshotStore;
use crate::health::standing::Standing;
use crate::health::verdict::Verdict;
use crate::sys::limits::{boot_clock, unix_now};
use crate::sys::{secrets, threads};

const DEADLINE: Duration = Duration::from_secs(10);
/// Tests divide the deadline by this at most: the machine may be busy.
const MAX_DEADLINE_SCALE: u32 = 10;
/// The clock that runs in sleep is read this often, since waiting does not count sleep.
const LOOK: Duration = Duration::from_secs(5);

/// A running heartbeat.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    url: Mutex<SecretUrl>,
    config: HeartbeatConfig,
    caller: Caller,
    store: Arc<SnapshotStore>,
    /// SAMPLE_INTERVAL.
    sample_interval: Duration,
    /// The watchdog's last look at /health succeeded.
    serves: Arc<AtomicBool>,
    rows: Arc<Heartbeats>,
    time_scale: u32,
}

impl Heartbeat {
    /// Starts the thread, if HEARTBEAT_URL is set. `rows` gets a row then.
    ///
    /// # Errors
    /// The kernel's, when it gives no thread.
    pub(crate) fn start(
        config: &Config,
        caller: Caller,
        store: &Arc<SnapshotStore>,
        serves: &Arc<AtomicBool>,
        rows: &Arc<Heartbeats>,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(heartbeat) = &config.heartbeat else { return Ok(None) };
        let target = heartbeat.url.shown().to_owned();
        rows.put(HeartbeatRow { target, last_success: None, error: None, counts: [0; 3] }, |_, _| true);
        let own = Arc::new(Self {
            url: Mutex::new(heartbeat.url.clone()),
            config: heartbeat.clone(),
            caller,
            store: Arc::clone(store),
            sample_interval: config.sample_interval,
            serves: Arc::clone(serves),
            rows: Arc::clone(rows),
            time_scale: config.faults.time_scale,
        });
        let work = Arc::clone(&own);
        threads::service("heartbeat", move || work.run())?;
        Ok(Some(own))
    }

    /// Reads HEARTBEAT_URL_FILE again.
    pub(crate) fn renew(&self) {
        let Some(path) = &self.config.file else { return };
        let parse = |text: String| SecretUrl::parse(&text).map_err(|why| why.to_string());
        match secrets::read_again(path).and_then(parse) {
            Ok(url) => {
                self.rows.change(0, |row| url.shown().clone_into(&mut row.target));
                *self.url() = url;
            }
            Err(why) => log::warn!("HEARTBEAT_URL_FILE={path}: {why}; keeping the previous URL"),
        }
    }

    fn url(&self) -> MutexGuard<'_, SecretUrl> {
        self.url.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time that a sleep of the machine does not stop.
    fn clock(&self) -> Duration {
        boot_clock() * self.time_scale
    }

    fn standing(&self, snapshot: &Snapshot) -> Standing {
        Standing::new(snapshot, self.sample_interval, snapshot.at.elapsed(), unix_now())
    }

    fn run(&self) {
        self.wait_for_a_verdict();
        let mut schedule = Schedule::new(self.config.interval, self.clock());
        let mut problem = None;
        loop {
            let wait = schedule.wait(self.clock());
            if wait.is_zero() {
                self.beat(&mut schedule, &mut problem);
            } else {
                thread::sleep((wait / self.time_scale).min(LOOK));
            }
        }
    }

    /// A worker that has just started is not down because it knows nothing yet.
    fn wait_for_a_verdict(&self) {
        let end = self.clock() + self.config.interval;
        let mut latest = self.store.wait_first(self.config.interval / self.time_scale);
        while self.clock() < end
            && latest.as_ref().is_none_or(|snapshot| self.standing(snapshot).verdict == Verdict::Unknown)
        {
            let left = end.saturating_sub(self.clock()) / self.time_scale;
            latest = self.store.wait_changed(latest.as_ref(), left.min(LOOK));
        }
    }

    /// One try. `problem`: the failure that is in the log already.
    fn beat(&self, schedule: &mut Schedule, problem: &mut Option<String>) {
        let url = self.url().clone();
        let serves = self.serves.load(Ordering::Acquire);
        let standing = self.store.latest().map(|snapshot| self.standing(&snapshot));
        let Some(target) = standing.and_then(|standing| heartbeat::url(&url, &standing, serves)) else {
            log::debug!("heartbeat: silent, since the worker is not healthy");
            self.count(Beat::Skipped, |_| ());
            return schedule.done(self.clock());
        };
        schedule.called(self.clock());
        let deadline = DEADLINE / self.time_scale.min(MAX_DEADLINE_SCALE);
        let answer = self.caller.send(&url, &target, &Message::default(), deadline);
        let why = match heartbeat::outcome(&answer) {
            Outcome::Accepted => {
                if problem.take().is_some() {
                    log::info!("heartbeat to {}: accepted again", url.shown());
                }
                self.count(Beat::Ok, |row| (row.last_success, row.error) = (Some(unix_now()), None));
                return schedule.done(self.clock());
            }
            Outcome::Retry(why) if schedule.retry(self.clock()) => {
                log::debug!("heartbeat to {} failed: {why}; trying again", url.shown());
                return self.rows.change(0, |row| row.error = Some(why));
            }
            Outcome::Retry(why) | Outcome::Wait(why) => why,
        };
        if problem.as_ref() != Some(&why) {
            log::warn!("heartbeat to {} failed: {why}", url.shown());
            *problem = Some(why.clone());
        }
        self.count(Beat::Failed, |row| row.error = Some(why));
        schedule.done(self.clock());
    }

    fn count(&self, beat: Beat, change: impl FnOnce(&mut HeartbeatRow)) {
        self.rows.change(0, |row| {
            row.counts[beat as usize] += 1;
            change(row);
        });
    }
}
