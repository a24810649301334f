//! The readings that do not change while the driver stays loaded. Only those that are not known yet are read: one that
//! failed, or a threshold that came late, counts from then on.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT,
};

use super::reading_log::ReadingLog;
use super::{raw, unified};
use crate::gpu::sample::Gpu;

pub(super) fn read(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    thresholds(device, gpu, log);
    margins(device, gpu, log);
    board(device, gpu, log);
    unified::addressing(device, gpu, log);
}

/// Degrees Celsius.
fn thresholds(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    for (known, name, kind) in [
        (&mut gpu.temperature_slowdown_c, "temperature_slowdown_c", TemperatureThreshold::Slowdown),
        (&mut gpu.temperature_shutdown_c, "temperature_shutdown_c", TemperatureThreshold::Shutdown),
        (&mut gpu.temperature_max_c, "temperature_max_c", TemperatureThreshold::GpuMax),
        (&mut gpu.memory_temperature_max_c, "memory_temperature_max_c", TemperatureThreshold::MemoryMax),
    ] {
        if known.is_some() {
            continue;
        }
        match log.at("temperature_threshold", &[name], || device.temperature_threshold(kind)) {
            // Some parts report 0 when they have none.
            Some(0) => log.unsupported(name),
            Some(celsius) => *known = log.plausible(name, celsius),
            None => {}
        }
    }
}

/// Newer parts have these instead of thresholds.
fn margins(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    const NAMES: [&str; 2] = ["temperature_margin_at_max_c", "temperature_margin_at_shutdown_c"];
    if gpu.margin_at_max_c.is_some() && gpu.margin_at_shutdown_c.is_some() {
        return;
    }
    let ids = [NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT];
    let Some([max, shutdown]) = log.at("field_values", &NAMES, || raw::signed_fields(device, ids)) else { return };
    let mut margin = |name: &str, value| {
        let value: i64 = log.take(&[name], value)?;
        log.plausible(name, value).and_then(|value| i32::try_from(value).ok())
    };
    gpu.margin_at_max_c = margin(NAMES[0], max);
    gpu.margin_at_shutdown_c = margin(NAMES[1], shutdown);
}

fn board(device: &Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
    let mut number = |known: &mut Option<u32>, call, name, read: &dyn Fn() -> Result<u32, NvmlError>| {
        *known = known.or_else(|| log.number(call, name, read));
    };
    number(&mut gpu.power_limit_default_mw, "power_limit_default", "power_limit_default_w", &|| {
        device.power_management_limit_default()
    });
    number(&mut gpu.graphics_clock_max_mhz, "max_clock_info", "graphics_clock_max_mhz", &|| {
        device.max_clock_info(Clock::Graphics)
    });
    number(&mut gpu.memory_clock_max_mhz, "max_clock_info", "memory_clock_max_mhz", &|| {
        device.max_clock_info(Clock::Memory)
    });
    number(&mut gpu.pcie_generation_max, "max_pcie_link", "pcie_generation_max", &|| device.max_pcie_link_gen());
    number(&mut gpu.pcie_width_max, "max_pcie_link", "pcie_width_max", &|| device.max_pcie_link_width());
    if gpu.vbios_version.is_none() {
        gpu.vbios_version = log.at("vbios_version", &["vbios_version"], || raw::vbios_version(device));
    }
    if gpu.compute_capability.is_none() {
        let read = log.at("compute_capability", &["compute_capability"], || device.cuda_compute_capability());
        let version = read.filter(|version| log.plausible("compute_capability", version.major).is_some());
        gpu.compute_capability = version.map(|version| (version.major, version.minor));
    }
    if gpu.inforom_corrupt.is_none() {
        gpu.inforom_corrupt = log.at("validate_info_rom", &["inforom_corrupt"], || match device.validate_info_rom() {
            Ok(()) => Ok(false),
            Err(NvmlError::CorruptedInfoROM) => Ok(true),
            Err(why) => Err(why),
        });
    }
}
