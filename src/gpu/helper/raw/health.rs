//! Calls about memory repairs, NVLink fabric and memory power. Their structs name their version, and a driver that does not
//! know it returns 25; newer functions have no version but one in their names.

use std::ffi::c_uint;
use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as c;

use super::integer;

/// NVML_STRUCT_VERSION of nvml.h.
fn version_word(size: usize, version: u32) -> c_uint {
    c_uint::try_from(size).unwrap_or_default() | version << 24
}

/// NVML's flag for more errors in on-chip memory than the vendor tolerates.
///
/// # Errors
/// NVML's, here and in the other calls. `NoPermission` for most users but root.
pub(crate) fn sram_threshold_exceeded(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: the struct holds only numbers, for which zero bits are valid.
    let mut status: c::nvmlEccSramErrorStatus_t = unsafe { mem::zeroed() };
    status.version = version_word(size_of_val(&status), 1);
    // SAFETY: the device is alive as long as its reference, and the struct is the one that nvml.h names.
    nvml_try(unsafe { call(device.handle(), &raw mut status) })?;
    Ok(status.bThresholdExceeded)
}

/// NVML's flags for pending repairs of memory channels and of TPCs.
pub(crate) fn repairs_pending(device: &Device<'_>) -> Result<[u32; 2], NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRepairStatus.as_ref())?;
    let mut status = c::nvmlRepairStatus_t { version: 0, bChannelRepairPending: 0, bTpcRepairPending: 0 };
    status.version = version_word(size_of_val(&status), 1);
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut status) })?;
    Ok([status.bChannelRepairPending, status.bTpcRepairPending])
}

/// nvmlUnrepairableMemoryStatus_v1_t, which the bindings do not have.
#[repr(C)]
struct UnrepairableMemory {
    flag: c_uint,
}

type GetUnrepairableMemory = unsafe extern "C" fn(c::nvmlDevice_t, *mut UnrepairableMemory) -> c::nvmlReturn_t;

/// NVML's flag for memory that no repair helps. Drivers before 590 do not have it.
pub(crate) fn unrepairable_memory(device: &Device<'_>) -> Result<u32, NvmlError> {
    let library = &device.nvml().lib().__library;
    // SAFETY: the function has the type that nvml.h names, and the library is never unloaded.
    let call = unsafe { library.get::<GetUnrepairableMemory>(b"nvmlDeviceGetUnrepairableMemoryFlag_v1\0") };
    let call = call.map_err(|why| NvmlError::FailedToLoadSymbol(why.to_string()))?;
    let mut status = UnrepairableMemory { flag: 0 };
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut status) })?;
    Ok(status.flag)
}

/// Number of memory banks by how many spare rows they have left: all (max), high, partial, low, none.
pub(crate) fn spare_rows(device: &Device<'_>) -> Result<[u32; 5], NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRowRemapperHistogram.as_ref())?;
    let mut banks = c::nvmlRowRemapperHistogramValues_t { max: 0, high: 0, partial: 0, low: 0, none: 0 };
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut banks) })?;
    Ok([banks.max, banks.high, banks.partial, banks.low, banks.none])
}

/// A field of a part of the board. Its number must be the same in all versions of NVML: not 251 to 273.
pub(crate) fn field_of_part(device: &Device<'_>, field: u32, part: u32) -> Result<i64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: the struct holds only numbers, for which zero bits are valid.
    let mut value: c::nvmlFieldValue_t = unsafe { mem::zeroed() };
    (value.fieldId, value.scopeId) = (field, part);
    // SAFETY: as above; it is an array of one element.
    nvml_try(unsafe { call(device.handle(), 1, &raw mut value) })?;
    nvml_try(value.nvmlReturn)?;
    integer(value.valueType, value.value)
}

/// What the driver says of a GPU's place in the NVLink fabric, in nvml.h's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FabricInfo {
    pub(crate) state: u8,
    /// An error of NVML, while the state is "completed".
    pub(crate) status: u32,
    /// 0 where the version does not have it, as in the next.
    pub(crate) mask: u32,
    pub(crate) summary: u8,
}

/// `version`: 3, 2 or 1.
pub(crate) fn fabric_info(device: &Device<'_>, version: u32) -> Result<FabricInfo, NvmlError> {
    let library = device.nvml().lib();
    if version == 1 {
        let call = nvml_sym(library.nvmlDeviceGetGpuFabricInfo.as_ref())?;
        // SAFETY: the struct holds only numbers, for which zero bits are valid, here and below.
        let mut info: c::nvmlGpuFabricInfo_t = unsafe { mem::zeroed() };
        // SAFETY: as above.
        nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
        return Ok(FabricInfo { state: info.state, status: info.status, mask: 0, summary: 0 });
    }
    let call = nvml_sym(library.nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: as above.
    let mut info: c::nvmlGpuFabricInfo_v3_t = unsafe { mem::zeroed() };
    let size = if version == 2 { size_of::<c::nvmlGpuFabricInfo_v2_t>() } else { size_of_val(&info) };
    info.version = version_word(size, version);
    // SAFETY: as above; version 2 is the beginning of version 3.
    nvml_try(unsafe { call(device.handle(), &raw mut info) })?;
    Ok(FabricInfo { state: info.state, status: info.status, mask: info.healthMask, summary: info.healthSummary })
}
