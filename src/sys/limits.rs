//! The process's own limits and names, asked of the kernel.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// More are never needed: every connection is one descriptor.
const WANTED_FILES: u64 = 4096;

/// Version 1 of control groups has no word for "no limit".
const NO_LIMIT: u64 = 1 << 50;

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

/// Bytes that this process and its children may have, by their control group. None: no limit, or nobody says.
pub(crate) fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // `0::/path` is version 2, `5:memory:/path` version 1. In a container the path may be the host's, and the group
    // itself is mounted at the root.
    let files = groups.lines().flat_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        ["0", "", path] => vec![format!("/sys/fs/cgroup{path}/memory.max"), "/sys/fs/cgroup/memory.max".into()],
        [_, "memory", path] => {
            let root = "/sys/fs/cgroup/memory";
            vec![format!("{root}{path}/memory.limit_in_bytes"), format!("{root}/memory.limit_in_bytes")]
        }
        _ => Vec::new(),
    });
    let limits = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    // Without a limit there is the word `max`, or a number that no machine has.
    limits.min().filter(|bytes| *bytes < NO_LIMIT)
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
