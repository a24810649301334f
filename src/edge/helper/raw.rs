//! The calls that nvml-wrapper does not wrap, or not for all their values. The only unsafe code of this program.
#![allow(unsafe_code)]

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings as c;

/// Degrees Celsius left to the limit at which the GPU slows down.
///
/// # Errors
/// NVML's, `NotSupported` on most GPUs before Hopper.
pub(super) fn margin_temperature(device: &Device<'_>) -> Result<i32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let size = u32::try_from(mem::size_of::<c::nvmlMarginTemperature_t>()).unwrap_or_default();
    // NVML_STRUCT_VERSION(MarginTemperature, 1) of nvml.h.
    let mut margin = c::nvmlMarginTemperature_t { version: size | 1 << 24, marginTemperature: 0 };
    // SAFETY: the device is alive as long as its reference, and the struct is the one that nvml.h names.
    nvml_try(unsafe { call(device.handle(), &raw mut margin) })?;
    Ok(margin.marginTemperature)
}

/// Total, used and free bytes by the first version of the call, for drivers before 510. It counts what the driver
/// holds back as used.
///
/// # Errors
/// NVML's.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<(u64, u64, u64), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = c::nvmlMemory_t { total: 0, free: 0, used: 0 };
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut memory) })?;
    Ok((memory.total, memory.used, memory.free))
}

/// Fields whose values may be negative: nvml-wrapper refuses the type that they have. Their numbers are the same in
/// all versions of NVML.
///
/// # Errors
/// NVML's, for all of them, or for one.
pub(super) fn signed_fields<const N: usize>(
    device: &Device<'_>,
    ids: [u32; N],
) -> Result<[Result<i64, NvmlError>; N], NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: the struct holds numbers alone, for which all bits 0 is a value.
    let mut values: [c::nvmlFieldValue_t; N] = unsafe { mem::zeroed() };
    for (value, id) in values.iter_mut().zip(ids) {
        value.fieldId = id;
    }
    let count = i32::try_from(N).unwrap_or_default();
    // SAFETY: the array has as many elements as are named.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.map(|field| {
        nvml_try(field.nvmlReturn)?;
        let value = field.value;
        // SAFETY: the type says which member was written; all bits are a value for each of them.
        unsafe {
            Ok(match field.valueType {
                c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => i64::from(value.uiVal.cast_signed()),
                c::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => i64::from(value.siVal),
                c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
                | c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => value.ullVal.cast_signed(),
                c::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => value.sllVal,
                c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => i64::from(value.usVal),
                other => return Err(NvmlError::UnexpectedVariant(other)),
            })
        }
    }))
}
