//! One GPU as the report shows it: operators' units, null for what is not known.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contract::MIB;
use super::gpu::{Gpu, RemappedRows, RetiredPages};
use super::verdict::{self, Reason, Verdict};
use super::xid::{self, Xid};

#[derive(Debug, Serialize)]
pub(crate) struct GpuRow<'a> {
    index: u32,
    uuid: Option<&'a str>,
    name: Option<&'a str>,
    pci_bus_id: Option<&'a str>,
    verdict: Verdict,
    unified_memory: bool,
    vram_total_mb: Option<u64>,
    vram_used_mb: Option<u64>,
    vram_free_mb: Option<u64>,
    vram_reserved_mb: Option<u64>,
    temperature_c: Option<u32>,
    temperature_slowdown_c: Option<u32>,
    temperature_shutdown_c: Option<u32>,
    temperature_max_c: Option<u32>,
    temperature_margin_c: Option<i32>,
    memory_temperature_c: Option<u32>,
    memory_temperature_max_c: Option<u32>,
    power_w: Option<f64>,
    power_limit_w: Option<f64>,
    power_limit_default_w: Option<f64>,
    power_alarm: Option<bool>,
    energy_j: Option<u64>,
    utilization_percent: Option<u32>,
    memory_utilization_percent: Option<u32>,
    graphics_clock_mhz: Option<u32>,
    graphics_clock_max_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    memory_clock_max_mhz: Option<u32>,
    performance_state: Option<u32>,
    throttle_reasons: Option<Vec<&'static str>>,
    throttle_seconds: Option<BTreeMap<&'a str, f64>>,
    recovery_action: Option<u32>,
    fan_percent: Option<&'a [u32]>,
    pcie_generation: Option<u32>,
    pcie_generation_max: Option<u32>,
    pcie_width: Option<u32>,
    pcie_width_max: Option<u32>,
    pcie_replays: Option<u32>,
    nvlinks_active: Option<u32>,
    ecc_enabled: Option<bool>,
    ecc_uncorrected_volatile: Option<u64>,
    ecc_uncorrected_aggregate: Option<u64>,
    remapped_rows: Option<RemappedRows>,
    retired_pages: Option<RetiredPages>,
    inforom_corrupt: Option<bool>,
    vbios_version: Option<&'a str>,
    compute_capability: Option<String>,
    persistence_mode: Option<bool>,
    mig_mode: Option<bool>,
    processes: Option<Vec<ProcessRow>>,
    /// Errors that the driver reported since the machine started, as far as anybody can know.
    xids: Vec<XidRow>,
    unsupported: Vec<&'a str>,
    failed: BTreeMap<&'a str, &'a str>,
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ProcessRow {
    pid: u32,
    vram_mb: Option<u64>,
}

#[derive(Debug, Serialize)]
struct XidRow {
    xid: u32,
    meaning: &'static str,
    count: u64,
    last: f64,
}

impl<'a> GpuRow<'a> {
    /// `xids` are those of the whole machine.
    pub(crate) fn new(gpu: &'a Gpu, reasons: &[Reason], xids: &[Xid]) -> Self {
        let mib = |bytes: u64| bytes / MIB;
        let (slow, fixed) = (&gpu.slow, &gpu.fixed);
        let process = |p: &super::gpu::Process| ProcessRow { pid: p.pid, vram_mb: p.vram_bytes.map(mib) };
        let throttled: BTreeMap<_, _> =
            gpu.throttle_ns.iter().map(|(name, ns)| (name.as_str(), *ns as f64 / 1e9)).collect();
        let own_xids = xids.iter().filter(|x| gpu.pci().is_some_and(|pci| pci == x.pci));
        Self {
            index: gpu.index,
            uuid: gpu.uuid.as_deref(),
            name: gpu.name.as_deref(),
            pci_bus_id: gpu.pci_bus_id.as_deref(),
            verdict: verdict::of_gpu(gpu, reasons),
            unified_memory: gpu.unified_memory,
            vram_total_mb: gpu.vram_total_bytes.map(mib),
            vram_used_mb: gpu.vram_used_bytes.map(mib),
            vram_free_mb: gpu.vram_free_bytes.map(mib),
            vram_reserved_mb: gpu.vram_reserved_bytes.map(mib),
            temperature_c: gpu.temperature_c,
            temperature_slowdown_c: fixed.temperature_slowdown_c,
            temperature_shutdown_c: fixed.temperature_shutdown_c,
            temperature_max_c: fixed.temperature_max_c,
            temperature_margin_c: gpu.temperature_margin_c,
            memory_temperature_c: gpu.memory_temperature_c,
            memory_temperature_max_c: fixed.memory_temperature_max_c,
            power_w: gpu.power_mw.map(watts),
            power_limit_w: gpu.power_limit_mw.map(watts),
            power_limit_default_w: fixed.power_limit_default_mw.map(watts),
            power_alarm: gpu.power_alarm,
            energy_j: gpu.energy_mj.map(|mj| mj / 1000),
            utilization_percent: gpu.utilization_percent,
            memory_utilization_percent: gpu.memory_utilization_percent,
            graphics_clock_mhz: gpu.graphics_clock_mhz,
            graphics_clock_max_mhz: fixed.graphics_clock_max_mhz,
            memory_clock_mhz: gpu.memory_clock_mhz,
            memory_clock_max_mhz: fixed.memory_clock_max_mhz,
            performance_state: gpu.performance_state,
            throttle_reasons: gpu.throttles(),
            throttle_seconds: Some(throttled).filter(|all| !all.is_empty()),
            recovery_action: gpu.recovery_action,
            fan_percent: slow.fan_percent.as_deref(),
            pcie_generation: slow.pcie_generation,
            pcie_generation_max: fixed.pcie_generation_max,
            pcie_width: slow.pcie_width,
            pcie_width_max: fixed.pcie_width_max,
            pcie_replays: slow.pcie_replays,
            nvlinks_active: slow.nvlinks_active,
            ecc_enabled: slow.ecc_enabled,
            ecc_uncorrected_volatile: slow.ecc_uncorrected_volatile,
            ecc_uncorrected_aggregate: slow.ecc_uncorrected_aggregate,
            remapped_rows: gpu.remapped_rows,
            retired_pages: slow.retired_pages,
            inforom_corrupt: fixed.inforom_corrupt,
            vbios_version: fixed.vbios_version.as_deref(),
            compute_capability: fixed.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
            persistence_mode: slow.persistence_mode,
            mig_mode: slow.mig_mode,
            processes: slow.processes.as_ref().map(|all| all.iter().map(process).collect()),
            xids: own_xids
                .map(|x| XidRow { xid: x.number, meaning: xid::meaning(x.number), count: x.count, last: x.last })
                .collect(),
            unsupported: gpu.unsupported().collect(),
            failed: gpu.failed().collect(),
            error: gpu.error.as_ref().map(|e| e.message.as_str()),
        }
    }
}

/// Watts with one decimal.
fn watts(milliwatts: u32) -> f64 {
    (f64::from(milliwatts) / 100.0).round() / 10.0
}
