//! NOTIFY_URL: watches the verdict, has changes sent by a thread for each receiver, and ends with a last message.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::Caller;
use super::event::{Event, EventKind};
use super::notified::key;
use super::notified_file::NotifiedBook;
use super::receiver::{Common, Receiver};
use super::row::Notifications;
use super::watch::Watch;
use crate::config::Config;
use crate::health::snapshot_store::SnapshotStore;
use crate::health::standing::Standing;
use crate::sys::limits::{host_name, unix_now};
use crate::sys::threads;

/// The names of the receivers' threads.
const THREADS: [&str; 8] =
    ["notify-1", "notify-2", "notify-3", "notify-4", "notify-5", "notify-6", "notify-7", "notify-8"];
/// For all last messages together.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// A sample that is too old is noticed without a new one: how often the verdict is looked at.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The running notifications; without any receiver it does nothing.
#[derive(Debug)]
pub(crate) struct Notifier {
    common: Arc<Common>,
    receivers: Arc<Vec<Arc<Receiver>>>,
    store: Arc<SnapshotStore>,
    worker: Arc<str>,
    interval: Duration,
}

/// The name by which receivers know this worker: that of its first capability, else the machine's.
pub(crate) fn worker_name(config: &Config) -> Arc<str> {
    config.capability.names.first().cloned().unwrap_or_else(host_name).into()
}

impl Notifier {
    /// Starts a thread for each receiver, one that watches the verdict and one for the file below STATE_DIR. None:
    /// NOTIFY_URL is unset.
    ///
    /// # Errors
    /// The kernel's, when it gives no threads.
    pub(crate) fn start(
        config: &Config,
        caller: Caller,
        store: &Arc<SnapshotStore>,
        rows: &Arc<Notifications>,
    ) -> io::Result<Option<Self>> {
        let targets = config.notify.targets.clone();
        if targets.is_empty() {
            return Ok(None);
        }
        let keys = targets.iter().map(|target| key(&target.url)).collect();
        let common = Arc::new(Common {
            targets,
            file: config.notify.url_file.clone(),
            caller,
            book: NotifiedBook::start(config.state_dir.as_deref(), keys)?,
            rows: Arc::clone(rows),
            started: Instant::now(),
            time_scale: config.faults.time_scale,
        });
        let mut receivers = Vec::new();
        for (index, name) in THREADS.iter().enumerate().take(common.targets.len()) {
            let receiver = Arc::new(Receiver::new(&common, index));
            let work = Arc::clone(&receiver);
            threads::service(name, move || work.deliver_forever())?;
            receivers.push(receiver);
        }
        let notifier = Self {
            common,
            receivers: Arc::new(receivers),
            store: Arc::clone(store),
            worker: worker_name(config),
            interval: config.sample_interval,
        };
        notifier.start_watch(config.notify.after)?;
        Ok(Some(notifier))
    }

    fn start_watch(&self, after: Duration) -> io::Result<()> {
        let (common, receivers) = (Arc::clone(&self.common), Arc::clone(&self.receivers));
        let (store, worker, interval) = (Arc::clone(&self.store), Arc::clone(&self.worker), self.interval);
        let mut watch = None;
        threads::service("notify", move || {
            let watch = watch.get_or_insert_with(|| Watch::new(&worker, after));
            let mut known = None;
            loop {
                let look = interval.clamp(LOOK.0, LOOK.1);
                let timeout = watch.wait(common.now()).map_or(look, |wait| look.min(wait / common.time_scale));
                known = store.wait_changed(known.as_ref(), timeout);
                let Some(snapshot) = &known else { continue };
                let standing = Standing::new(snapshot, interval, snapshot.at.elapsed(), unix_now());
                if let Some(event) = watch.see(common.now(), unix_now(), standing) {
                    let event = Arc::new(event);
                    receivers.iter().for_each(|receiver| receiver.offer(&event));
                }
            }
        })
    }

    /// Reads NOTIFY_URL_FILE again.
    pub(crate) fn renew(&self) {
        if let Some(targets) = self.common.read_again() {
            for receiver in self.receivers.iter() {
                receiver.renew(&targets);
            }
        }
    }

    /// Has the last messages sent, for [`Self::wait`] to wait for.
    pub(crate) fn stop(&self) -> Instant {
        let now = unix_now();
        let latest = self.store.latest();
        let standing = latest.map(|snapshot| Standing::new(&snapshot, self.interval, snapshot.at.elapsed(), now));
        let event = Arc::new(Event::new(EventKind::Stopping, &self.worker, standing, now));
        self.receivers.iter().for_each(|receiver| receiver.stop(&event));
        Instant::now() + STOP_TIMEOUT
    }

    /// Waits for the last messages, at most until `end`.
    pub(crate) fn wait(&self, end: Instant) {
        self.receivers.iter().for_each(|receiver| receiver.wait(end));
        self.common.book.flush(end);
    }
}
