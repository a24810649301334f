//! How a GPU sees the memory of the CPU.

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as c;

/// nvml.h's number of the addressing mode.
///
/// # Errors
/// NVML's: drivers before 580 do not have the call, GPUs before Turing and Windows do not have a mode.
pub(crate) fn addressing_mode(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetAddressingMode.as_ref())?;
    let size = u32::try_from(mem::size_of::<c::nvmlDeviceAddressingMode_t>()).unwrap_or_default();
    // NVML_STRUCT_VERSION(DeviceAddressingMode, 1) of nvml.h.
    let mut mode = c::nvmlDeviceAddressingMode_t { version: size | 1 << 24, value: 0 };
    // SAFETY: the device is alive as long as its reference, and the struct is the one that nvml.h names.
    nvml_try(unsafe { call(device.handle(), &raw mut mode) })?;
    Ok(mode.value)
}
