//! The calls that nvml-wrapper does not wrap, or not for all values. Only this module and those below it have unsafe code.
#![allow(unsafe_code)]

pub(super) mod addressing;
pub(super) mod gpm;
pub(super) mod health;

use std::ffi::{CStr, c_char, c_uint};
use std::{mem, ptr};

use nvml_wrapper::enum_wrappers::device::RetirementCause;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as c;

/// A function of NVML that writes a text of at most `length` bytes, including its NUL.
type Text<'a> = &'a dyn Fn(*mut c_char, c_uint) -> c::nvmlReturn_t;

/// Room for NVML's longest text.
const TEXT: usize = 96;
/// More utilization samples than a driver keeps (about 100), and more processes than use one GPU.
const MAX_SAMPLES: u32 = 16_384;
const MAX_UTILIZED: u32 = 1_024;

/// A text of NVML. Bytes that are not UTF-8 become replacement characters: nvml-wrapper would reject the whole text.
fn text(call: Text<'_>) -> Result<String, NvmlError> {
    let mut bytes = [0_u8; TEXT];
    let length = c_uint::try_from(TEXT).unwrap_or_default();
    nvml_try(call(bytes.as_mut_ptr().cast(), length))?;
    let text = CStr::from_bytes_until_nul(&bytes).map_or(&bytes[..], CStr::to_bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Product name.
///
/// # Errors
/// NVML's, here and in the other texts.
pub(super) fn name(device: &Device<'_>) -> Result<String, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetName.as_ref())?;
    // SAFETY: the device is alive as long as its reference, and the buffer has the given length.
    text(&|to, length| unsafe { call(device.handle(), to, length) })
}

/// Globally unique id.
pub(super) fn uuid(device: &Device<'_>) -> Result<String, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetUUID.as_ref())?;
    // SAFETY: as above.
    text(&|to, length| unsafe { call(device.handle(), to, length) })
}

/// Version of the board's firmware.
pub(super) fn vbios_version(device: &Device<'_>) -> Result<String, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetVbiosVersion.as_ref())?;
    // SAFETY: as above.
    text(&|to, length| unsafe { call(device.handle(), to, length) })
}

/// Version of the driver.
pub(super) fn driver_version(nvml: &Nvml) -> Result<String, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlSystemGetDriverVersion.as_ref())?;
    // SAFETY: the buffer has the given length.
    text(&|to, length| unsafe { call(to, length) })
}

/// Version of the library.
pub(super) fn nvml_version(nvml: &Nvml) -> Result<String, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlSystemGetNVMLVersion.as_ref())?;
    // SAFETY: as above.
    text(&|to, length| unsafe { call(to, length) })
}

/// Bits of the throttle reasons, unnamed ones included.
pub(super) fn throttle_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetCurrentClocksThrottleReasons.as_ref())?;
    let mut bits = 0;
    // SAFETY: the device is alive as long as its reference.
    nvml_try(unsafe { call(device.handle(), &raw mut bits) })?;
    Ok(bits)
}

/// Number of pages that were retired for this cause. nvml-wrapper would allocate as many addresses as a driver claims.
pub(super) fn retired_pages(device: &Device<'_>, cause: &RetirementCause) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRetiredPages.as_ref())?;
    let (mut count, mut address) = (0, 0);
    // SAFETY: as above; nothing is written to an array of length 0.
    let code = unsafe { call(device.handle(), cause.as_c(), &raw mut count, &raw mut address) };
    counted(code, count)
}

/// Number of compute processes, for the same reason.
pub(super) fn process_count(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeRunningProcesses_v3.as_ref())?;
    let mut count = 0;
    // SAFETY: as above.
    let code = unsafe { call(device.handle(), &raw mut count, ptr::null_mut()) };
    counted(code, count)
}

/// Id of the GPU instance that a MIG handle belongs to, unique on its GPU.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: as above; NVML refuses a handle whose instance is gone.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Id of its compute instance, unique in the GPU instance.
pub(super) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// NVML returns a list's length together with "insufficient size".
fn counted(code: c::nvmlReturn_t, count: c_uint) -> Result<u32, NvmlError> {
    match code {
        c::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE => Ok(count),
        code => nvml_try(code).map(|()| count),
    }
}

/// Degrees Celsius to the limit at which the GPU is throttled.
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

/// Total, used and free bytes by the first version of the call, for drivers before 510. It counts memory that the
/// driver reserves as used.
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

/// Fields whose values may be negative: nvml-wrapper rejects their type. Their numbers are the same in all versions of
/// NVML.
///
/// # Errors
/// NVML's, for all of them, or for one.
pub(super) fn signed_fields<const N: usize>(
    device: &Device<'_>,
    ids: [u32; N],
) -> Result<[Result<i64, NvmlError>; N], NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: the struct holds only numbers, for which zero bits are valid.
    let mut values: [c::nvmlFieldValue_t; N] = unsafe { mem::zeroed() };
    for (value, id) in values.iter_mut().zip(ids) {
        value.fieldId = id;
    }
    let count = i32::try_from(N).unwrap_or_default();
    // SAFETY: the array has the given number of elements.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.map(|field| {
        nvml_try(field.nvmlReturn)?;
        integer(field.valueType, field.value)
    }))
}

/// A value of one of NVML's integer types.
fn integer(kind: c::nvmlValueType_t, value: c::nvmlValue_t) -> Result<i64, NvmlError> {
    // SAFETY: the type names the member that was written; any bits are valid for each of them.
    unsafe {
        Ok(match kind {
            c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => i64::from(value.uiVal.cast_signed()),
            c::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => i64::from(value.siVal),
            c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
            | c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => value.ullVal.cast_signed(),
            c::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => value.sllVal,
            c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => i64::from(value.usVal),
            other => return Err(NvmlError::UnexpectedVariant(other)),
        })
    }
}

/// The driver's utilization samples that are newer than its timestamp `since`, in microseconds; 0: all that it has.
/// nvml-wrapper would allocate as many as a driver claims, here and in the next call.
///
/// # Errors
/// NVML's, `NotFound` where there is none, and `InsufficientSize` beyond [`MAX_SAMPLES`].
pub(super) fn utilization_samples(device: &Device<'_>, since: u64) -> Result<Vec<(u64, i64)>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetSamples.as_ref())?;
    let (kind, mut value_kind, mut count) = (c::nvmlSamplingType_enum_NVML_GPU_UTILIZATION_SAMPLES, 0, 0);
    // SAFETY: the device is alive as long as its reference; without an array only the count is written.
    let code = unsafe { call(device.handle(), kind, since, &raw mut value_kind, &raw mut count, ptr::null_mut()) };
    // SAFETY: the struct holds only numbers, for which zero bits are valid.
    let mut samples: Vec<c::nvmlSample_t> = vec![unsafe { mem::zeroed() }; room(code, count, MAX_SAMPLES)?];
    let mut count = c_uint::try_from(samples.len()).unwrap_or_default();
    // SAFETY: as above, and the array has the given number of elements.
    nvml_try(unsafe { call(device.handle(), kind, since, &raw mut value_kind, &raw mut count, samples.as_mut_ptr()) })?;
    let written = samples.iter().take(count as usize);
    written.map(|sample| Ok((sample.timeStamp, integer(value_kind, sample.sampleValue)?))).collect()
}

/// The SM utilization of a process at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessSample {
    /// Microseconds, by the driver's clock.
    pub(super) at: u64,
    pub(super) pid: u32,
    pub(super) percent: i64,
}

/// The samples of processes that are newer than the driver's timestamp `since`, in microseconds.
///
/// # Errors
/// NVML's, `NotFound` where no process used the GPU, and `InsufficientSize` beyond [`MAX_UTILIZED`].
pub(super) fn process_utilization(device: &Device<'_>, since: u64) -> Result<Vec<ProcessSample>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetProcessUtilization.as_ref())?;
    let mut count = 0;
    // SAFETY: as above.
    let code = unsafe { call(device.handle(), ptr::null_mut(), &raw mut count, since) };
    // SAFETY: as above.
    let mut processes: Vec<c::nvmlProcessUtilizationSample_t> =
        vec![unsafe { mem::zeroed() }; room(code, count, MAX_UTILIZED)?];
    let mut count = c_uint::try_from(processes.len()).unwrap_or_default();
    // SAFETY: as above.
    nvml_try(unsafe { call(device.handle(), processes.as_mut_ptr(), &raw mut count, since) })?;
    let sample =
        |p: &c::nvmlProcessUtilizationSample_t| ProcessSample { at: p.timeStamp, pid: p.pid, percent: p.smUtil.into() };
    Ok(processes.iter().take(count as usize).map(sample).collect())
}

/// Length of an array for the elements that a call without an array counted, and for some that come before the next call.
fn room(code: c::nvmlReturn_t, count: c_uint, most: u32) -> Result<usize, NvmlError> {
    match counted(code, count)? {
        0 if code == c::nvmlReturn_enum_NVML_SUCCESS => Err(NvmlError::NotFound),
        count if (1..=most).contains(&count) => Ok(count as usize + 16),
        count => Err(NvmlError::InsufficientSize(Some(count as usize))),
    }
}
