//! The worker itself: its version, its verdict, how it reads the GPUs, and what its process uses.

use crate::config::limits::Limits;
use crate::health::snapshot::Snapshot;
use crate::health::verdict::{self, Reason, Verdict};
use crate::sys::exposition::{Exposition, counter, flag, gauge, info, metrics};
use crate::sys::order;
use crate::sys::process::ProcessStats;
use crate::sys::version;

metrics! {
    BUILD_INFO =
        info("agent_net_build_info", &["version", "commit", "source"], "Version of the worker and source of its readings.");
    UP = gauge("agent_net_up", &[], "1 while the GPUs can be read.");
    GPUS = gauge("agent_net_gpus", &[], "Usable GPUs.");
    GPUS_EXPECTED = gauge("agent_net_gpus_expected", &[], "GPUs that the operator expects (EXPECTED_GPUS).");
    NODE_HEALTH = gauge("agent_net_node_health", &["verdict"], "1 for the current verdict.");
    NODE_REASON =
        gauge("agent_net_node_health_reason", &["code"], "Present while a reason about the machine is active.");
    DURATION = gauge("agent_net_collect_duration_seconds", &[], "Duration of the last sample.");
    CALL_SECONDS = gauge(
        "agent_net_collect_call_seconds", &["call"],
        "Duration of each driver call in the last sample, summed over the GPUs."
    );
    LAST_SUCCESS = gauge(
        "agent_net_collect_last_success_timestamp_seconds", &[], "Unix time of the last successful sample."
    );
    FAILURES = counter("agent_net_collect_failures_total", &["code"], "Failed samples by reason code.");
    REINITS = counter("agent_net_nvml_reinits_total", &[], "Restarts of NVML.");
    LOG_LINES_DROPPED = counter(
        "agent_net_log_lines_dropped_total", &[], "Log lines that were not read in time or could not be written."
    );
    RESIDENT_MEMORY = gauge("process_resident_memory_bytes", &[], "Resident memory.");
    CPU_SECONDS = counter("process_cpu_seconds_total", &[], "CPU time used.");
    OPEN_FILES = gauge("process_open_fds", &[], "Open file descriptors.");
    START_TIME = gauge("process_start_time_seconds", &[], "Unix time of the start.");
}

/// What is exposed before the first sample.
pub(crate) fn nothing_yet(open: bool) -> String {
    let mut out = Exposition::new(open);
    build_info(&mut out, "none");
    out.single(&UP, Some(0.0));
    out.into_text()
}

fn build_info(out: &mut Exposition, source: &str) {
    out.family(&BUILD_INFO);
    out.sample(&[version::VERSION, version::COMMIT.unwrap_or_default(), source], Some(1.0));
}

/// How reading the GPUs goes.
pub(super) fn readings(out: &mut Exposition, snapshot: &Snapshot, limits: &Limits) {
    let sample = snapshot.gpu.sample();
    build_info(out, &snapshot.source());
    out.single(&UP, Some(flag(sample.is_some())));
    out.single(&GPUS, Some(snapshot.gpu_count() as f64));
    out.single(&GPUS_EXPECTED, limits.expected_gpus.map(f64::from));
    out.single(&DURATION, sample.map(|s| s.read_us as f64 / 1e6));
    let calls = sample.map(|s| &s.call_us).into_iter().flatten();
    out.samples(&CALL_SECONDS, calls.map(|(call, us)| (vec![call.as_str()], Some(*us as f64 / 1e6))));
    let counts = &snapshot.counts;
    out.single(&LAST_SUCCESS, counts.last_success);
    out.samples(&FAILURES, counts.failures.iter().map(|(code, n)| (vec![*code], Some(*n as f64))));
    out.single(&REINITS, Some(counts.reinits as f64));
}

/// The machine's verdict. `stale`: the reason of a snapshot that is too old by now.
pub(crate) fn health(out: &mut Exposition, snapshot: &Snapshot, stale: Option<&Reason>) {
    let reasons: Vec<&Reason> = stale.into_iter().chain(&snapshot.reasons).collect();
    let now = verdict::worst(reasons.iter().copied());
    out.family(&NODE_HEALTH);
    for verdict in Verdict::ALL {
        out.sample(&[verdict.name()], Some(flag(now == verdict)));
    }
    let codes = order::set(reasons.iter().filter(|r| r.gpu.is_none()).map(|r| r.code.name()));
    out.samples(&NODE_REASON, codes.iter().map(|code| (vec![*code], Some(1.0))));
}

/// The process's own numbers, under the names that all exporters use. `started`: Unix seconds. `dropped`: lines of the log.
pub(crate) fn process(out: &mut Exposition, stats: &ProcessStats, started: f64, dropped: u64) {
    out.single(&LOG_LINES_DROPPED, Some(dropped as f64));
    out.single(&RESIDENT_MEMORY, stats.resident_bytes);
    out.single(&CPU_SECONDS, stats.cpu_seconds);
    out.single(&OPEN_FILES, stats.open_files);
    out.single(&START_TIME, Some(started));
}
