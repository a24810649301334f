//! Threads that take what there is to do, and threads without which there is no worker.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::exit::Exit;

/// How long a thread that does not stay waits for something to do.
const PATIENCE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that take what there is to do. One that is done waits a while for more; some always stay, so that there are a
/// few even while the machine gives no new ones.
pub(crate) struct Crew {
    name: &'static str,
    /// Bytes of each one's stack.
    stack: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What nobody has begun yet.
    work: VecDeque<Work>,
    /// Threads that wait for it.
    idle: usize,
    /// The last try to start a thread failed.
    short: bool,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("idle", &self.lock().idle).finish_non_exhaustive()
    }
}

impl Crew {
    /// Starts those that stay.
    ///
    /// # Errors
    /// The kernel's, when it gives no threads.
    pub(crate) fn start(name: &'static str, stack: usize, staying: usize) -> io::Result<Arc<Self>> {
        let crew = Arc::new(Self { name, stack, state: Mutex::default(), changed: Condvar::new() });
        for _ in 0..staying {
            crew.hire(None)?;
        }
        Ok(crew)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this done: by a thread that waits, else by a new one, else by the next one that is free. False: none is.
    pub(crate) fn give(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.lock();
        state.work.push_back(Box::new(work));
        if state.idle >= state.work.len() {
            drop(state);
            self.changed.notify_one();
            return true;
        }
        drop(state);
        let failure = self.hire(Some(PATIENCE)).err();
        let was_short = std::mem::replace(&mut self.lock().short, failure.is_some());
        if let Some(why) = failure.as_ref().filter(|_| !was_short) {
            log::warn!("no new thread ({}): {why}; those that there are do the work", self.name);
        }
        failure.is_none()
    }

    /// There is more to do than threads to do it.
    pub(crate) fn is_short(&self) -> bool {
        !self.lock().work.is_empty()
    }

    /// One thread more, which ends when it has nothing to do for so long.
    fn hire(self: &Arc<Self>, patience: Option<Duration>) -> io::Result<()> {
        let crew = Arc::clone(self);
        let work = move || {
            while let Some(work) = crew.next(patience) {
                // A defect of ours ends one piece of work, not a thread that stays.
                let _ = panic::catch_unwind(AssertUnwindSafe(work));
            }
        };
        thread::Builder::new().name(self.name.into()).stack_size(self.stack).spawn(work).map(drop)
    }

    fn next(&self, patience: Option<Duration>) -> Option<Work> {
        let mut state = self.lock();
        state.idle += 1;
        let none = |state: &mut State| state.work.is_empty();
        let mut state = match patience {
            None => self.changed.wait_while(state, none).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.changed.wait_timeout_while(state, patience, none);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.idle -= 1;
        state.work.pop_front()
    }
}

/// Starts a thread without which the worker is none: when it fails, the process ends, so that whatever started it starts
/// it anew.
///
/// # Errors
/// The kernel's, when it gives no threads.
pub(crate) fn essential(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            log::error!("the thread {name} has failed: this process ends, to be started anew. Please report its log");
            Exit::Failed.now();
        }
    };
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn those_that_stay_do_more_than_there_are_of_them_and_survive_a_panic() {
        let crew = Crew::start("test", 64 * 1024, 2).unwrap();
        let (sender, done) = mpsc::channel();
        for number in 0..20 {
            let sender = sender.clone();
            crew.give(move || {
                assert!(number % 5 != 0, "as it should be");
                sender.send(number).unwrap();
            });
        }
        drop(sender);
        assert_eq!(done.iter().count(), 16);
        let (sender, done) = mpsc::channel();
        crew.give(move || sender.send(()).unwrap());
        done.recv().unwrap();
    }

    /// It ends the process: this test runs itself once more, in one of its own.
    #[test]
    fn an_essential_thread_that_fails_ends_the_process() {
        const INNER: &str = "TEST_AN_ESSENTIAL_THREAD";
        if std::env::var_os(INNER).is_some() {
            essential("test", || panic!("as it should be")).unwrap();
            thread::sleep(Duration::from_secs(60));
        }
        let name = thread::current().name().unwrap_or_default().to_owned();
        let program = std::env::current_exe().unwrap();
        let ended = Command::new(program).args(["--exact", &name]).env(INNER, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(Exit::Failed as i32), "{ended:?}");
    }
}
