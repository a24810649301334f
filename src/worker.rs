//! The only place where a request meets the snapshot. One request, one snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::counters::Gauge;
use crate::edge::limits::unix_now;
use crate::pure::config::Config;
use crate::pure::contract::{self, Moment};
use crate::pure::reply::Reply;
use crate::pure::route::{Job, Refusal};
use crate::pure::snapshot::Snapshot;
use crate::pure::{text, verdict};
use crate::sampler::Board;

/// A job that comes before the first sample waits for it this long.
const FIRST_SAMPLE: Duration = Duration::from_secs(2);

/// Answers requests from the last snapshot.
#[derive(Debug)]
pub(crate) struct Worker {
    board: Arc<Board>,
    /// CAPABILITY_CAPACITY.
    capacity: usize,
    /// SAMPLE_INTERVAL, by which a sample's age is judged.
    interval: Duration,
    jobs: Gauge,
    /// Jobs that wait for the first sample, and how many may: the other threads answer at once.
    waiting: Gauge,
    max_waiting: usize,
    draining: AtomicBool,
    started: Instant,
    /// AGENT_NET_FAULT.
    panic_agent: Option<String>,
}

impl Worker {
    /// `config`: capacity, interval and fault of the settings. `max_waiting` must leave threads for other requests.
    pub(crate) fn new(board: Arc<Board>, config: &Config, max_waiting: usize) -> Self {
        Self {
            board,
            capacity: config.capability.capacity as usize,
            interval: config.sample_interval,
            jobs: Gauge::default(),
            waiting: Gauge::default(),
            max_waiting,
            draining: AtomicBool::new(false),
            started: Instant::now(),
            panic_agent: config.panic_agent.clone(),
        }
    }

    /// From now on every job is refused and GET /ready says why.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The answer to a request that `route` understood, or to one that it refused.
    pub(crate) fn handle(&self, asked: Result<Job, Refusal>) -> Reply {
        let answer = asked.and_then(|job| match job {
            Job::Health => Ok(Reply::json(200, contract::HEALTHY.into())),
            Job::Report { agent_id } => self.job(&agent_id),
            Job::Gpu { text } => self.with_latest(|snapshot, at| {
                let report = contract::report(snapshot, None, at);
                if text { Reply::text(text::render(&report)) } else { Reply::json(200, contract::json(&report)) }
            }),
            Job::Models => self.with_latest(|snapshot, at| Reply::json(200, contract::catalogue(snapshot, at))),
            Job::Ready => self.ready(),
        });
        answer.unwrap_or_else(|refusal| Reply::refusal(refusal, unix_now()))
    }

    fn job(&self, agent_id: &str) -> Result<Reply, Refusal> {
        self.refuse_when_draining()?;
        let Some(_ticket) = self.jobs.enter(self.capacity) else {
            let message = format!("{} jobs are under way, which is CAPABILITY_CAPACITY; try again", self.capacity);
            return Err(Refusal::new(503, "at_capacity", message).with("Retry-After", "1"));
        };
        assert!(self.panic_agent.as_deref() != Some(agent_id), "AGENT_NET_FAULT asks for this panic");
        let snapshot = self.board.latest().or_else(|| {
            let _ticket = self.waiting.enter(self.max_waiting)?;
            self.board.wait_first(FIRST_SAMPLE)
        });
        let snapshot = snapshot.ok_or_else(no_sample)?;
        Ok(self.at(&snapshot, |at| {
            let report = contract::report(&snapshot, Some(agent_id), at);
            Reply::json(200, contract::json(&report)).with("X-Metadata", contract::metadata(&report))
        }))
    }

    fn ready(&self) -> Result<Reply, Refusal> {
        self.refuse_when_draining()?;
        self.with_latest(|snapshot, at| {
            let (ready, body) = contract::ready(snapshot, at);
            Reply::json(if ready { 200 } else { 503 }, body)
        })
    }

    fn refuse_when_draining(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Acquire) {
            let message = "this worker is shutting down; send the job elsewhere";
            return Err(Refusal::new(503, "draining", message).with("Retry-After", "10"));
        }
        Ok(())
    }

    fn with_latest(&self, answer: impl FnOnce(&Snapshot, &Moment<'_>) -> Reply) -> Result<Reply, Refusal> {
        let snapshot = self.board.latest().ok_or_else(no_sample)?;
        Ok(self.at(&snapshot, |at| answer(&snapshot, at)))
    }

    fn at(&self, snapshot: &Snapshot, answer: impl FnOnce(&Moment<'_>) -> Reply) -> Reply {
        let now = unix_now();
        let age = snapshot.at.elapsed();
        let stale = verdict::stale(age, self.interval, now);
        answer(&Moment {
            now,
            sample_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            process_seconds: self.started.elapsed().as_secs(),
            stale: stale.as_ref(),
        })
    }
}

fn no_sample() -> Refusal {
    let message = "neither GPU nor Ollama has been read yet; try again in a second";
    Refusal::new(503, "no_sample", message).with("Retry-After", "1")
}
