//! What is in progress now and what has happened since the start, in plain numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exposition::{Exposition, counter, histogram, metrics};

/// A number of things that are in progress, counted down by the drop of their permits, panics included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    /// Threads that wait for it to become less.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    less: Condvar,
}

/// Stands for one thing in progress.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Count>);

impl Gauge {
    /// One more, unless there are `limit` already.
    pub(crate) fn enter(&self, limit: usize) -> Option<Permit> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        self.0.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Permit(Arc::clone(&self.0)))
    }

    /// One more, waiting at most `timeout` until there are fewer than `limit`. Without a wait it takes no lock.
    pub(crate) fn enter_within(&self, limit: usize, timeout: Duration) -> Option<Permit> {
        let entered = self.enter(limit);
        if entered.is_some() {
            return entered;
        }
        let end = Instant::now() + timeout;
        let mut lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let entered = loop {
            let left = end.saturating_duration_since(Instant::now());
            let entered = self.enter(limit);
            if entered.is_some() || left.is_zero() {
                break entered;
            }
            (lock, _) = self.0.less.wait_timeout(lock, left).unwrap_or_else(PoisonError::into_inner);
        };
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(lock);
        entered
    }

    pub(crate) fn now(&self) -> usize {
        self.0.now.load(Ordering::SeqCst)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
        // A thread that waits has said so before it looked at the number.
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.0.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.0.less.notify_one();
        }
    }
}

/// What the public port notices for the registrations. Every POST counts as a job: others are rare and do no harm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse {
    /// From a job's head to the end of its answer.
    jobs: Gauge,
    vanished: Arc<AtomicUsize>,
    denied: Arc<AtomicUsize>,
    foreign: Arc<AtomicUsize>,
}

/// How much of it one reader has seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    vanished: usize,
    denied: usize,
    foreign: usize,
}

/// Why a registration may have to be renewed before it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// A job's peer was gone before its answer: a slot may be lost.
    Vanished,
    /// A job came without WORKER_TOKEN: if it was the orchestrator's, it has lost the registration.
    Denied,
    /// A job came with another token, with the same result.
    Foreign,
    /// The orchestrator's other registry has lost the worker or is back: this one may have been lost as well.
    Restarted,
    /// The operator wants it (SIGHUP).
    Asked,
}

impl Pulse {
    /// One job more, until the permit is dropped.
    pub(crate) fn job(&self) -> Option<Permit> {
        self.jobs.enter(usize::MAX)
    }

    pub(crate) fn jobs(&self) -> usize {
        self.jobs.now()
    }

    /// A job's peer was gone before it had its answer.
    pub(crate) fn vanished(&self) {
        self.vanished.fetch_add(1, Ordering::AcqRel);
    }

    /// A job was refused because of its token; `some`: it had one.
    pub(crate) fn denied(&self, some: bool) {
        let count = if some { &self.foreign } else { &self.denied };
        count.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn heard(&self) -> Heard {
        let now = |count: &AtomicUsize| count.load(Ordering::Acquire);
        Heard { vanished: now(&self.vanished), denied: now(&self.denied), foreign: now(&self.foreign) }
    }

    /// What is new since then.
    pub(crate) fn since(&self, heard: &mut Heard) -> Vec<Hint> {
        let before = std::mem::replace(heard, self.heard());
        let vanished = (before.vanished != heard.vanished).then_some(Hint::Vanished);
        let denied = (before.denied != heard.denied).then_some(Hint::Denied);
        let foreign = (before.foreign != heard.foreign).then_some(Hint::Foreign);
        vanished.into_iter().chain(denied).chain(foreign).collect()
    }
}

metrics! {
    JOBS = counter("agent_net_jobs_total", &["route", "code"], "Jobs that came whole, by route and status.");
    JOB_DURATION = histogram("agent_net_job_duration_seconds", &[], "Time from a complete request to its response.");
}

/// Upper bounds of the histogram of job times, in seconds. A job takes microseconds, or waits for a first sample.
const BOUNDS: [(f64, &str); 12] = [
    (0.000_1, "0.0001"),
    (0.000_25, "0.00025"),
    (0.000_5, "0.0005"),
    (0.001, "0.001"),
    (0.002_5, "0.0025"),
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.5, "2.5"),
];

/// The jobs that were answered, by route and status, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct JobStats(Mutex<JobTotals>);

#[derive(Debug, Clone, Default)]
pub(crate) struct JobTotals {
    /// By route and status.
    pub(crate) answered: BTreeMap<(&'static str, u16), u64>,
    /// Jobs up to each of [`BOUNDS`], not cumulative, and those beyond.
    pub(crate) times: [u64; BOUNDS.len() + 1],
    pub(crate) total: Duration,
}

impl JobTotals {
    /// The least bound, in seconds, that this share of the jobs stayed within; None without one.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.times.iter().sum();
        let wanted = share * all as f64;
        let mut below = 0;
        let mut bounds = BOUNDS.iter().zip(self.times).map(|((bound, _), count)| {
            below += count;
            (*bound, below)
        });
        bounds.find(|(_, below)| all > 0 && *below as f64 >= wanted).map(|(bound, _)| bound)
    }
}

impl JobStats {
    pub(crate) fn totals(&self) -> JobTotals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, route: &'static str, status: u16, took: Duration) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *jobs.answered.entry((route, status)).or_default() += 1;
        let bucket = BOUNDS.iter().position(|(bound, _)| took.as_secs_f64() <= *bound);
        jobs.times[bucket.unwrap_or(BOUNDS.len())] += 1;
        jobs.total += took;
    }

    pub(crate) fn write(&self, out: &mut Exposition) {
        let jobs = self.totals();
        out.family(&JOBS);
        for ((route, status), count) in &jobs.answered {
            out.sample(&[route, &status.to_string()], Some(*count as f64));
        }
        out.family(&JOB_DURATION);
        let mut below = 0;
        for ((_, bound), count) in BOUNDS.iter().zip(jobs.times) {
            below += count;
            out.sample_of("_bucket", &[("le", *bound)], Some(below as f64));
        }
        let all: u64 = jobs.times.iter().sum();
        out.sample_of("_bucket", &[("le", "+Inf")], Some(all as f64));
        out.sample_of("_sum", &[], Some(jobs.total.as_secs_f64()));
        out.sample_of("_count", &[], Some(all as f64));
    }
}

#[test]
fn job_times_are_cumulative() {
    let stats = JobStats::default();
    for micros in [50, 100, 101, 3_000_000] {
        stats.count("/gpu-check", 200, Duration::from_micros(micros));
    }
    let mut out = Exposition::new(false);
    stats.write(&mut out);
    let text = out.into_text();
    for line in [
        "agent_net_jobs_total{route=\"/gpu-check\",code=\"200\"} 4",
        "agent_net_job_duration_seconds_bucket{le=\"0.0001\"} 2",
        "agent_net_job_duration_seconds_bucket{le=\"0.00025\"} 3",
        "agent_net_job_duration_seconds_bucket{le=\"2.5\"} 3",
        "agent_net_job_duration_seconds_bucket{le=\"+Inf\"} 4",
        "agent_net_job_duration_seconds_count 4",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn quantiles_are_bounds_of_the_histogram() {
    let stats = JobStats::default();
    let of = |share| stats.totals().quantile(share);
    assert_eq!((of(0.5), of(0.99)), (None, None));
    for micros in [50, 60, 200, 3_000_000] {
        stats.count("/gpu-check", 200, Duration::from_micros(micros));
    }
    assert_eq!((of(0.5), of(0.75), of(0.99)), (Some(0.0001), Some(0.00025), None));
}

#[test]
fn a_gauge_counts_up_to_its_limit_and_back() {
    let gauge = Gauge::default();
    let first = gauge.enter(2).unwrap();
    let second = gauge.enter(2);
    assert!(second.is_some() && gauge.enter(2).is_none());
    drop(first);
    assert_eq!(gauge.now(), 1);
    assert!(gauge.enter(2).is_some());
}

#[test]
fn whoever_waits_for_a_gauge_enters_as_soon_as_another_leaves() {
    let gauge = Gauge::default();
    let first = gauge.enter_within(1, Duration::ZERO).unwrap();
    assert!(gauge.enter_within(1, Duration::from_millis(1)).is_none(), "it is full");
    let others: Vec<_> = (0..4)
        .map(|_| {
            let gauge = gauge.clone();
            std::thread::spawn(move || gauge.enter_within(1, Duration::from_secs(60)).is_some())
        })
        .collect();
    while gauge.0.waiting.load(Ordering::SeqCst) < 4 {
        std::thread::yield_now();
    }
    drop(first);
    assert!(others.into_iter().all(|other| other.join().unwrap()));
    assert_eq!((gauge.now(), gauge.0.waiting.load(Ordering::SeqCst)), (0, 0));
}
