//! The fast and the slow readings of one GPU; the fixed ones are in `fixed`. No call here blocks by design: no throughput
//! (20 ms for each direction), no graphics processes, no serial number.

use std::fs;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PerformanceState, RetirementCause, TemperatureSensor,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP, NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_REMAPPED_COR,
    NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
};

use super::reading_log::ReadingLog;
use super::{raw, unified};
use crate::gpu::plausible;
use crate::gpu::readings::Gpu;
use crate::gpu::value::{RemappedRows, RetiredPages};
use crate::sys::meminfo;

/// No GPU has more.
const MAX_NVLINKS: u32 = 18;

const MEMORY: [&str; 3] = ["vram_total_mb", "vram_used_mb", "vram_free_mb"];

pub(super) fn fast(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    memory(device, gpu, log);
    gpu.temperature_c = log.number("temperature", "temperature_c", || device.temperature(TemperatureSensor::Gpu));
    gpu.temperature_margin_c =
        log.number("margin_temperature", "temperature_margin_c", || raw::margin_temperature(device));
    gpu.power_mw = log.number("power_usage", "power_w", || device.power_usage());
    gpu.power_limit_mw = log.number("enforced_power_limit", "power_limit_w", || device.enforced_power_limit());
    gpu.energy_mj = log.number("total_energy_consumption", "energy_j", || device.total_energy_consumption());
    let names = ["utilization_percent", "memory_utilization_percent"];
    if let Some(rates) = log.at("utilization_rates", &names, || device.utilization_rates()) {
        gpu.utilization_percent = log.plausible(names[0], rates.gpu);
        gpu.memory_utilization_percent = log.plausible(names[1], rates.memory);
    }
    gpu.graphics_clock_mhz = log.number("clock_info", "graphics_clock_mhz", || device.clock_info(Clock::Graphics));
    gpu.memory_clock_mhz = log.number("clock_info", "memory_clock_mhz", || device.clock_info(Clock::Memory));
    gpu.performance_state =
        log.at("performance_state", &["performance_state"], || match device.performance_state()? {
            PerformanceState::Unknown => Err(NvmlError::NoData),
            state => Ok(state.as_c()),
        });
    let bits = log.at("throttle_reasons", &["throttle_reasons"], || raw::throttle_reasons(device));
    gpu.throttle_bits = bits.and_then(|bits| throttle_bits(bits, log));
    // Only the rails of Tegra boards have one.
    log.unsupported("power_alarm");
    fields(device, gpu, log);
}

/// A GPU is not idle and throttled for every reason at the same time: all bits set means that the driver does not know.
fn throttle_bits(bits: u64, log: &mut ReadingLog<'_>) -> Option<u64> {
    let known = ThrottleReasons::all().bits();
    if bits & known == known {
        log.fail("throttle_reasons", &plausible::impossible(format_args!("{bits:#x}"), ""));
        return None;
    }
    Some(bits)
}

/// Bytes of total, used, free and reserved memory. Version 2 of the call separates used memory from reserved memory.
/// Drivers before 510 have only version 1.
pub(super) fn memory_info(device: &Device<'_>) -> Result<(u64, u64, u64, Option<u64>), NvmlError> {
    match device.memory_info() {
        Ok(info) => Ok((info.total, info.used, info.free, Some(info.reserved))),
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound | NvmlError::UnexpectedVariant(25)) => {
            raw::memory_v1(device).map(|(total, used, free)| (total, used, free, None))
        }
        Err(why) => Err(why),
    }
}

fn memory(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    unified::addressing_at_first(device, gpu, log);
    let unified = unified::is_shared(gpu, None, || None);
    gpu.unified_memory = false;
    let read = log.at("memory_info", &MEMORY, || match memory_info(device) {
        Err(NvmlError::NotSupported) if unified => Ok(None),
        other => other.map(Some),
    });
    match read {
        Some(Some((total, used, free, reserved))) if total > 0 => {
            gpu.unified_memory = unified::is_shared(gpu, Some(total), || main_memory().map(|(total, _)| total));
            gpu.vram_total_bytes = log.plausible("vram_total_mb", total);
            match plausible::check_memory(total, [used, free, reserved.unwrap_or(0)]) {
                Ok(()) => {
                    (gpu.vram_used_bytes, gpu.vram_free_bytes) = (Some(used), Some(free));
                    gpu.vram_reserved_bytes = reserved;
                }
                // One part is wrong, and the others may be as well.
                Err(why) => MEMORY[1..].iter().for_each(|name| log.fail(name, &why)),
            }
        }
        Some(_) if unified => use_main_memory(gpu, log),
        Some(_) => MEMORY.iter().for_each(|name| log.fail(name, "the driver reports 0 bytes of memory")),
        None => {}
    }
    if gpu.vram_reserved_bytes.is_none() {
        log.unsupported("vram_reserved_mb");
    }
}

/// The machine's main memory, of a GPU that has no other.
fn use_main_memory(gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    gpu.unified_memory = true;
    match main_memory() {
        Some((total, free)) => {
            (gpu.vram_total_bytes, gpu.vram_free_bytes) = (Some(total), Some(free));
            gpu.vram_used_bytes = Some(total.saturating_sub(free));
        }
        None => MEMORY.iter().for_each(|name| log.fail(name, "/proc/meminfo cannot be read")),
    }
}

/// Bytes in total and available.
fn main_memory() -> Option<(u64, u64)> {
    meminfo::parse(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// The throttle counters, in the numbering of NVML 12: nvml-wrapper translates it for drivers from 580.82 on.
const THROTTLE_TIMES: [(u32, &str); 4] = [
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP, "sw_power"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, "sw_thermal"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, "hw_thermal"),
    (NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, "hw_power_brake"),
];

/// All readings that exist only as fields, in one call.
fn fields(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
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
    let Some(values) = log.at("field_values", &NAMES, || device.field_values_for(&ids.map(FieldId))) else { return };
    let mut values = values.into_iter().map(|value| number(&value?.value?));
    let mut next = || values.next().unwrap_or(Err(NvmlError::NoData));
    let mut number = |name: &str, value| {
        let value: u64 = log.take(&[name], value)?;
        log.plausible(name, value).map(small)
    };
    gpu.memory_temperature_c = number("memory_temperature_c", next());
    gpu.recovery_action = number("recovery_action", next());
    let rows = [next(), next(), next(), next()].into_iter().collect::<Result<Vec<u64>, _>>();
    gpu.remapped_rows = log.take(&["remapped_rows"], rows).and_then(|rows| {
        let [correctable, uncorrectable, pending, failed] = rows[..] else { return None };
        if let Some(flag) = [pending, failed].into_iter().find(|flag| *flag > 1) {
            log.fail("remapped_rows", &plausible::impossible(flag, ""));
            return None;
        }
        log.plausible("remapped_rows", correctable.max(uncorrectable))?;
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
            Ok(ns) => gpu.throttle_ns.extend(log.plausible("throttle_seconds", ns).map(|ns| (name.to_owned(), ns))),
            Err(why) => last = Some(why),
        }
    }
    // One counter is enough; without any, the last error counts for all.
    if gpu.throttle_ns.is_empty() && !log.has_failed("throttle_seconds") {
        log.take::<()>(&["throttle_seconds"], Err(last.unwrap_or(NvmlError::NoData)));
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

pub(super) fn slow(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    gpu.fan_percent = fans(device, log);
    gpu.pcie_generation = log.number("pcie_link_gen", "pcie_generation", || device.current_pcie_link_gen());
    gpu.pcie_width = log.number("pcie_link_width", "pcie_width", || device.current_pcie_link_width());
    gpu.pcie_replays = log.number("pcie_replay_counter", "pcie_replays", || device.pcie_replay_counter());
    let ecc = log.at("ecc_mode", &["ecc_enabled"], || device.is_ecc_enabled());
    gpu.ecc_enabled = ecc.map(|mode| mode.currently_enabled);
    let pages = log.at("retired_pages", &["retired_pages"], || retired_pages(device));
    gpu.persistence_mode = log.at("persistence_mode", &["persistence_mode"], || device.is_in_persistent_mode());
    gpu.nvlinks_active = log.at("nvlink_state", &["nvlinks_active"], || nvlinks(device));
    let mut right = |p: &RetiredPages| log.plausible("retired_pages", p.single_bit.max(p.double_bit)).is_some();
    gpu.retired_pages = pages.filter(|pages| right(pages));
    let mut errors = |name, counter| {
        if gpu.ecc_enabled != Some(true) {
            log.unsupported(name);
            return None;
        }
        log.number("ecc_errors", name, || device.total_ecc_errors(MemoryError::Uncorrected, counter))
    };
    gpu.ecc_uncorrected_volatile = errors("ecc_uncorrected_volatile", EccCounter::Volatile);
    gpu.ecc_uncorrected_aggregate = errors("ecc_uncorrected_aggregate", EccCounter::Aggregate);
}

fn fans(device: &Device<'_>, log: &mut ReadingLog<'_>) -> Option<Vec<u32>> {
    const NAME: &str = "fan_percent";
    let count = log.at("num_fans", &[NAME], || match device.num_fans() {
        Ok(0) => Err(NvmlError::NotSupported),
        // Drivers up to 470 cannot count them.
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => Ok(1),
        counted => counted,
    })?;
    if count > plausible::MAX_FANS {
        log.fail(NAME, &plausible::impossible(count, "fans"));
        return None;
    }
    let all: Vec<u32> = log.at("fan_speed", &[NAME], || (0..count).map(|fan| device.fan_speed(fan)).collect())?;
    all.into_iter().map(|percent| log.plausible(NAME, percent)).collect()
}

fn retired_pages(device: &Device<'_>) -> Result<RetiredPages, NvmlError> {
    Ok(RetiredPages {
        single_bit: raw::retired_pages(device, &RetirementCause::MultipleSingleBitEccErrors)?,
        double_bit: raw::retired_pages(device, &RetirementCause::DoubleBitEccError)?,
        pending: device.are_pages_pending_retired()?,
    })
}

/// NVML refuses links beyond the last one. A GPU that refuses the first one has none.
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
