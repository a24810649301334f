//! What is going on right now, in plain atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of things that are under way, counted down by their tickets' drop, panics included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

/// Stands for one thing under way.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<AtomicUsize>);

impl Gauge {
    /// One more, unless there are `limit` already.
    pub(crate) fn enter(&self, limit: usize) -> Option<Ticket> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Ticket(Arc::clone(&self.0)))
    }

    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
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
