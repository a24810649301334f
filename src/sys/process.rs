//! This process's memory, CPU time and open files, from the kernel.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Unknown values are None.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProcessStats {
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) open_files: Option<f64>,
}

/// Clock ticks per second in /proc, the same on every Linux.
const TICKS: f64 = 100.0;

/// Counting hundreds of descriptors is slow: not for each request.
const LASTS: Duration = Duration::from_secs(1);

/// The last reading, at most a second old.
pub(crate) fn stats() -> ProcessStats {
    static LAST: Mutex<Option<(Instant, ProcessStats)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((at, stats)) if at.elapsed() < LASTS => *stats,
        _ => last.insert((Instant::now(), read())).1,
    }
}

fn read() -> ProcessStats {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<f64> = resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in field 2 may contain spaces and parentheses; utime and stime are fields 14 and 15.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    ProcessStats {
        resident_bytes: kib.map(|kib| kib * 1024.0),
        cpu_seconds: ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS),
        // One is the directory being read.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64),
    }
}

#[test]
fn it_knows_itself() {
    let stats = stats();
    assert!(stats.resident_bytes.is_some_and(|b| b > 1e5) && stats.open_files.is_some_and(|n| n >= 3.0), "{stats:?}");
    assert!(stats.cpu_seconds.is_some_and(|s| s < 1e6), "{stats:?}");
}
