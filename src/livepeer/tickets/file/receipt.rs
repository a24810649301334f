//! What became of one line: for whoever waits for it, and for whoever writes it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of one line.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Waiting,
    Writing,
    Written,
    Failed(String),
    /// Nobody waits for it any more.
    GivenUp,
}

impl Receipt {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the line is on the disk itself; given up after `patience`, it is not written, or voided.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn wait(&self, patience: Duration) -> Result<(), String> {
        let busy = |state: &mut State| matches!(state, State::Waiting | State::Writing);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Written => Ok(()),
            State::Failed(why) => Err(why.clone()),
            State::Waiting | State::Writing | State::GivenUp => {
                *state = State::GivenUp;
                Err("the disk does not answer in time".into())
            }
        }
    }

    /// Moves on, unless it was given up; whether it was not.
    pub(super) fn advance(&self, to: State) -> bool {
        let mut state = self.lock();
        if *state == State::GivenUp {
            return false;
        }
        *state = to;
        self.changed.notify_all();
        true
    }
}
