//! Says on stderr what a command waits for, if that takes long.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::sys::threads;

/// A wait that is longer than this is explained.
const SILENT: Duration = Duration::from_secs(2);

/// True: it was said, and once is enough.
#[derive(Debug)]
pub(super) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    pub(super) fn new(may_say: bool) -> Self {
        Self(Arc::new(AtomicBool::new(!may_say)))
    }

    /// Until it is dropped.
    pub(super) fn begin(&self, what: &str, timeout: Duration) -> Sender<()> {
        let (over, is_over) = mpsc::channel();
        let line = format!("waiting for {what} (up to {} s) ...", timeout.as_secs_f64());
        let said = Arc::clone(&self.0);
        // Without the thread the wait is silent.
        let _ = threads::spawn("waiting", move || {
            let long = is_over.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout);
            if long && !said.swap(true, Ordering::Relaxed) {
                // A closed stderr does not stop it.
                let _ = writeln!(io::stderr(), "{line}");
            }
        });
        over
    }
}
