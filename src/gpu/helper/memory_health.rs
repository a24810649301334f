//! What newer drivers say of the memory's health: repairs, spare rows, and errors beyond repair. They change rarely, so they
//! are slow readings.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_POWER_AVERAGE;

use super::final_calls::FinalCalls;
use super::raw::{self, health};
use super::reading_log::ReadingLog;
use crate::gpu::sample::Gpu;
use crate::gpu::value::SpareRows;

/// NVML_POWER_SCOPE_MEMORY.
const MEMORY: u32 = 2;
/// The first branch of the driver that has that scope.
const MEMORY_POWER_SINCE: u32 = 545;

pub(super) fn read(device: &Device<'_>, gpu: &mut Gpu, finals: &mut FinalCalls, log: &mut ReadingLog<'_>) {
    let mut flag = |call, name, read: &dyn Fn() -> _| {
        let flag = finals.at(log, call, &[name], read)?;
        log.flag(name, flag)
    };
    gpu.sram_threshold_exceeded =
        flag("sram_ecc_status", "sram_threshold_exceeded", &|| health::sram_threshold_exceeded(device));
    gpu.unrepairable_memory =
        flag("unrepairable_memory", "unrepairable_memory", &|| health::unrepairable_memory(device));
    const REPAIRS: [&str; 2] = ["channel_repair_pending", "tpc_repair_pending"];
    if let Some([channel, tpc]) = finals.at(log, "repair_status", &REPAIRS, || health::repairs_pending(device)) {
        gpu.channel_repair_pending = log.flag(REPAIRS[0], channel);
        gpu.tpc_repair_pending = log.flag(REPAIRS[1], tpc);
    }
    // nvml.h lists no error but "unknown" for GPUs that do not remap rows, and that one is a fault.
    gpu.spare_rows = gpu.remapped_rows.and_then(|_| spare_rows(device, finals, log));
    let power = finals.at(log, "memory_power", &["memory_power_w"], || memory_power(device));
    gpu.memory_power_mw =
        power.and_then(|mw| log.plausible("memory_power_w", mw)).and_then(|mw| u32::try_from(mw).ok());
}

/// Milliwatts. Older drivers have the field for the whole board alone: its power is not the memory's.
fn memory_power(device: &Device<'_>) -> Result<i64, NvmlError> {
    let version = raw::driver_version(device.nvml()).ok();
    let branch = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match branch {
        Some(branch) if branch >= MEMORY_POWER_SINCE => {
            health::field_of_part(device, NVML_FI_DEV_POWER_AVERAGE, MEMORY)
        }
        Some(_) => Err(NvmlError::NotSupported),
        None => Err(NvmlError::NoData),
    }
}

fn spare_rows(device: &Device<'_>, finals: &mut FinalCalls, log: &mut ReadingLog<'_>) -> Option<SpareRows> {
    const NAME: &str = "spare_rows";
    let banks = finals.at(log, "row_remapper_histogram", &[NAME], || health::spare_rows(device))?;
    let most = banks.into_iter().max().unwrap_or(0);
    if most == 0 {
        // No bank at all is how a driver says that it does not count them.
        log.unsupported(NAME);
        return None;
    }
    log.plausible(NAME, most)?;
    let [max, high, partial, low, none] = banks;
    Some(SpareRows { max, high, partial, low, none })
}
