//! The handlers of the routes. One request, one snapshot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agents::Agents;
use super::hardware::{self, Identity};
use super::parameters::{ModelQuery, UptimeQuery};
use super::report::{Moment, Published};
use super::{answers, metrics, ready};
use crate::config::{Config, WatchdogTest};
use crate::health::recorder::Recorder;
use crate::health::snapshot::Snapshot;
use crate::health::snapshot_store::SnapshotStore;
use crate::health::verdict;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::livepeer::lease::Registrations;
use crate::livepeer::tickets::header::Tickets;
use crate::livepeer::tickets::intake::TicketIntake;
use crate::notify::heartbeat::Heartbeats;
use crate::notify::row::Notifications;
use crate::ollama::keeper_thread::Keepers;
use crate::peers::watch::Peers;
use crate::sys::counters::{Gauge, JobStats};
use crate::sys::error_codes::ErrorCode;
use crate::sys::exposition::{self, END_OF_OPENMETRICS, Exposition};
use crate::sys::json::json;
use crate::sys::limits::unix_now;
use crate::sys::{logger, process};

/// How long a job waits for a slot while CAPABILITY_CAPACITY jobs are in progress.
const SLOT_TIMEOUT: Duration = Duration::from_millis(200);
/// When a job stops waiting for the first sample, from its start: waits for its turn and for a slot are part of it.
const FIRST_SAMPLE: Duration = Duration::from_millis(1700);
/// When a job stops waiting for the disk to save its tickets, from its start; and what the disk gets in any case.
const JOB_DEADLINE: Duration = Duration::from_millis(1800);
const LEDGER_TIMEOUT: Duration = Duration::from_millis(200);

/// The body of GET /health: only its status counts.
const HEALTHY: &str = r#"{"status":"ok"}"#;

/// Answers requests from the last snapshot.
#[derive(Debug)]
pub(crate) struct Worker {
    store: Arc<SnapshotStore>,
    published: Mutex<Option<Arc<Published>>>,
    recorder: Arc<Recorder>,
    registrations: Arc<Registrations>,
    notifications: Arc<Notifications>,
    keepers: Arc<Keepers>,
    peers: Arc<Peers>,
    ticket_intake: Option<Arc<TicketIntake>>,
    heartbeats: Arc<Heartbeats>,
    /// CAPABILITY_NAME.
    capabilities: Vec<String>,
    /// CAPABILITY_CAPACITY.
    capacity: usize,
    /// SAMPLE_INTERVAL, by which a sample's age is judged.
    interval: Duration,
    /// METRICS_COMPAT=nvidia_smi.
    nvidia_smi_metrics: bool,
    jobs: Gauge,
    stats: JobStats,
    agents: Mutex<Agents>,
    draining: AtomicBool,
    started: Instant,
    /// AGENT_NET_FAULT.
    panic_agent: Option<String>,
    sick: bool,
}

/// Where answers come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) store: Arc<SnapshotStore>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) notifications: Arc<Notifications>,
    pub(crate) keepers: Arc<Keepers>,
    pub(crate) peers: Arc<Peers>,
    /// None: tickets are not looked at.
    pub(crate) ticket_intake: Option<Arc<TicketIntake>>,
    pub(crate) heartbeats: Arc<Heartbeats>,
}

impl Worker {
    /// `config`: capacity, interval and fault of the settings.
    pub(crate) fn new(seen: Sources, config: &Config) -> Self {
        let Sources { store, recorder, registrations, notifications, keepers, peers, ticket_intake, heartbeats } = seen;
        Self {
            store,
            published: Mutex::default(),
            recorder,
            registrations,
            notifications,
            keepers,
            peers,
            ticket_intake,
            heartbeats,
            capabilities: config.capability.names.clone(),
            capacity: config.capability.capacity as usize,
            interval: config.sample_interval,
            nvidia_smi_metrics: config.nvidia_smi_metrics,
            jobs: Gauge::default(),
            stats: JobStats::default(),
            agents: Mutex::default(),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            panic_agent: config.faults.panic_agent.clone(),
            sick: config.faults.watchdog == Some(WatchdogTest::Sick),
        }
    }

    /// From now on GET /ready answers 503. Jobs that the public port marks as late are refused.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Counts a job that was answered, for GET /metrics and GET /jobs.
    pub(crate) fn count(&self, route: &'static str, status: u16, took: Duration) {
        self.stats.count(route, status, took);
    }

    pub(crate) fn health(&self) -> Result<Reply, Refusal> {
        if self.sick {
            return Err(Refusal::new(ErrorCode::AtCapacity, "AGENT_NET_FAULT asks for this"));
        }
        Ok(Reply::json(200, HEALTHY))
    }

    pub(crate) fn gpu(&self, text: bool) -> Result<Reply, Refusal> {
        self.with_latest(|latest, at| {
            if text { Reply::text(latest.text(at)) } else { Reply::json(200, latest.json(&latest.report(None, at))) }
        })
    }

    pub(crate) fn models(&self) -> Result<Reply, Refusal> {
        self.with_latest(|latest, at| Reply::json(200, latest.catalogue(at)))
    }

    /// Known before the first sample.
    pub(crate) fn version(&self) -> Reply {
        let latest = self.latest();
        let model_id = latest.as_ref().map_or("", |latest| latest.model_name());
        Reply::json(200, hardware::version(Identity { pipeline: self.pipeline(), model_id }))
    }

    pub(crate) fn hardware(&self) -> Result<Reply, Refusal> {
        self.with_latest(|latest, _| Reply::json(200, hardware::info(self.pipeline(), latest)))
    }

    pub(crate) fn hardware_stats(&self) -> Result<Reply, Refusal> {
        self.with_latest(|latest, _| Reply::json(200, hardware::stats(self.pipeline(), latest)))
    }

    pub(crate) fn capabilities(&self) -> Reply {
        let latest = self.latest();
        Reply::json(200, hardware::capabilities(&self.capabilities, latest.as_deref(), self.capacity))
    }

    pub(crate) fn history(&self) -> Reply {
        Reply::json(200, self.store.recent(unix_now()))
    }

    pub(crate) fn uptime(&self, query: UptimeQuery) -> Reply {
        let now = unix_now();
        let (windows, history) = self.recorder.history(query.minutes, now);
        let thresholds = self.store.limits().uptime_percent;
        let kept = self.recorder.is_kept();
        Reply::json(200, answers::uptime(query, &windows, &history, thresholds, kept, now))
    }

    pub(crate) fn agents(&self) -> Reply {
        // Every job takes the lock: it is not held while they are rendered.
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Reply::json(200, answers::agents(&agents, unix_now()))
    }

    pub(crate) fn jobs(&self) -> Reply {
        Reply::json(200, answers::jobs(&self.stats.totals(), (self.jobs.now(), self.capacity), unix_now()))
    }

    pub(crate) fn peers(&self) -> Reply {
        Reply::json(200, answers::peers(self.peers.look(), unix_now()))
    }

    /// This worker's name in pytrickle's format.
    fn pipeline(&self) -> &str {
        self.capabilities.first().map_or("agent-net", String::as_str)
    }

    /// Acknowledges the errors so far; the body of GET /ready afterwards, and why they may return after a restart. `by`:
    /// command or signal, for the log.
    pub(crate) fn acknowledge(&self, by: &str) -> String {
        let (snapshot, kept) = self.store.acknowledge();
        let latest = self.publish(snapshot);
        log::info!("{by}: the errors so far are acknowledged; the verdict is {}", latest.verdict());
        let answer = self.at(&latest, |at| ready::answer(&latest, at, None).1);
        match (kept, answer.strip_suffix('}')) {
            (Err(why), Some(start)) => format!("{start},\"not_kept\":{}}}", json(&why)),
            _ => answer,
        }
    }

    /// `late`: the request began after SIGTERM.
    pub(crate) fn job(
        &self,
        agent_id: &str,
        tickets: Option<Tickets>,
        late: bool,
        start: Instant,
    ) -> Result<Reply, Refusal> {
        if late {
            return Err(draining());
        }
        // Most jobs end within microseconds, and free a slot.
        let Some(_slot) = self.jobs.enter_within(self.capacity, SLOT_TIMEOUT) else {
            let message = format!("CAPABILITY_CAPACITY={}: that many jobs are in progress; try again", self.capacity);
            return Err(Refusal::new(ErrorCode::AtCapacity, message));
        };
        let paid = self.ticket_intake.as_ref().zip(tickets);
        let paid = paid
            .map(|(ticket_intake, tickets)| ticket_intake.verify(tickets).map(|received| (ticket_intake, received)));
        let paid = paid.transpose()?;
        assert!(self.panic_agent.as_deref() != Some(agent_id), "AGENT_NET_FAULT asks for this panic");
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).see(agent_id, unix_now());
        let first = || self.store.wait_first(FIRST_SAMPLE.saturating_sub(start.elapsed()));
        let latest = self.latest().or_else(|| first().map(|snapshot| self.publish(snapshot)));
        let latest = latest.ok_or_else(no_sample)?;
        if let Some((intake, received)) = paid {
            let timeout = JOB_DEADLINE.saturating_sub(start.elapsed()).max(LEDGER_TIMEOUT);
            intake.take(received, timeout)?;
        }
        Ok(self.at(&latest, |at| {
            let report = latest.report(Some(agent_id), at);
            Reply::json(200, latest.json(&report)).with("X-Metadata", report.metadata())
        }))
    }

    /// Answers before the first sample as well, with `agent_net_up` 0.
    pub(crate) fn metrics(&self, open: bool) -> Reply {
        let now = unix_now();
        let mut out = Exposition::new(open);
        self.stats.write(&mut out);
        self.recorder.write_metrics(&mut out, now);
        if let Some(intake) = &self.ticket_intake {
            intake.write_metrics(&mut out);
        }
        metrics::registrations(&mut out, &self.registrations.rows());
        metrics::notifications(&mut out, &self.notifications.rows());
        metrics::keepers(&mut out, &self.keepers.rows());
        metrics::peers(&mut out, &self.peers.rows());
        metrics::heartbeat(&mut out, &self.heartbeats.rows());
        let started = now - self.started.elapsed().as_secs_f64();
        metrics::process(&mut out, &process::stats(), started, logger::dropped());
        let latest = self.latest();
        if let Some(latest) = &latest {
            let stale = verdict::stale(latest.snapshot.at.elapsed(), self.interval, now);
            metrics::health(&mut out, &latest.snapshot, stale.as_ref());
        }
        let mut text = out.into_text();
        match latest {
            Some(latest) => text.push_str(latest.metrics(open, |snapshot| {
                let mut out = Exposition::new(open);
                metrics::write(&mut out, snapshot, self.store.limits());
                if self.nvidia_smi_metrics {
                    metrics::nvidia_smi(&mut out, snapshot);
                }
                out.into_text()
            })),
            None => text.push_str(&metrics::nothing_yet(open)),
        }
        if open {
            text.push_str(END_OF_OPENMETRICS);
        }
        Reply { content_type: exposition::content_type(open), ..Reply::text(text) }
    }

    /// `model`: None asks for the worker as a whole.
    pub(crate) fn ready(&self, model: Option<&ModelQuery>) -> Result<Reply, Refusal> {
        if self.draining.load(Ordering::Acquire) {
            return Err(draining());
        }
        self.with_latest(|latest, at| {
            let (ready, body) = ready::answer(latest, at, model);
            Reply::json(if ready { 200 } else { 503 }, body)
        })
    }

    /// The last snapshot with its answers; None before the first.
    fn latest(&self) -> Option<Arc<Published>> {
        self.store.latest().map(|snapshot| self.publish(snapshot))
    }

    /// What grows with GPUs and models is rendered once for each snapshot, by the first request that uses it.
    fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Published> {
        let lock = || self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().clone().filter(|published| Arc::ptr_eq(&published.snapshot, &snapshot));
        known.unwrap_or_else(|| {
            let published = Arc::new(Published::new(snapshot));
            *lock() = Some(Arc::clone(&published));
            published
        })
    }

    fn with_latest(&self, answer: impl FnOnce(&Published, &Moment<'_>) -> Reply) -> Result<Reply, Refusal> {
        let latest = self.latest().ok_or_else(no_sample)?;
        Ok(self.at(&latest, |at| answer(&latest, at)))
    }

    fn at<T>(&self, latest: &Published, answer: impl FnOnce(&Moment<'_>) -> T) -> T {
        let now = unix_now();
        let age = latest.snapshot.at.elapsed();
        let stale = verdict::stale(age, self.interval, now);
        let (registrations, keepers) = (self.registrations.rows(), self.keepers.rows());
        let notifications = self.notifications.rows();
        let heartbeats = self.heartbeats.rows();
        answer(&Moment {
            registrations: &registrations,
            notifications: &notifications,
            keepers: &keepers,
            heartbeat: heartbeats.first(),
            now,
            sample_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            process_seconds: self.started.elapsed().as_secs(),
            stale: stale.as_ref(),
        })
    }
}

fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "this worker is shutting down; send the job to another one")
}

fn no_sample() -> Refusal {
    Refusal::new(ErrorCode::NoSample, "neither GPUs nor Ollama have been read yet; retry in a second")
}
