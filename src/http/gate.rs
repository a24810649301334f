//! What all connections share: limits, budgets and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fd::OwnedFd;

use super::budget::Budget;
use super::connections::ConnectionTable;
use super::rouille::Service;
use crate::sys::counters::{Gauge, Permit, Pulse};
use crate::sys::threads::ThreadPool;

/// Requests that are not POSTs and whose answer is being made: they wait for nothing, and some answers are large.
const READS: usize = 4;
/// GETs of liveness and readiness, beside the others: a client that waits for memory must not keep a probe waiting.
const PROBES: usize = 4;

/// What a request asks for. The answers of each kind that are made at a time have a limit of their own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Job,
    /// Of a client whose timeout may be 1 s, as in Docker and Kubernetes. Its answer is small.
    Probe,
    Read,
}

/// How much there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLimits {
    pub(crate) connections: usize,
    /// POSTs whose answer is being made.
    pub(crate) jobs: usize,
    /// Largest body that is passed on, in bytes.
    pub(crate) body: usize,
    /// For large requests and answers of all connections, half for each, in bytes.
    pub(crate) memory: usize,
}

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) service: Service,
    pub(super) limits: GateLimits,
    /// Memory for large requests, and for large answers.
    pub(super) requests: Budget,
    pub(super) answers: Budget,
    pub(super) connections: Gauge,
    pub(super) turned_away: Gauge,
    /// Requests from their first byte to the end of their answer.
    pub(super) active: Gauge,
    /// Requests whose answer is being made: POSTs, other requests, and probes.
    pub(super) jobs: Gauge,
    pub(super) reads: Gauge,
    pub(super) probes: Gauge,
    /// Threads that accept.
    pub(super) accepting: Gauge,
    /// Connections that were accepted, up to the end of their first request.
    pub(super) fresh: Gauge,
    /// Connections that have had their last answer.
    pub(super) ended: Gauge,
    /// The worker stops: no request after this one on any connection.
    pub(super) draining: AtomicBool,
    /// The worker leaves: jobs that begin now are refused.
    pub(super) refusing: AtomicBool,
    /// The worker leaves: nothing more is read from any connection.
    pub(super) deaf: AtomicBool,
    /// Jobs also come through a socket that `agent-net hold-port` holds.
    pub(super) holds: AtomicBool,
    /// Becomes readable when nothing more is to be accepted, and stays so.
    pub(super) stop: OwnedFd,
    pub(super) stopped: AtomicBool,
    /// What the registrations must know.
    pub(super) pulse: Pulse,
    /// Connections that were accepted so far, whatever became of them.
    pub(super) accepted: AtomicU64,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) table: Arc<ConnectionTable>,
}

impl Gate {
    /// Few places are left: idle clients are given less time.
    pub(super) fn crowded(&self) -> bool {
        self.connections.now() > self.limits.connections / 4 * 3
    }

    /// A permit to make one answer, once fewer than the limit are being made; None: not within `timeout`.
    pub(super) fn work(&self, work: Work, timeout: Duration) -> Option<Permit> {
        let (work, limit) = match work {
            Work::Job => (&self.jobs, self.limits.jobs),
            Work::Probe => (&self.probes, PROBES),
            Work::Read => (&self.reads, READS),
        };
        work.enter_within(limit, timeout)
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn request_stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // It cannot be full: it is written once.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }
}
