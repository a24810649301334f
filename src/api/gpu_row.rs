//! One GPU as the report shows it: operators' units, null for what is not known.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::gpu::sample::{Gpu, Process, RemappedRows, RetiredPages};
use crate::gpu::xid::{self, Xid};
use crate::health::verdict::{self, Reason, Verdict};
use crate::sys::json::MIB;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Gpu"))]
pub(crate) struct GpuRow<'a> {
    /// Of NVML; the order in which nvidia-smi counts.
    index: u32,
    uuid: Option<&'a str>,
    name: Option<&'a str>,
    pci_bus_id: Option<&'a str>,
    /// The worst of the reasons that name it.
    verdict: Verdict,
    /// Its memory is the machine's (Tegra, GB10).
    unified_memory: bool,
    /// MiB, as all of its memory here.
    vram_total_mb: Option<u64>,
    vram_used_mb: Option<u64>,
    vram_free_mb: Option<u64>,
    /// By the driver itself; neither used nor free.
    vram_reserved_mb: Option<u64>,
    temperature_c: Option<u32>,
    /// At which the hardware slows it down, shuts it down, and up to which it is specified.
    temperature_slowdown_c: Option<u32>,
    temperature_shutdown_c: Option<u32>,
    temperature_max_c: Option<u32>,
    /// Degrees that are left until its thermal limit; below 0 it is slowed down.
    temperature_margin_c: Option<i32>,
    /// The margin at which it is at its specified maximum, and at which it switches itself off: newer GPUs have these
    /// instead of the temperatures.
    temperature_margin_at_max_c: Option<i32>,
    temperature_margin_at_shutdown_c: Option<i32>,
    memory_temperature_c: Option<u32>,
    memory_temperature_max_c: Option<u32>,
    /// Watts.
    power_w: Option<f64>,
    power_limit_w: Option<f64>,
    power_limit_default_w: Option<f64>,
    /// A rail of a Jetson is over its limit.
    power_alarm: Option<bool>,
    /// Joules since the driver was loaded.
    energy_j: Option<u64>,
    utilization_percent: Option<u32>,
    /// Of the time in which memory was read or written.
    memory_utilization_percent: Option<u32>,
    graphics_clock_mhz: Option<u32>,
    graphics_clock_max_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    memory_clock_max_mhz: Option<u32>,
    /// 0 is the fastest, 15 the slowest.
    performance_state: Option<u32>,
    /// What holds its clocks down now: idle, sw_power, hw, hw_thermal, hw_power_brake, sw_thermal.
    throttle_reasons: Option<Vec<&'static str>>,
    /// How long, by reason, since the driver was loaded.
    throttle_seconds: Option<BTreeMap<&'a str, f64>>,
    /// What the driver asks for: 0 nothing, 1 a reset, 2 or 7 a reboot, 3 an end of peer-to-peer traffic, 4 that, and a
    /// reset, 5 a restart of IMEX, 6 a reset of the bus.
    recovery_action: Option<u32>,
    /// One for each fan; of the speed that it is meant to have.
    fan_percent: Option<&'a [u32]>,
    /// Now; low at rest.
    pcie_generation: Option<u32>,
    pcie_generation_max: Option<u32>,
    pcie_width: Option<u32>,
    pcie_width_max: Option<u32>,
    /// Repeated transfers since the driver was loaded.
    pcie_replays: Option<u32>,
    nvlinks_active: Option<u32>,
    ecc_enabled: Option<bool>,
    /// Since the driver was loaded.
    ecc_uncorrected_volatile: Option<u64>,
    /// In its life.
    ecc_uncorrected_aggregate: Option<u64>,
    remapped_rows: Option<RemappedRows>,
    retired_pages: Option<RetiredPages>,
    /// The board's own data is damaged.
    inforom_corrupt: Option<bool>,
    vbios_version: Option<&'a str>,
    /// CUDA's, such as 8.9.
    compute_capability: Option<String>,
    persistence_mode: Option<bool>,
    mig_mode: Option<bool>,
    /// Programs that compute on it; process ids are the host's.
    processes: Option<Vec<ProcessRow>>,
    /// Errors that the driver reported since the machine started, as far as anybody can know.
    xids: Vec<XidRow>,
    /// Milliseconds that reading it took; of a GPU that does not answer, how long it has not.
    read_ms: Option<u64>,
    /// Names of readings that it does not have: null, and no fault.
    unsupported: Vec<&'a str>,
    /// Readings that failed, with the driver's words.
    failed: BTreeMap<&'a str, &'a str>,
    /// Why it does not answer at all.
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Process"))]
struct ProcessRow {
    pid: u32,
    vram_mb: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Xid"))]
struct XidRow {
    xid: u32,
    meaning: &'static str,
    count: u64,
    /// Unix seconds.
    last: f64,
}

impl<'a> GpuRow<'a> {
    /// `xids` are those of the whole machine.
    pub(crate) fn new(gpu: &'a Gpu, reasons: &[Reason], xids: &[Xid]) -> Self {
        let (slow, fixed) = (&gpu.slow, &gpu.fixed);
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
            temperature_margin_at_max_c: fixed.margin_at_max_c,
            temperature_margin_at_shutdown_c: fixed.margin_at_shutdown_c,
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
            throttle_seconds: throttle_seconds(gpu),
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
            processes: slow.processes.as_ref().map(|all| all.iter().map(ProcessRow::new).collect()),
            xids: xids.iter().filter(|x| gpu.pci() == Some(x.pci)).map(XidRow::new).collect(),
            read_ms: gpu.read_us.map(|us| us / 1000),
            unsupported: gpu.unsupported().collect(),
            failed: gpu.failed().map(|(name, why)| (name, why.words.as_str())).collect(),
            error: gpu.error.as_ref().map(|e| e.message.as_str()),
        }
    }
}

impl ProcessRow {
    fn new(process: &Process) -> Self {
        Self { pid: process.pid, vram_mb: process.vram_bytes.map(mib) }
    }
}

impl XidRow {
    fn new(xid: &Xid) -> Self {
        Self { xid: xid.number, meaning: xid::meaning(xid.number), count: xid.count, last: xid.last }
    }
}

fn mib(bytes: u64) -> u64 {
    bytes / MIB
}

/// By reason; None without any.
fn throttle_seconds(gpu: &Gpu) -> Option<BTreeMap<&str, f64>> {
    let all: BTreeMap<_, _> = gpu.throttle_ns.iter().map(|(name, ns)| (name.as_str(), *ns as f64 / 1e9)).collect();
    Some(all).filter(|all| !all.is_empty())
}

/// Watts with one decimal.
fn watts(milliwatts: u32) -> f64 {
    (f64::from(milliwatts) / 100.0).round() / 10.0
}
