//! What operators see of things that go on by themselves: a row each, changed by whoever looks after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All rows, in the order in which they began.
#[derive(Debug)]
pub(crate) struct Rows<T>(Mutex<Arc<Vec<T>>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Rows<T> {
    /// As they are now: every job asks, and they seldom change.
    pub(crate) fn rows(&self) -> Arc<Vec<T>> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a row in place of the same one of before, if there is one; the place where it stands.
    pub(crate) fn put(&self, row: T, same: impl Fn(&T, &T) -> bool) -> usize {
        let mut shared = self.lock();
        let rows = Arc::make_mut(&mut shared);
        match rows.iter().position(|other| same(other, &row)) {
            Some(at) => {
                rows[at] = row;
                at
            }
            None => {
                rows.push(row);
                rows.len() - 1
            }
        }
    }

    pub(crate) fn change(&self, at: usize, change: impl FnOnce(&mut T)) {
        if let Some(row) = Arc::make_mut(&mut self.lock()).get_mut(at) {
            change(row);
        }
    }
}
