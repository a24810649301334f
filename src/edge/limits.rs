//! The process's own limits and names, asked of the kernel.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// More are never needed: every connection is one descriptor.
const WANTED_FILES: u64 = 4096;

/// Raises the number of open files as far as it is allowed and useful; returns what holds then.
pub(crate) fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    if before >= WANTED_FILES {
        return before;
    }
    let wanted = WANTED_FILES.min(limit.maximum.unwrap_or(u64::MAX));
    limit.current = Some(wanted);
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => wanted,
        Err(_) => before,
    }
}

/// Columns of the terminal that stderr is; None: it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The machine's name: HOSTNAME, which Docker sets, else what the kernel says.
pub(crate) fn host_name() -> String {
    let set = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    set.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The time since the machine started, sleep included: no clock that anybody sets.
pub(crate) fn boot_clock() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Unix seconds; 0 on a clock before 1970.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
