//! What operators see of things that go on by themselves: a row each, changed by whoever looks after it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// All rows, in the order in which they began.
#[derive(Debug)]
pub(crate) struct Rows<T>(Mutex<Vec<T>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Rows<T> {
    pub(crate) fn rows(&self) -> Vec<T> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row; the place where it stands.
    pub(crate) fn add(&self, row: T) -> usize {
        let mut rows = self.lock();
        rows.push(row);
        rows.len() - 1
    }

    pub(crate) fn change(&self, at: usize, change: impl FnOnce(&mut T)) {
        if let Some(row) = self.lock().get_mut(at) {
            change(row);
        }
    }
}
