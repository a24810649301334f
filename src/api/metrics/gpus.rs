//! The GPUs: who they are, how they are, their readings, errors and uptime.

use std::collections::BTreeSet;

use super::mig;
use crate::gpu::holders::holders;
use crate::gpu::readings::{self, Gpu};
use crate::gpu::sample::GpuSample;
use crate::gpu::value::{Process, Unit};
use crate::gpu::xid::Xid;
use crate::health::snapshot::Snapshot;
use crate::health::uptime::WINDOWS;
use crate::health::verdict::{self, Verdict};
use crate::sys::exposition::{Exposition, counter, flag, gauge, info, metrics};
use crate::sys::order;

metrics! {
    INFO = info(
        "agent_net_gpu_info",
        &["uuid", "vendor", "index", "name", "pci_bus_id", "driver_version", "cuda_version", "unified_memory"],
        "Identity of the GPU."
    );
    ASLEEP = gauge("agent_net_gpu_asleep", &["uuid"], "1 while the GPU sleeps and is not read.");
    RESETS = counter(
        "agent_net_gpu_resets_total", &["uuid"], "Resets of an AMD GPU by its driver, as the kernel's log reports them."
    );
    HEALTH = gauge("agent_net_gpu_health", &["uuid", "verdict"], "1 for the current verdict of the GPU.");
    REASON =
        gauge("agent_net_gpu_health_reason", &["uuid", "code"], "Present while a reason about the GPU is active.");
    PROCESS_MEMORY = gauge(
        "agent_net_gpu_process_memory_bytes", &["uuid", "pid", "name"],
        "Memory of each compute process, where the driver reports it; the name is empty without the host's /proc."
    );
    PROCESS_USE = gauge(
        "agent_net_gpu_process_utilization_ratio", &["uuid", "pid", "name"],
        "Share of the GPU's compute units that each process used, a mean since the last slow readings."
    );
    XID_ERRORS = counter("agent_net_gpu_xid_errors_total", &["uuid", "xid"], "XID errors by number.");
    // A timestamp, because the first event of a new series is invisible to increase().
    XID_LAST = gauge(
        "agent_net_gpu_xid_last_timestamp_seconds", &["uuid", "xid"],
        "Unix time of the last XID error with this number; alert on this metric."
    );
    UPTIME = gauge("agent_net_gpu_uptime_ratio", &["window"], "Share of recorded time in which the GPUs were up.");
    COVERAGE = gauge(
        "agent_net_gpu_uptime_coverage_ratio", &["window"],
        "Share of the time since the first record in which the state was known."
    );
}

/// The GPUs with the names that their series have. Two GPUs with one name would make a series twice: only the first counts.
pub(super) fn distinct(snapshot: &Snapshot) -> Vec<(&Gpu, String)> {
    let mut seen = BTreeSet::new();
    let all = snapshot.gpu.gpus().iter().map(|gpu| (gpu, gpu.id()));
    all.filter(|(_, id)| seen.insert(id.clone())).collect()
}

pub(super) fn write(out: &mut Exposition, snapshot: &Snapshot) {
    let gpus = distinct(snapshot);
    identity(out, snapshot, &gpus);
    verdicts(out, snapshot, &gpus);
    for (family, series) in readings::families() {
        let samples = gpus.iter().flat_map(|(gpu, uuid)| {
            let all = series.iter().flat_map(|(reading, metric)| metric.samples(reading, gpu));
            all.map(move |(labels, value)| (uuid, labels, value))
        });
        let samples: Vec<_> = samples.collect();
        out.samples(
            &family,
            samples.iter().map(|(uuid, labels, value)| {
                ([uuid.as_str()].into_iter().chain(labels.iter().map(AsRef::as_ref)).collect(), Some(*value))
            }),
        );
    }
    mig::write(out, &gpus);
    processes(out, &gpus);
    errors(out, snapshot, &gpus);
    uptime(out, snapshot);
}

fn identity(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let sample = snapshot.gpu.sample();
    // With GPUs of both vendors the sample has the versions of NVIDIA's driver.
    let foreign = |gpu: &Gpu| gpu.vendor.is_amd() && sample.is_some_and(GpuSample::is_of_nvml);
    let driver = sample.and_then(|s| s.driver_version.as_deref()).unwrap_or_default();
    let cuda = sample.and_then(|s| s.cuda_version.as_deref()).unwrap_or_default();
    let indices: Vec<String> = gpus.iter().map(|(gpu, _)| gpu.index.to_string()).collect();
    let rows = gpus.iter().zip(&indices).map(|((gpu, uuid), index)| {
        let labels = vec![
            uuid.as_str(),
            gpu.vendor.name(),
            index.as_str(),
            gpu.name.as_deref().unwrap_or_default(),
            gpu.pci_bus_id.as_deref().unwrap_or_default(),
            if foreign(gpu) { "" } else { driver },
            if foreign(gpu) { "" } else { cuda },
            if gpu.unified_memory { "true" } else { "false" },
        ];
        (labels, Some(1.0))
    });
    out.samples(&INFO, rows);
    let usable = gpus.iter().filter(|(gpu, _)| gpu.usable());
    out.samples(&ASLEEP, usable.map(|(gpu, uuid)| (vec![uuid.as_str()], Some(flag(gpu.asleep)))));
    let resets = |gpu: &Gpu| snapshot.resets.iter().find(|(pci, _)| gpu.pci() == Some(*pci)).map(|(_, n)| *n as f64);
    let of_amd = gpus.iter().filter(|(gpu, _)| gpu.vendor.is_amd());
    out.samples(&RESETS, of_amd.map(|(gpu, uuid)| (vec![uuid.as_str()], resets(gpu))));
}

fn verdicts(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let verdicts: Vec<Verdict> = gpus.iter().map(|(gpu, _)| verdict::of_gpu(gpu, &snapshot.reasons)).collect();
    let rows = gpus.iter().zip(&verdicts).flat_map(|((_, uuid), now)| {
        Verdict::ALL.map(|verdict| (vec![uuid.as_str(), verdict.name()], Some(flag(*now == verdict))))
    });
    out.samples(&HEALTH, rows);
    let reasons = snapshot.reasons.iter().filter_map(|r| Some((r.gpu.as_deref()?, r.code.name())));
    let mut reasons: Vec<(&str, &str)> = reasons.collect();
    order::sort(&mut reasons);
    reasons.dedup();
    out.samples(&REASON, reasons.iter().map(|(uuid, code)| (vec![*uuid, *code], Some(1.0))));
}

/// A process has one series on each GPU, however often the driver lists it.
fn processes(out: &mut Exposition, gpus: &[(&Gpu, String)]) {
    let all = gpus.iter().flat_map(|(gpu, uuid)| holders([*gpu]).into_iter().map(move |holder| (uuid, holder)));
    let rows: Vec<_> = all.map(|(uuid, holder)| (uuid, holder.pid.to_string(), holder)).collect();
    out.samples(
        &PROCESS_MEMORY,
        rows.iter().map(|(uuid, pid, holder)| {
            (vec![uuid.as_str(), pid.as_str(), holder.name.unwrap_or_default()], Some(holder.bytes as f64))
        }),
    );
    let mut rows: Vec<(&str, String, &Process)> = Vec::new();
    for (gpu, uuid) in gpus {
        for process in gpu.processes.iter().flatten() {
            if !rows.iter().any(|(gpu, _, listed)| gpu == uuid && listed.pid == process.pid) {
                rows.push((uuid, process.pid.to_string(), process));
            }
        }
    }
    out.samples(
        &PROCESS_USE,
        rows.iter().map(|(uuid, pid, process)| {
            let labels = vec![*uuid, pid.as_str(), process.name.as_deref().unwrap_or_default()];
            (labels, process.utilization_percent.map(|percent| Unit::Percent.exposed(percent.into())))
        }),
    );
}

fn errors(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let uuid = |xid: &Xid| {
        let known = gpus.iter().find(|(gpu, _)| gpu.pci() == Some(xid.pci));
        known.map_or_else(|| format!("pci-{}", xid.pci), |(_, uuid)| uuid.clone())
    };
    let rows: Vec<(String, String, &Xid)> =
        snapshot.xids.iter().map(|xid| (uuid(xid), xid.number.to_string(), xid)).collect();
    let count = |xid: &Xid| xid.count as f64;
    out.samples(&XID_ERRORS, rows.iter().map(|(uuid, n, xid)| (vec![uuid.as_str(), n.as_str()], Some(count(xid)))));
    out.samples(&XID_LAST, rows.iter().map(|(uuid, n, xid)| (vec![uuid.as_str(), n.as_str()], Some(xid.last))));
}

fn uptime(out: &mut Exposition, snapshot: &Snapshot) {
    let rows = || WINDOWS.iter().zip(&snapshot.uptime);
    let ratio = |percent: Option<f64>| percent.map(|p| p / 100.0);
    out.samples(&UPTIME, rows().map(|((name, _), w)| (vec![*name], ratio(w.percent()))));
    out.samples(&COVERAGE, rows().map(|((name, _), w)| (vec![*name], ratio(w.coverage()))));
}
