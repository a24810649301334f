//! Memory for large requests and large answers: a budget of each for all connections, so that their worst case is bounded
//! without a worst case for each of them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What each connection may hold of either without asking: a job's request, or its answer.
const FREE: usize = 8 * 1024;

/// Bytes that are left.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    pub(super) fn loan(&self) -> Loan<'_> {
        Loan { budget: self, bytes: 0 }
    }
}

/// What one connection has taken; returned by its drop.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Loan<'_> {
    /// The connection holds `bytes` from now on. False: that is not left, and nothing has changed.
    #[must_use]
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE);
        let Self { budget: Budget(left), bytes: held } = self;
        if wanted > *held {
            let more = wanted - *held;
            let take = |left: usize| left.checked_sub(more);
            if left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
                return false;
            }
        } else if wanted < *held {
            left.fetch_add(*held - wanted, Ordering::AcqRel);
        }
        *held = wanted;
        true
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        // It only returns what was taken.
        let _ = self.hold(0);
    }
}

#[test]
fn what_is_not_left_is_not_lent_and_all_comes_back() {
    let budget = Budget::new(100);
    let (mut one, mut other) = (budget.loan(), budget.loan());
    assert!(one.hold(FREE) && other.hold(FREE + 60));
    assert!(!one.hold(FREE + 41), "that is not left");
    assert!(one.hold(FREE + 40) && other.hold(FREE + 60) && !other.hold(FREE + 61));
    drop(one);
    assert!(other.hold(FREE + 100));
    drop(other);
    assert_eq!(budget.0.load(Ordering::Acquire), 100);
}
