//! The state of one line, shared by the thread that waits for it and the one that writes it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Receipt {
    state: Mutex<ReceiptState>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum ReceiptState {
    #[default]
    Waiting,
    Writing,
    Written,
    Failed(String),
    /// The waiting thread has timed out.
    Abandoned,
}

impl Receipt {
    fn lock(&self) -> MutexGuard<'_, ReceiptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the line is on the disk. After `timeout` it is abandoned: not written, or voided.
    ///
    /// # Errors
    /// Why it was not written.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), String> {
        let busy = |state: &mut ReceiptState| matches!(state, ReceiptState::Waiting | ReceiptState::Writing);
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*state {
            ReceiptState::Written => Ok(()),
            ReceiptState::Failed(why) => Err(why.clone()),
            ReceiptState::Waiting | ReceiptState::Writing | ReceiptState::Abandoned => {
                *state = ReceiptState::Abandoned;
                Err("the disk does not respond in time".into())
            }
        }
    }

    /// Sets the state; false: the line was abandoned.
    pub(super) fn advance(&self, to: ReceiptState) -> bool {
        let mut state = self.lock();
        if *state == ReceiptState::Abandoned {
            return false;
        }
        *state = to;
        self.changed.notify_all();
        true
    }
}
