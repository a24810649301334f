//! What one GPU says: fast readings at every sample, slow ones when asked for, fixed ones once.
//! Nothing here blocks by design: no throughput (20 ms a direction), no graphics processes, no serial number.

use std::fs;

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PerformanceState, RetirementCause, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP, NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_REMAPPED_COR,
    NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
    NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT,
};

use super::look::Look;
use super::raw;
use crate::pure::gpu::{Fixed, Gpu, MAX_PROCESSES, Process, RemappedRows, RetiredPages, Slow};
use crate::pure::meminfo;

/// No GPU has more.
const MAX_NVLINKS: u32 = 18;
/// Degrees Celsius that no working sensor shows.
const IMPOSSIBLE_C: u32 = 150;
/// Parts without memory of their own, by what their names contain.
const UNIFIED: [&str; 5] = ["GB10", "Thor", "Orin", "Xavier", "Tegra"];

const MEMORY: [&str; 3] = ["vram_total_mb", "vram_used_mb", "vram_free_mb"];

pub(super) fn fast(device: &Device<'_>, name: &str, gpu: &mut Gpu, look: &mut Look<'_>) {
    memory(device, name, gpu, look);
    let celsius = look.at("temperature", &["temperature_c"], || device.temperature(TemperatureSensor::Gpu));
    gpu.temperature_c = plausible(celsius, "temperature_c", look);
    gpu.temperature_margin_c =
        look.at("margin_temperature", &["temperature_margin_c"], || raw::margin_temperature(device));
    gpu.power_mw = look.at("power_usage", &["power_w"], || device.power_usage());
    gpu.power_limit_mw = look.at("enforced_power_limit", &["power_limit_w"], || device.enforced_power_limit());
    gpu.energy_mj = look.at("total_energy_consumption", &["energy_j"], || device.total_energy_consumption());
    let names = ["utilization_percent", "memory_utilization_percent"];
    if let Some(rates) = look.at("utilization_rates", &names, || device.utilization_rates()) {
        (gpu.utilization_percent, gpu.memory_utilization_percent) = (Some(rates.gpu), Some(rates.memory));
    }
    gpu.graphics_clock_mhz = look.at("clock_info", &["graphics_clock_mhz"], || device.clock_info(Clock::Graphics));
    gpu.memory_clock_mhz = look.at("clock_info", &["memory_clock_mhz"], || device.clock_info(Clock::Memory));
    gpu.performance_state =
        look.at("performance_state", &["performance_state"], || match device.performance_state()? {
            PerformanceState::Unknown => Err(NvmlError::NoData),
            state => Ok(state.as_c()),
        });
    let bits = look.at("throttle_reasons", &["throttle_reasons"], || device.current_throttle_reasons());
    gpu.throttle_bits = bits.map(|bits| bits.bits());
    fields(device, gpu, look);
}

/// Version 2 of the call tells used memory from what the driver holds back; drivers before 510 have only the first.
fn memory(device: &Device<'_>, name: &str, gpu: &mut Gpu, look: &mut Look<'_>) {
    let unified = UNIFIED.iter().any(|part| name.contains(part));
    let read = look.at("memory_info", &MEMORY, || match device.memory_info() {
        Ok(info) => Ok(Some((info.total, info.used, info.free, Some(info.reserved)))),
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound | NvmlError::UnexpectedVariant(25)) => {
            raw::memory_v1(device).map(|(total, used, free)| Some((total, used, free, None)))
        }
        Err(NvmlError::NotSupported) if unified => Ok(None),
        Err(why) => Err(why),
    });
    match read {
        Some(Some((total, used, free, reserved))) if total > 0 => {
            (gpu.vram_total_bytes, gpu.vram_used_bytes) = (Some(total), Some(used));
            (gpu.vram_free_bytes, gpu.vram_reserved_bytes) = (Some(free), reserved);
        }
        Some(_) if unified => main_memory(gpu, look),
        Some(_) => MEMORY.iter().for_each(|name| look.fail(name, "the driver says that there is no memory at all")),
        None => {}
    }
    if gpu.vram_reserved_bytes.is_none() {
        look.unsupported("vram_reserved_mb");
    }
}

/// The machine's main memory, of a GPU that has no other.
fn main_memory(gpu: &mut Gpu, look: &mut Look<'_>) {
    gpu.unified_memory = true;
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match meminfo::parse(&text) {
        Some((total, free)) => {
            (gpu.vram_total_bytes, gpu.vram_free_bytes) = (Some(total), Some(free));
            gpu.vram_used_bytes = Some(total.saturating_sub(free));
        }
        None => MEMORY.iter().for_each(|name| look.fail(name, "/proc/meminfo cannot be read")),
    }
}

fn plausible(celsius: Option<u32>, name: &str, look: &mut Look<'_>) -> Option<u32> {
    let impossible = celsius.filter(|c| !(1..=IMPOSSIBLE_C).contains(c));
    if let Some(c) = impossible {
        look.fail(name, &format!("{c} °C is impossible"));
    }
    celsius.filter(|_| impossible.is_none())
}

/// The throttle counters, in the numbering of NVML 12: nvml-wrapper translates it for drivers from 580.82 on.
const THROTTLE_TIMES: [(u32, &str); 4] = [
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP, "sw_power"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, "sw_thermal"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, "hw_thermal"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, "hw_power_brake"),
];

/// All that is only to be had as a field, in one call.
fn fields(device: &Device<'_>, gpu: &mut Gpu, look: &mut Look<'_>) {
    const NAMES: [&str; 4] = ["memory_temperature_c", "recovery_action", "remapped_rows", "throttle_seconds"];
    let [sw_power, sw_thermal, hw_thermal, hw_brake] = THROTTLE_TIMES.map(|(id, _)| id);
    let ids = [
        NVML_FI_DEV_MEMORY_TEMP,
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        NVML_FI_DEV_REMAPPED_COR,
        NVML_FI_DEV_REMAPPED_UNC,
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_FAILURE,
        sw_power,
        sw_thermal,
        hw_thermal,
        hw_brake,
    ];
    let Some(values) = look.at("field_values", &NAMES, || device.field_values_for(&ids.map(FieldId))) else { return };
    let mut values = values.into_iter().map(|value| number(&value?.value?));
    let mut next = || values.next().unwrap_or(Err(NvmlError::NoData));
    let celsius = look.take(&["memory_temperature_c"], next().map(small));
    gpu.memory_temperature_c = plausible(celsius, "memory_temperature_c", look);
    gpu.recovery_action = look.take(&["recovery_action"], next().map(small));
    let rows = [next(), next(), next(), next()].into_iter().collect::<Result<Vec<u64>, _>>();
    gpu.remapped_rows = look.take(&["remapped_rows"], rows).and_then(|rows| {
        let [correctable, uncorrectable, pending, failed] = rows[..] else { return None };
        Some(RemappedRows {
            correctable: small(correctable),
            uncorrectable: small(uncorrectable),
            pending: pending != 0,
            failed: failed != 0,
        })
    });
    let mut last = None;
    for (_, name) in THROTTLE_TIMES {
        match next() {
            Ok(ns) => drop(gpu.throttle_ns.insert(name.to_owned(), ns)),
            Err(why) => last = Some(why),
        }
    }
    if let Some(why) = last.filter(|_| gpu.throttle_ns.is_empty()) {
        look.take::<()>(&["throttle_seconds"], Err(why));
    }
}

/// Counters are not negative.
fn number(value: &SampleValue) -> Result<u64, NvmlError> {
    match value {
        SampleValue::U32(n) => Ok((*n).into()),
        SampleValue::U64(n) => Ok(*n),
        SampleValue::I64(n) => u64::try_from(*n).map_err(|_| NvmlError::NoData),
        SampleValue::F64(_) => Err(NvmlError::NoData),
    }
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn slow(device: &Device<'_>, look: &mut Look<'_>) -> Slow {
    let mut slow = Slow {
        fan_percent: look.at("fan_speed", &["fan_percent"], || fans(device)),
        pcie_generation: look.at("pcie_link_gen", &["pcie_generation"], || device.current_pcie_link_gen()),
        pcie_width: look.at("pcie_link_width", &["pcie_width"], || device.current_pcie_link_width()),
        pcie_replays: look.at("pcie_replay_counter", &["pcie_replays"], || device.pcie_replay_counter()),
        ecc_enabled: look
            .at("ecc_mode", &["ecc_enabled"], || device.is_ecc_enabled())
            .map(|mode| mode.currently_enabled),
        retired_pages: look.at("retired_pages", &["retired_pages"], || retired_pages(device)),
        processes: look.at("compute_processes", &["processes"], || processes(device)),
        persistence_mode: look.at("persistence_mode", &["persistence_mode"], || device.is_in_persistent_mode()),
        mig_mode: look.at("mig_mode", &["mig_mode"], || device.mig_mode()).map(|mode| mode.current != 0),
        nvlinks_active: look.at("nvlink_state", &["nvlinks_active"], || nvlinks(device)),
        ..Slow::default()
    };
    let mut errors = |name, counter| {
        if slow.ecc_enabled != Some(true) {
            look.unsupported(name);
            return None;
        }
        look.at("ecc_errors", &[name], || device.total_ecc_errors(MemoryError::Uncorrected, counter))
    };
    slow.ecc_uncorrected_volatile = errors("ecc_uncorrected_volatile", EccCounter::Volatile);
    slow.ecc_uncorrected_aggregate = errors("ecc_uncorrected_aggregate", EccCounter::Aggregate);
    slow
}

fn fans(device: &Device<'_>) -> Result<Vec<u32>, NvmlError> {
    match device.num_fans()? {
        0 => Err(NvmlError::NotSupported),
        fans => (0..fans.min(16)).map(|fan| device.fan_speed(fan)).collect(),
    }
}

fn retired_pages(device: &Device<'_>) -> Result<RetiredPages, NvmlError> {
    let count = |cause| device.retired_pages(cause).map(|pages| small(pages.len() as u64));
    Ok(RetiredPages {
        single_bit: count(RetirementCause::MultipleSingleBitEccErrors)?,
        double_bit: count(RetirementCause::DoubleBitEccError)?,
        pending: device.are_pages_pending_retired()?,
    })
}

fn processes(device: &Device<'_>) -> Result<Vec<Process>, NvmlError> {
    let all = device.running_compute_processes()?;
    let process = |p: nvml_wrapper::struct_wrappers::device::ProcessInfo| Process {
        pid: p.pid,
        vram_bytes: match p.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
    };
    Ok(all.into_iter().take(MAX_PROCESSES).map(process).collect())
}

/// Links beyond the last one are refused; a GPU that refuses the first has none.
fn nvlinks(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut active = 0;
    for link in 0..MAX_NVLINKS {
        match device.link_wrapper_for(link).is_active() {
            Ok(up) => active += u32::from(up),
            Err(NvmlError::NotSupported | NvmlError::InvalidArg) if link > 0 => break,
            Err(why) => return Err(why),
        }
    }
    Ok(active)
}

pub(super) fn fixed(device: &Device<'_>, look: &mut Look<'_>) -> Fixed {
    let mut threshold = |name: &'static str, kind| {
        let celsius = look.at("temperature_threshold", &[name], || device.temperature_threshold(kind));
        // Some parts say 0 where they have none.
        celsius.filter(|c| (1..=IMPOSSIBLE_C).contains(c))
    };
    let mut fixed = Fixed {
        temperature_slowdown_c: threshold("temperature_slowdown_c", TemperatureThreshold::Slowdown),
        temperature_shutdown_c: threshold("temperature_shutdown_c", TemperatureThreshold::Shutdown),
        temperature_max_c: threshold("temperature_max_c", TemperatureThreshold::GpuMax),
        memory_temperature_max_c: threshold("memory_temperature_max_c", TemperatureThreshold::MemoryMax),
        vbios_version: look.at("vbios_version", &["vbios_version"], || device.vbios_version()),
        compute_capability: look
            .at("compute_capability", &["compute_capability"], || device.cuda_compute_capability())
            .map(|version| (version.major, version.minor)),
        power_limit_default_mw: look
            .at("power_limit_default", &["power_limit_default_w"], || device.power_management_limit_default()),
        graphics_clock_max_mhz: look
            .at("max_clock_info", &["graphics_clock_max_mhz"], || device.max_clock_info(Clock::Graphics)),
        memory_clock_max_mhz: look
            .at("max_clock_info", &["memory_clock_max_mhz"], || device.max_clock_info(Clock::Memory)),
        pcie_generation_max: look.at("max_pcie_link", &["pcie_generation_max"], || device.max_pcie_link_gen()),
        pcie_width_max: look.at("max_pcie_link", &["pcie_width_max"], || device.max_pcie_link_width()),
        inforom_corrupt: look.at("validate_info_rom", &["inforom_corrupt"], || match device.validate_info_rom() {
            Ok(()) => Ok(false),
            Err(NvmlError::CorruptedInfoROM) => Ok(true),
            Err(why) => Err(why),
        }),
        ..Fixed::default()
    };
    let ids = [NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT];
    if let Some([max, shutdown]) = look.at("field_values", &[], || raw::signed_fields(device, ids)) {
        let margin = |value: Result<i64, NvmlError>| value.ok().and_then(|v| i32::try_from(v).ok());
        (fixed.margin_at_max_c, fixed.margin_at_shutdown_c) = (margin(max), margin(shutdown));
    }
    fixed
}
