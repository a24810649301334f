//! One call for all threads that want the same answer at the same time, so that neither memory nor the other side's work
//! grows with their number.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The newest answer, while threads wait for it.
#[derive(Debug)]
pub(crate) struct SingleFlight<T> {
    /// The number of its call, and the answer. Locked during a call: those who wait want this answer or the next.
    newest: Mutex<Option<(u64, T)>>,
    /// Calls that have begun.
    begun: AtomicU64,
    /// Threads that want an answer.
    waiting: AtomicUsize,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { newest: Mutex::new(None), begun: AtomicU64::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// The answer of a call that began after this one: `call`, or that of another thread.
    pub(crate) fn call(&self, call: impl FnOnce() -> T) -> T {
        let before = self.begun.load(Ordering::Acquire);
        let waits = Waits::count(&self.waiting);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, answer) = match newest.take() {
            Some((number, answer)) if number > before => (number, answer),
            _ => (self.begun.fetch_add(1, Ordering::AcqRel) + 1, call()),
        };
        drop(waits);
        if self.waiting.load(Ordering::Acquire) > 0 {
            *newest = Some((number, answer.clone()));
        }
        answer
    }
}

/// One thread that wants an answer, until this is dropped: a call may panic.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn those_who_wait_share_the_next_call_and_never_one_that_had_begun() {
        let flight = SingleFlight::default();
        let calls = AtomicUsize::new(0);
        let number = || calls.fetch_add(1, Ordering::AcqRel) + 1;
        let (shared, next) = (&flight, &number);
        let (begun, started) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = scope.spawn(move || {
                shared.call(|| {
                    begun.send(()).unwrap();
                    wait.recv().unwrap();
                    next()
                })
            });
            started.recv().unwrap();
            let others: Vec<_> = (0..5).map(|_| scope.spawn(move || shared.call(next))).collect();
            while flight.waiting.load(Ordering::Acquire) < 6 {
                thread::yield_now();
            }
            go_on.send(()).unwrap();
            assert_eq!(first.join().unwrap(), 1);
            assert!(others.into_iter().all(|other| other.join().unwrap() == 2));
        });
        let panics = std::panic::AssertUnwindSafe(|| flight.call(|| -> usize { panic!("as a test asks") }));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(flight.call(next), 3, "nothing is kept");
        assert!(flight.newest.lock().unwrap_or_else(PoisonError::into_inner).is_none());
    }
}
