//! MIG: the mode, the instances of a GPU, and the functions that only their handles have.
//!
//! `mig=1`: the GPU is in MIG mode. Then `mig0` to `mig6` are its instances; numbers may be left out. Each is
//! `GPU INSTANCE/COMPUTE INSTANCE/SMs/SLICES/SLICES OF THE COMPUTE INSTANCE/MiB/MiB USED`, with a last part for the number of
//! optical flow engines. `mig0=err:4` is an instance of others. `mig_max` is the highest number of instances (7, and 0
//! outside MIG mode).
//!
//! Each reading of an instance has the key `mig0.READING`: `name` (by default none, as on older drivers), `uuid`, `memory`
//! as of a GPU, `memory_v2`, `attributes=err:13` (a driver without this function), `processes` (by default none), `gpu_instance` and `compute_instance`, if only to fail. A handle of an instance that is no
//! longer in the file is invalid, and where its number is that of another instance now, it is that one's.
//!
//! Compared with the captures of an H100 (590.48.01): ids, SMs, memory, and what the whole GPU does not have. What a real
//! handle does after its end is from nvml.h.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use crate::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, index_of, put, reading, setting};

const NOT_FOUND: c_int = 6;

/// The readings that instances have.
const OWN: [&str; 11] = [
    "name", "uuid", "memory", "memory_v2", "attributes", "processes", "gpu_instance", "compute_instance", "gpm",
    "gpm_sample", "gpm_metrics",
];

/// The number of the instance behind a handle; None: it is a GPU's.
pub fn slot(handle: *mut c_void) -> Option<usize> {
    (handle as usize >> 16).checked_sub(1)
}

/// The key of a reading of an instance.
pub fn key(handle: *mut c_void, slot: usize, name: &str) -> Result<String, c_int> {
    if instance(index_of(handle), slot).is_none() {
        return Err(INVALID_ARGUMENT);
    }
    if OWN.contains(&name) { Ok(format!("mig{slot}.{name}")) } else { Err(3) }
}

/// The numbers of an instance.
fn instance(index: usize, slot: usize) -> Option<Vec<u64>> {
    let is_on = setting(&format!("gpu{index}.mig")).as_deref() == Some("1");
    let text = setting(&format!("gpu{index}.mig{slot}")).filter(|_| is_on)?;
    let numbers: Vec<u64> = text.split('/').filter_map(|part| part.parse().ok()).collect();
    (numbers.len() >= 7).then_some(numbers)
}

/// The handle of the first instance of this GPU instance, for `gpm.rs`.
#[cfg(not(old))]
pub fn first_of(gpu: *mut c_void, id: c_uint) -> Option<*mut c_void> {
    let is_it = |slot: &usize| instance(index_of(gpu), *slot).is_some_and(|numbers| numbers[0] == u64::from(id));
    (0..7).find(is_it).map(|slot| (gpu as usize | (slot + 1) << 16) as *mut c_void)
}

pub fn of(handle: *mut c_void) -> Option<Vec<u64>> {
    instance(index_of(handle), slot(handle)?)
}

/// The default of `memory`.
pub fn memory(handle: *mut c_void) -> Option<String> {
    of(handle).map(|numbers| format!("{}/{}/0", numbers[5], numbers[6]))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(handle: *mut c_void, now: *mut c_uint, pending: *mut c_uint) -> c_int {
    put(handle, "mig", NOT_SUPPORTED, pending);
    put(handle, "mig", NOT_SUPPORTED, now)
}

/// 0 outside MIG mode, which is not an error.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMaxMigDeviceCount(handle: *mut c_void, out: *mut c_uint) -> c_int {
    let is_on = reading(handle, "mig", NOT_SUPPORTED).as_deref() == Ok("1");
    put(handle, "mig_max", if is_on { "7" } else { "0" }, out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: *mut c_void,
    slot: c_uint,
    out: *mut *mut c_void,
) -> c_int {
    let index = index_of(handle);
    if let Some(Ok(code)) = setting(&format!("gpu{index}.mig{slot}")).and_then(|t| Some(t.strip_prefix("err:")?.parse()))
    {
        return code;
    }
    if instance(index, slot as usize).is_none() {
        return NOT_FOUND;
    }
    unsafe { *out = (handle as usize | (slot as usize + 1) << 16) as *mut c_void };
    SUCCESS
}

/// One of the ids of an instance.
fn id(handle: *mut c_void, name: &str, at: usize, out: *mut c_uint) -> c_int {
    match of(handle) {
        Some(numbers) => put(handle, name, &numbers[at].to_string(), out),
        None => INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuInstanceId(handle: *mut c_void, out: *mut c_uint) -> c_int {
    id(handle, "gpu_instance", 0, out)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeInstanceId(handle: *mut c_void, out: *mut c_uint) -> c_int {
    id(handle, "compute_instance", 1, out)
}

/// nvmlDeviceAttributes_t.
#[repr(C)]
pub struct Attributes {
    sms: c_uint,
    copy_engines: c_uint,
    decoders: c_uint,
    encoders: c_uint,
    jpeg: c_uint,
    ofa: c_uint,
    slices: c_uint,
    compute_slices: c_uint,
    memory: c_ulonglong,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetAttributes_v2(handle: *mut c_void, out: *mut Attributes) -> c_int {
    let Some(numbers) = of(handle) else { return INVALID_ARGUMENT };
    if let Err(code) = reading(handle, "attributes", "") {
        return code;
    }
    let number = |at: usize| numbers.get(at).copied().unwrap_or(0) as c_uint;
    let attributes = Attributes {
        sms: number(2),
        copy_engines: number(3),
        decoders: number(3),
        encoders: 0,
        jpeg: number(3),
        ofa: number(7),
        slices: number(3),
        compute_slices: number(4),
        memory: numbers[5],
    };
    unsafe { out.write(attributes) };
    SUCCESS
}
