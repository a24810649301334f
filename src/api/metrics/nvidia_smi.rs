//! The names of nvidia_gpu_exporter, for those who have its dashboards (Grafana 14574 and 25547).

use std::collections::BTreeSet;

use super::{PerGpu, count, distinct, family, flag, number, share};
use crate::gpu::sample::{Gpu, HW_POWER_BRAKE, HW_THERMAL};
use crate::gpu::xid::Xid;
use crate::health::snapshot::Snapshot;
use crate::sys::exposition::{Exposition, Kind};

const PER_GPU: &[PerGpu] = &[
    ("nvidia_smi_utilization_gpu_ratio", "GPU utilisation.", |g| share(g.utilization_percent)),
    ("nvidia_smi_utilization_memory_ratio", "Memory utilisation.", |g| share(g.memory_utilization_percent)),
    ("nvidia_smi_memory_used_bytes", "Memory in use.", |g| count(g.vram_used_bytes)),
    ("nvidia_smi_memory_total_bytes", "Memory of the GPU.", |g| count(g.vram_total_bytes)),
    ("nvidia_smi_memory_free_bytes", "Memory that can be had.", |g| count(g.vram_free_bytes)),
    ("nvidia_smi_temperature_gpu", "Temperature in degrees Celsius.", |g| number(g.temperature_c)),
    ("nvidia_smi_power_draw_watts", "Power draw.", |g| g.power_mw.map(|mw| f64::from(mw) / 1000.0)),
    ("nvidia_smi_enforced_power_limit_watts", "Power limit in force.", |g| {
        g.power_limit_mw.map(|mw| f64::from(mw) / 1000.0)
    }),
    ("nvidia_smi_fan_speed_ratio", "Speed of the first fan.", |g| {
        share(g.slow.fan_percent.as_ref().and_then(|fans| fans.first().copied()))
    }),
    ("nvidia_smi_pstate", "Performance state.", |g| number(g.performance_state)),
    ("nvidia_smi_clocks_current_graphics_clock_hz", "Graphics clock.", |g| {
        g.graphics_clock_mhz.map(|mhz| f64::from(mhz) * 1e6)
    }),
    ("nvidia_smi_clocks_current_memory_clock_hz", "Memory clock.", |g| {
        g.memory_clock_mhz.map(|mhz| f64::from(mhz) * 1e6)
    }),
    ("nvidia_smi_clocks_event_reasons_hw_thermal_slowdown", "Held down by heat.", |g| {
        g.throttle_bits.and_then(|bits| flag(bits & HW_THERMAL != 0))
    }),
    ("nvidia_smi_clocks_event_reasons_hw_power_brake_slowdown", "Held down by the power supply.", |g| {
        g.throttle_bits.and_then(|bits| flag(bits & HW_POWER_BRAKE != 0))
    }),
    ("nvidia_smi_gpu_recovery_action", "What the driver asks for.", |g| number(g.recovery_action)),
];

/// Writes the names that those dashboards use.
pub(crate) fn write(out: &mut Exposition, snapshot: &Snapshot) {
    // That exporter writes UUIDs without their beginning. A lying driver's may be the same then.
    let short = |uuid: &str| uuid.to_lowercase().trim_start_matches("gpu-").to_owned();
    let mut seen = BTreeSet::new();
    let all = distinct(snapshot).into_iter().map(|(gpu, uuid)| (gpu, short(&uuid)));
    let gpus: Vec<(&Gpu, String)> = all.filter(|(_, uuid)| seen.insert(uuid.clone())).collect();
    info(out, snapshot, &gpus);
    for (name, help, read) in PER_GPU {
        let samples = gpus.iter().map(|(gpu, uuid)| (vec![("uuid", uuid.as_str())], read(gpu)));
        family(out, name, Kind::Gauge, help, samples);
    }
    let energy = gpus.iter().map(|(g, uuid)| (vec![("uuid", uuid.as_str())], g.energy_mj.map(|mj| mj as f64 / 1e3)));
    family(out, "nvidia_smi_energy_joules_total", Kind::Counter, "Energy used since the driver was loaded.", energy);
    xids(out, snapshot, &gpus);
}

fn info(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let driver = snapshot.gpu.sample().and_then(|s| s.driver_version.as_deref()).unwrap_or_default();
    let indices: Vec<String> = gpus.iter().map(|(gpu, _)| gpu.index.to_string()).collect();
    let rows = gpus.iter().zip(&indices).map(|((gpu, uuid), index)| {
        let labels = vec![
            ("uuid", uuid.as_str()),
            ("name", gpu.name.as_deref().unwrap_or_default()),
            ("driver_version", driver),
            ("pci_bus_id", gpu.pci_bus_id.as_deref().unwrap_or_default()),
            ("index", index.as_str()),
        ];
        (labels, Some(1.0))
    });
    family(out, "nvidia_smi_gpu_info", Kind::Info, "Identity of each GPU.", rows);
}

fn xids(out: &mut Exposition, snapshot: &Snapshot, gpus: &[(&Gpu, String)]) {
    let xids: Vec<(String, String, &Xid)> = snapshot
        .xids
        .iter()
        .filter_map(|xid| {
            let (_, uuid) = gpus.iter().find(|(gpu, _)| gpu.pci() == Some(xid.pci))?;
            Some((uuid.clone(), xid.number.to_string(), xid))
        })
        .collect();
    let rows = |read: fn(&Xid) -> f64| {
        xids.iter().map(move |(uuid, n, xid)| (vec![("uuid", uuid.as_str()), ("xid", n.as_str())], Some(read(xid))))
    };
    family(
        out,
        "nvidia_smi_xid_errors_total",
        Kind::Counter,
        "Errors that the driver reported.",
        rows(|x| x.count as f64),
    );
    family(out, "nvidia_smi_xid_last_timestamp_seconds", Kind::Gauge, "Unix time of the last one.", rows(|x| x.last));
}
