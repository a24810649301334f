//! What operators see of all registrations.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pure::lease::{Row, State};

/// The rows of all registrations, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Registrations(Mutex<Vec<Row>>);

impl Registrations {
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row; the place where it stands.
    pub(super) fn add(&self, orchestrator: &str, capability: &str, protocol: &'static str) -> usize {
        let mut rows = self.lock();
        rows.push(Row {
            orchestrator: orchestrator.to_owned(),
            capability: capability.to_owned(),
            protocol,
            state: State::Waiting,
            last_success: None,
            renewals: 0,
            failures: Default::default(),
            error: None,
        });
        rows.len() - 1
    }

    pub(super) fn change(&self, row: usize, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.lock().get_mut(row) {
            change(row);
        }
    }
}
