//! A pool of threads for connections, and threads of services that are restarted when they panic.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::text::io_words;

/// How long a thread that does not stay waits for work.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that take work. One that is done waits a while for more; some always stay, so that there are a few even while
/// the machine gives no new ones.
pub(crate) struct ThreadPool {
    name: &'static str,
    /// Bytes of each one's stack.
    stack: usize,
    queue: Mutex<WorkQueue>,
    changed: Condvar,
}

#[derive(Default)]
struct WorkQueue {
    /// Work that no thread has begun yet.
    work: VecDeque<Work>,
    /// Threads that wait for it.
    idle: usize,
    /// The last try to start a thread failed.
    short: bool,
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("idle", &self.lock().idle).finish_non_exhaustive()
    }
}

impl ThreadPool {
    /// Starts those that stay.
    ///
    /// # Errors
    /// The kernel's, when it gives no threads.
    pub(crate) fn start(name: &'static str, stack: usize, staying: usize) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self { name, stack, queue: Mutex::default(), changed: Condvar::new() });
        for _ in 0..staying {
            pool.spawn(None)?;
        }
        Ok(pool)
    }

    fn lock(&self) -> MutexGuard<'_, WorkQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this done by a thread that waits, else by a new one. False: no thread can be started, and it waits for the next
    /// one that is free.
    pub(crate) fn submit(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        let mut queue = self.lock();
        queue.work.push_back(Box::new(work));
        if queue.idle >= queue.work.len() {
            drop(queue);
            self.changed.notify_one();
            return true;
        }
        drop(queue);
        let failure = self.spawn(Some(IDLE)).err();
        let was_short = std::mem::replace(&mut self.lock().short, failure.is_some());
        if was_short && failure.is_none() {
            self.catch_up();
        }
        if let Some(why) = failure.as_ref().filter(|_| !was_short) {
            log::warn!(
                "cannot start another {} thread: {}; work waits for a running one. Raise the limit of threads \
                 (pids_limit, TasksMax or ulimit -u)",
                self.name,
                io_words(why)
            );
        }
        failure.is_none()
    }

    /// Starts threads for what has waited since the system gave none: the next thread begins with the oldest of that.
    fn catch_up(self: &Arc<Self>) {
        let waiting = {
            let queue = self.lock();
            queue.work.len().saturating_sub(queue.idle)
        };
        for _ in 0..waiting {
            if self.spawn(Some(IDLE)).is_err() {
                self.lock().short = true;
                return;
            }
        }
    }

    /// There is more work than threads to do it.
    pub(crate) fn is_short(&self) -> bool {
        !self.lock().work.is_empty()
    }

    /// One thread more, which ends when it has been idle for so long.
    fn spawn(self: &Arc<Self>, idle: Option<Duration>) -> io::Result<()> {
        let pool = Arc::clone(self);
        let work = move || {
            while let Some(work) = pool.next(idle) {
                // A defect of ours ends one piece of work, not a thread that stays.
                let _ = panic::catch_unwind(AssertUnwindSafe(work));
            }
        };
        start(thread::Builder::new().name(self.name.into()).stack_size(self.stack), Box::new(work))
    }

    fn next(&self, idle: Option<Duration>) -> Option<Work> {
        let mut queue = self.lock();
        queue.idle += 1;
        let none = |queue: &mut WorkQueue| queue.work.is_empty();
        let mut queue = match idle {
            None => self.changed.wait_while(queue, none).unwrap_or_else(PoisonError::into_inner),
            Some(idle) => {
                let waited = self.changed.wait_timeout_while(queue, idle, none);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        queue.idle -= 1;
        queue.work.pop_front()
    }
}

/// Starts a thread that nothing waits for.
///
/// # Errors
/// The kernel's, when it gives no threads.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    start(thread::Builder::new().name(name.into()), Box::new(work))
}

/// Boxed work has one type, so there is one copy of the machine code that starts a thread, which is 1 KiB.
fn start(thread: thread::Builder, work: Work) -> io::Result<()> {
    thread.spawn(work).map(drop)
}

/// The service that is to panic once: AGENT_NET_FAULT=panic-thread:NAME.
static FAULT: Mutex<Option<String>> = Mutex::new(None);

/// For tests: the first service of this name panics when it starts.
pub(crate) fn panic_once(name: Option<String>) {
    *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = name;
}

fn panic_if_asked(name: &str) {
    let asked = FAULT.lock().unwrap_or_else(PoisonError::into_inner).take_if(|asked| asked == name).is_some();
    assert!(!asked, "AGENT_NET_FAULT asks for this panic");
}

/// A service that has panicked starts again after this long, and after twice as long each time it panics soon again.
const FIRST_RESTART: Duration = Duration::from_secs(1);
const LONGEST_RESTART: Duration = Duration::from_secs(30);
/// A service that has run this long has recovered.
const RECOVERED: Duration = Duration::from_secs(60);

/// Starts a thread for a service that runs until `work` returns. When it panics, that is logged and `work` runs again, with
/// what it owned before.
///
/// # Errors
/// The kernel's, when it gives no threads.
pub(crate) fn service(name: &'static str, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
    spawn(name, move || supervise(name, &mut work))
}

fn supervise(name: &str, work: &mut dyn FnMut()) {
    let mut backoff = Backoff::new(FIRST_RESTART, LONGEST_RESTART);
    loop {
        let start = Instant::now();
        let run = || {
            panic_if_asked(name);
            work();
        };
        if panic::catch_unwind(AssertUnwindSafe(run)).is_ok() {
            return;
        }
        if start.elapsed() > RECOVERED {
            backoff.success();
        }
        let wait = backoff.after_failure(0.0);
        log::error!("the thread {name} panicked; it restarts in {} s. Please report its log", wait.as_secs());
        thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn threads_that_stay_do_more_than_there_are_of_them_and_survive_a_panic() {
        let pool = ThreadPool::start("test", 64 * 1024, 2).unwrap();
        let (sender, done) = mpsc::channel();
        for number in 0..20 {
            let sender = sender.clone();
            pool.submit(move || {
                assert!(number % 5 != 0, "expected by this test");
                sender.send(number).unwrap();
            });
        }
        drop(sender);
        assert_eq!(done.iter().count(), 16);
        let (sender, done) = mpsc::channel();
        pool.submit(move || sender.send(()).unwrap());
        done.recv().unwrap();
    }

    #[test]
    fn what_waited_for_a_thread_gets_one_as_soon_as_there_are_some_again() {
        const WAITING: usize = 5;
        let pool = ThreadPool::start("test", 64 * 1024, 0).unwrap();
        let together = Arc::new(std::sync::Barrier::new(WAITING + 1));
        let (sender, done) = mpsc::channel();
        let work = || {
            let (together, sender) = (Arc::clone(&together), sender.clone());
            move || {
                together.wait();
                sender.send(()).unwrap();
            }
        };
        {
            let mut queue = pool.lock();
            (0..WAITING).for_each(|_| queue.work.push_back(Box::new(work())));
            queue.short = true;
        }
        assert!(pool.submit(work()));
        (0..=WAITING).for_each(|_| done.recv_timeout(Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn a_service_that_panics_starts_again_until_it_returns() {
        let runs = Arc::new(AtomicUsize::new(0));
        let (sender, done) = mpsc::channel();
        let count = Arc::clone(&runs);
        let work = move || {
            assert!(count.fetch_add(1, Ordering::SeqCst) > 0, "expected by this test");
            sender.send(()).unwrap();
        };
        service("test", work).unwrap();
        done.recv().unwrap();
        // It has returned, and its sender is gone with it.
        assert!(done.recv().is_err());
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
}
