//! The process's own numbers, under the names that all exporters use.

use crate::sys::exposition::{Exposition, Kind};
use crate::sys::process::ProcessStats;

/// `started`: Unix seconds.
pub(crate) fn write(out: &mut Exposition, stats: &ProcessStats, started: f64) {
    out.single("process_resident_memory_bytes", Kind::Gauge, "Resident memory.", stats.resident_bytes);
    out.single("process_cpu_seconds_total", Kind::Counter, "CPU time used.", stats.cpu_seconds);
    out.single("process_open_fds", Kind::Gauge, "Open file descriptors.", stats.open_files);
    out.single("process_start_time_seconds", Kind::Gauge, "Unix time of the start.", Some(started));
}
