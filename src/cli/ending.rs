//! The end of a worker's connections: those of one that leaves, and those of one whose port stays open for the next one.

use std::thread;
use std::time::{Duration, Instant};

use crate::http::Port;
use crate::sys::text::counted;

/// Requests that have begun get this long after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a connection that is kept open may still bring a job.
const LAST_JOBS: Duration = Duration::from_secs(3);
/// How long a connection that was just accepted may take to bring its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);
/// How long the rest of a request may take that has come in part.
const REST: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Waits for the requests in flight.
pub(super) fn drain(port: &Port) {
    finish(port, Instant::now() + DRAIN);
}

/// Leaves the port to the next worker, and loses no job. Go's client does not send a POST a second time when its
/// connection is closed under it. So jobs are accepted until all kept connections have had an answer that announces the
/// close. What comes after that waits in the kernel for the next worker, who may start only after the end of this one: a
/// client that has sent half a request, or does not read, delays it no longer than others.
pub(super) fn hand_over(port: &Port) {
    let end = Instant::now() + DRAIN;
    port.end_connections();
    wait(Instant::now() + LAST_JOBS, || port.has_ended());
    port.stop_accepting();
    wait(Instant::now() + FIRST_REQUEST, || port.is_quiet());
    if !wait(Instant::now() + REST, || port.active() == 0) {
        port.stop_reading();
    }
    finish(port, end);
}

fn finish(port: &Port, end: Instant) {
    if !wait(end, || port.active() == 0) {
        log::warn!("{} did not finish within {} s", counted(port.active(), "request"), DRAIN.as_secs());
    }
}

/// Waits until `is` is true; false: it was not by `end`.
fn wait(end: Instant, is: impl Fn() -> bool) -> bool {
    while !is() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}
