//! The only place where a request meets the snapshot. One request, one snapshot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::agents::Agents;
use super::hardware::{self, Identity};
use super::report::{Moment, Published};
use super::route::{Asked, Job, Refusal};
use super::{answers, codes_answer, contract, metrics, openapi, page};
use crate::config::{Config, WatchdogTest};
use crate::health::recorder::Recorder;
use crate::health::sampler::SnapshotStore;
use crate::health::snapshot::Snapshot;
use crate::health::verdict;
use crate::http::reply::Reply;
use crate::livepeer::lease::Registrations;
use crate::livepeer::tickets::header::Tickets;
use crate::livepeer::tickets::intake::TicketIntake;
use crate::ollama::keeper_thread::Keepers;
use crate::sys::counters::{Gauge, JobStats};
use crate::sys::exposition::{self, END_OF_OPENMETRICS, Exposition};
use crate::sys::limits::unix_now;
use crate::sys::{logger, process};

/// A job that comes while as many as may be are in progress waits for a slot this long.
const SLOT_TIMEOUT: Duration = Duration::from_millis(200);
/// A job that comes before the first sample has waited this long for a slot and for it at most.
const FIRST_SAMPLE: Duration = Duration::from_millis(1700);
/// No job takes longer: that, or what the disk gets at least for its tickets beyond the first sample's wait.
const JOB_DEADLINE: Duration = Duration::from_millis(1800);
const LEDGER_TIMEOUT: Duration = Duration::from_millis(200);

/// Answers requests from the last snapshot.
#[derive(Debug)]
pub(crate) struct Worker {
    board: Arc<SnapshotStore>,
    published: Mutex<Option<Arc<Published>>>,
    recorder: Arc<Recorder>,
    registrations: Arc<Registrations>,
    keepers: Arc<Keepers>,
    ticket_intake: Option<Arc<TicketIntake>>,
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
    /// The log says that a job lacked the token.
    tokenless_logged: Once,
    draining: AtomicBool,
    started: Instant,
    /// AGENT_NET_FAULT.
    panic_agent: Option<String>,
    sick: bool,
}

/// Where answers come from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) board: Arc<SnapshotStore>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) keepers: Arc<Keepers>,
    /// None: tickets are not looked at.
    pub(crate) ticket_intake: Option<Arc<TicketIntake>>,
}

impl Worker {
    /// `config`: capacity, interval and fault of the settings.
    pub(crate) fn new(seen: Sources, config: &Config) -> Self {
        let Sources { board, recorder, registrations, keepers, ticket_intake } = seen;
        Self {
            board,
            published: Mutex::default(),
            recorder,
            registrations,
            keepers,
            ticket_intake,
            capabilities: config.capability.names.clone(),
            capacity: config.capability.capacity as usize,
            interval: config.sample_interval,
            nvidia_smi_metrics: config.nvidia_smi_metrics,
            jobs: Gauge::default(),
            stats: JobStats::default(),
            agents: Mutex::default(),
            tokenless_logged: Once::new(),
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

    /// The answer to a request that `route` understood, or to one that it refused.
    pub(crate) fn handle(&self, asked: Asked) -> Reply {
        let start = Instant::now();
        if let (true, Some(_), Err(Refusal { status: 401, .. })) = (asked.tokenless, asked.route, &asked.job) {
            self.tokenless_logged.call_once(warn_of_tokenless_jobs);
        }
        let answer = asked.job.and_then(|job| match job {
            Job::Report { .. } if asked.late => Err(draining()),
            job => self.answer(job, start),
        });
        let reply = answer.unwrap_or_else(|refusal| refusal.reply(unix_now()));
        if let Some(route) = asked.route {
            self.stats.count(route, reply.status, start.elapsed());
        }
        reply
    }

    fn answer(&self, job: Job, start: Instant) -> Result<Reply, Refusal> {
        match job {
            Job::Health if self.sick => Err(Refusal::new(503, "at_capacity", "AGENT_NET_FAULT asks for this")),
            Job::Health => Ok(Reply::json(200, contract::HEALTHY)),
            Job::Report { agent_id, tickets } => self.job(&agent_id, tickets, start),
            Job::Gpu { text } => self.with_latest(|latest, at| {
                if text {
                    Reply::text(latest.text(at))
                } else {
                    Reply::json(200, latest.json(&latest.report(None, at)))
                }
            }),
            Job::Models => self.with_latest(|latest, at| Reply::json(200, latest.catalogue(at))),
            Job::Version => {
                // It is known before anything else is.
                let latest = self.latest();
                let model_id = latest.as_ref().map_or("", |latest| latest.model_name());
                Ok(Reply::json(200, hardware::version(Identity { pipeline: self.pipeline(), model_id })))
            }
            Job::Hardware => self.with_latest(|latest, _| Reply::json(200, hardware::info(self.pipeline(), latest))),
            Job::HardwareStats => {
                self.with_latest(|latest, _| Reply::json(200, hardware::stats(self.pipeline(), latest)))
            }
            Job::Capabilities => {
                let latest = self.latest();
                Ok(Reply::json(200, hardware::capabilities(&self.capabilities, latest.as_deref(), self.capacity)))
            }
            Job::Codes { html } => Ok(codes_answer::reply(html)),
            Job::History => Ok(Reply::json(200, self.board.recent(unix_now()))),
            Job::OpenApi => Ok(Reply::json(200, openapi::DOCUMENT.as_str())),
            Job::Page { known } => Ok(page::reply(known)),
            Job::Uptime { window, minutes, step } => {
                let now = unix_now();
                let (windows, history) = self.recorder.history(minutes, now);
                let thresholds = self.board.limits().uptime_percent;
                let kept = self.recorder.is_kept();
                Ok(Reply::json(200, answers::uptime((window, step), &windows, &history, thresholds, kept, now)))
            }
            Job::Agents => {
                let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(Reply::json(200, answers::agents(&agents, unix_now())))
            }
            Job::Metrics { open } => Ok(self.metrics(open)),
            Job::Ready => self.ready(),
        }
    }

    /// The name under which other tools know this worker.
    fn pipeline(&self) -> &str {
        self.capabilities.first().map_or("agent-net", String::as_str)
    }

    /// The operator knows of the errors so far; the body of GET /ready after that. `by`: how that was said.
    pub(crate) fn acknowledge(&self, by: &str) -> String {
        let latest = self.publish(self.board.acknowledge());
        log::info!("{by}: the errors so far are acknowledged; the verdict is {}", latest.verdict());
        self.at(&latest, |at| latest.ready(at).1)
    }

    fn job(&self, agent_id: &str, tickets: Option<Tickets>, start: Instant) -> Result<Reply, Refusal> {
        // Most jobs end within microseconds, and free a slot.
        let Some(_slot) = self.jobs.enter_within(self.capacity, SLOT_TIMEOUT) else {
            let message = format!("{} jobs are in progress, which is CAPABILITY_CAPACITY; try again", self.capacity);
            return Err(Refusal::new(503, "at_capacity", message).with("Retry-After", "1"));
        };
        let paid = self.ticket_intake.as_ref().zip(tickets);
        let paid = paid
            .map(|(ticket_intake, tickets)| ticket_intake.verify(tickets).map(|received| (ticket_intake, received)));
        let paid = paid.transpose()?;
        assert!(self.panic_agent.as_deref() != Some(agent_id), "AGENT_NET_FAULT asks for this panic");
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).see(agent_id, unix_now());
        let first = || self.board.wait_first(FIRST_SAMPLE.saturating_sub(start.elapsed()));
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

    /// Always an answer: before the first sample it says at least that there is none.
    fn metrics(&self, open: bool) -> Reply {
        let now = unix_now();
        let mut out = Exposition::new(open);
        self.stats.write(&mut out);
        self.recorder.write_metrics(&mut out, now);
        if let Some(intake) = &self.ticket_intake {
            intake.write_metrics(&mut out);
        }
        metrics::registrations(&mut out, &self.registrations.rows());
        metrics::keepers(&mut out, &self.keepers.rows());
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
                metrics::write(&mut out, snapshot, self.board.limits());
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

    fn ready(&self) -> Result<Reply, Refusal> {
        if self.draining.load(Ordering::Acquire) {
            return Err(draining());
        }
        self.with_latest(|latest, at| {
            let (ready, body) = latest.ready(at);
            Reply::json(if ready { 200 } else { 503 }, body)
        })
    }

    /// The last snapshot with its answers; None before the first.
    fn latest(&self) -> Option<Arc<Published>> {
        self.board.latest().map(|snapshot| self.publish(snapshot))
    }

    /// Renders what grows with GPUs and models once for each snapshot: the first request after it does so.
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
        answer(&Moment {
            registrations: &registrations,
            keepers: &keepers,
            now,
            sample_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            process_seconds: self.started.elapsed().as_secs(),
            stale: stale.as_ref(),
        })
    }
}

fn draining() -> Refusal {
    let message = "this worker is shutting down; send the job elsewhere";
    Refusal::new(503, "draining", message).with("Retry-After", "10")
}

fn warn_of_tokenless_jobs() {
    log::warn!(
        "a job came without WORKER_TOKEN and was refused (401). go-livepeer sends worker tokens since v0.8.11; older ones \
         drop the token, and every job fails. If an orchestrator sent this job: update it, or unset WORKER_TOKEN. This \
         is logged once"
    );
}

fn no_sample() -> Refusal {
    let message = "neither GPU nor Ollama has been read yet; try again in a second";
    Refusal::new(503, "no_sample", message).with("Retry-After", "1")
}
