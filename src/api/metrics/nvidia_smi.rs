//! The names of nvidia_gpu_exporter, for those who have its dashboards (Grafana 14574 and 25547).

use std::collections::BTreeSet;

use super::gpus::distinct;
use super::mig;
use crate::gpu::sample::{Gpu, HW_POWER_BRAKE, HW_THERMAL};
use crate::gpu::xid::Xid;
use crate::health::snapshot::Snapshot;
use crate::sys::exposition::{Exposition, Family, counter, flag, gauge, info};

const fn of_gpu(name: &'static str, help: &'static str) -> Family {
    gauge(name, &["uuid"], help)
}

fn number(value: Option<u32>) -> Option<f64> {
    value.map(f64::from)
}

fn count(value: Option<u64>) -> Option<f64> {
    value.map(|n| n as f64)
}

fn share(percent: Option<u32>) -> Option<f64> {
    percent.map(|p| f64::from(p) / 100.0)
}

fn watts(milliwatts: Option<u32>) -> Option<f64> {
    milliwatts.map(|mw| f64::from(mw) / 1000.0)
}

fn hertz(mhz: Option<u32>) -> Option<f64> {
    mhz.map(|mhz| f64::from(mhz) * 1e6)
}

/// A family, and its value of a GPU.
type PerGpu = (Family, fn(&Gpu) -> Option<f64>);

const PER_GPU: &[PerGpu] = &[
    (of_gpu("nvidia_smi_utilization_gpu_ratio", "GPU utilization."), |g| share(g.utilization_percent)),
    (of_gpu("nvidia_smi_utilization_memory_ratio", "Memory utilization."), |g| share(g.memory_utilization_percent)),
    (of_gpu("nvidia_smi_memory_used_bytes", "Memory in use."), |g| count(g.vram_used_bytes)),
    (of_gpu("nvidia_smi_memory_total_bytes", "Memory of the GPU."), |g| count(g.vram_total_bytes)),
    (of_gpu("nvidia_smi_memory_free_bytes", "Free memory."), |g| count(g.vram_free_bytes)),
    (of_gpu("nvidia_smi_temperature_gpu", "Temperature in degrees Celsius."), |g| number(g.temperature_c)),
    (of_gpu("nvidia_smi_power_draw_watts", "Power draw."), |g| watts(g.power_mw)),
    (of_gpu("nvidia_smi_enforced_power_limit_watts", "Power limit in force."), |g| watts(g.power_limit_mw)),
    (of_gpu("nvidia_smi_fan_speed_ratio", "Speed of the first fan."), |g| {
        share(g.fan_percent.as_ref().and_then(|fans| fans.first().copied()))
    }),
    (of_gpu("nvidia_smi_pstate", "Performance state."), |g| number(g.performance_state)),
    (of_gpu("nvidia_smi_clocks_current_graphics_clock_hz", "Graphics clock."), |g| hertz(g.graphics_clock_mhz)),
    (of_gpu("nvidia_smi_clocks_current_memory_clock_hz", "Memory clock."), |g| hertz(g.memory_clock_mhz)),
    (of_gpu("nvidia_smi_clocks_event_reasons_hw_thermal_slowdown", "1 while throttled by heat."), |g| {
        g.throttle_bits.map(|bits| flag(bits & HW_THERMAL != 0))
    }),
    (
        of_gpu("nvidia_smi_clocks_event_reasons_hw_power_brake_slowdown", "1 while throttled by the power supply."),
        |g| g.throttle_bits.map(|bits| flag(bits & HW_POWER_BRAKE != 0)),
    ),
    (of_gpu("nvidia_smi_gpu_recovery_action", "What the driver requests."), |g| number(g.recovery_action)),
    (counter("nvidia_smi_energy_joules_total", &["uuid"], "Energy used since the driver was loaded."), |g| {
        g.energy_mj.map(|mj| mj as f64 / 1000.0)
    }),
];

const INFO: Family =
    info("nvidia_smi_gpu_info", &["uuid", "name", "driver_version", "pci_bus_id", "index"], "Identity of the GPU.");
const XID_ERRORS: Family = counter("nvidia_smi_xid_errors_total", &["uuid", "xid"], "XID errors by number.");
const XID_LAST: Family = gauge(
    "nvidia_smi_xid_last_timestamp_seconds",
    &["uuid", "xid"],
    "Unix time of the last XID error with this number.",
);

/// Writes the names that those dashboards use.
pub(crate) fn write(out: &mut Exposition, snapshot: &Snapshot) {
    // That exporter leaves out the beginning of a UUID. What is left of a faulty driver's may not be unique.
    let short = |uuid: &str| uuid.to_ascii_lowercase().trim_start_matches("gpu-").to_owned();
    let mut seen = BTreeSet::new();
    let all =
        distinct(snapshot).into_iter().filter(|(gpu, _)| !gpu.vendor.is_amd()).map(|(gpu, uuid)| (gpu, short(&uuid)));
    let gpus: Vec<(&Gpu, String)> = all.filter(|(_, uuid)| seen.insert(uuid.clone())).collect();
    identity(out, snapshot, &gpus);
    for (family, read) in PER_GPU {
        out.samples(family, gpus.iter().map(|(gpu, uuid)| (vec![uuid.as_str()], read(gpu))));
    }
    mig::nvidia_smi(out, &gpus);
    xids(out, snapshot, &gpus);
}

fn identity(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let driver = snapshot.gpu.sample().and_then(|s| s.driver_version.as_deref()).unwrap_or_default();
    let indices: Vec<String> = gpus.iter().map(|(gpu, _)| gpu.index.to_string()).collect();
    let rows = gpus.iter().zip(&indices).map(|((gpu, uuid), index)| {
        let labels = vec![
            uuid.as_str(),
            gpu.name.as_deref().unwrap_or_default(),
            driver,
            gpu.pci_bus_id.as_deref().unwrap_or_default(),
            index.as_str(),
        ];
        (labels, Some(1.0))
    });
    out.samples(&INFO, rows);
}

fn xids(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let xids: Vec<(&str, String, &Xid)> = snapshot
        .xids
        .iter()
        .filter_map(|xid| {
            let (_, uuid) = gpus.iter().find(|(gpu, _)| gpu.pci() == Some(xid.pci))?;
            Some((uuid.as_str(), xid.number.to_string(), xid))
        })
        .collect();
    let count = |xid: &Xid| xid.count as f64;
    out.samples(&XID_ERRORS, xids.iter().map(|(uuid, n, xid)| (vec![*uuid, n.as_str()], Some(count(xid)))));
    out.samples(&XID_LAST, xids.iter().map(|(uuid, n, xid)| (vec![*uuid, n.as_str()], Some(xid.last))));
}
