//! What all connections share: limits, budgets and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::budget::Budget;
use super::connections::ConnectionTable;
use super::rouille::Service;
use crate::sys::counters::{Gauge, Permit, Pulse};
use crate::sys::threads::ThreadPool;

/// Requests that are not POSTs and whose answer is being made: they wait for nothing, and some answers are large.
const READS: usize = 4;

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
    /// POSTs and other requests whose answer is being made.
    pub(super) jobs: Gauge,
    pub(super) reads: Gauge,
    /// The worker stops: no request after this one on any connection.
    pub(super) draining: AtomicBool,
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

    /// Leave to make one more answer, as soon as others have ended.
    pub(super) fn work(&self, job: bool, timeout: Duration) -> Option<Permit> {
        let (work, limit) = if job { (&self.jobs, self.limits.jobs) } else { (&self.reads, READS) };
        work.enter_within(limit, timeout)
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
