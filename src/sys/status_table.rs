//! The status of background work for operators: a row for each piece, changed by the thread that does it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All rows, in the order in which they were added.
#[derive(Debug)]
pub(crate) struct StatusTable<T>(Mutex<Arc<Vec<T>>>);

impl<T> Default for StatusTable<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> StatusTable<T> {
    /// The current rows. Every job asks for them, and they seldom change.
    pub(crate) fn rows(&self) -> Arc<Vec<T>> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row, in place of an older one that is the `same`, and returns its index.
    pub(crate) fn put(&self, row: T, same: impl Fn(&T, &T) -> bool) -> usize {
        let mut shared = self.lock();
        let rows = Arc::make_mut(&mut shared);
        match rows.iter().position(|other| same(other, &row)) {
            Some(index) => {
                rows[index] = row;
                index
            }
            None => {
                rows.push(row);
                rows.len() - 1
            }
        }
    }

    pub(crate) fn change(&self, index: usize, change: impl FnOnce(&mut T)) {
        if let Some(row) = Arc::make_mut(&mut self.lock()).get_mut(index) {
            change(row);
        }
    }
}
