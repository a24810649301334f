//! The process's limits, clocks and names, from the kernel.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Enough: each connection uses one descriptor.
const WANTED_FILES: u64 = 4096;

/// cgroup v1 shows "no limit" as a number larger than this.
const NO_LIMIT: u64 = 1 << 50;

/// Raises the limit of open files as far as allowed and useful; returns the new limit.
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

/// The memory limit of this process's cgroup in bytes. None: no limit, or unknown.
pub(crate) fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // `0::/path` is v2, `5:memory:/path` v1. In a container the path may be the host's, with the group itself mounted at
    // the root.
    let files = groups.lines().flat_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        ["0", "", path] => vec![format!("/sys/fs/cgroup{path}/memory.max"), "/sys/fs/cgroup/memory.max".into()],
        [_, "memory", path] => {
            let root = "/sys/fs/cgroup/memory";
            vec![format!("{root}{path}/memory.limit_in_bytes"), format!("{root}/memory.limit_in_bytes")]
        }
        _ => Vec::new(),
    });
    let limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min().filter(|bytes| *bytes < NO_LIMIT)
}

/// Columns of the terminal on stderr; None: not a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The machine's name: HOSTNAME (set by Docker), else the kernel's.
pub(crate) fn host_name() -> String {
    let set = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    set.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The time since boot, including sleep: this clock is never set.
pub(crate) fn boot_clock() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Whole Unix seconds.
pub(crate) fn unix_seconds() -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "seconds are far below the limit")]
    let seconds = unix_now() as i64;
    seconds
}

/// Unix seconds; 0 if the clock shows a time before 1970.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
