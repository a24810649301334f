//! Memory repairs and the NVLink fabric, as newer drivers report them. By default a GPU has none of these.
//!
//! Structs and version words are those of nvml.h 13.5, their figures those of `nvidia-smi -q` of the boards in `boards.rs`.
//! No driver at work was asked.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use crate::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, numbers, put, reading};

const VERSION_MISMATCH: c_int = 25;

/// nvmlEccSramErrorStatus_v1_t.
#[repr(C)]
pub struct SramStatus {
    version: c_uint,
    counts: [c_ulonglong; 11],
    threshold_exceeded: c_uint,
}

/// `sram`: 1 where the threshold is exceeded. `sram=err:4` is what a user other than root gets.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSramEccErrorStatus(handle: *mut c_void, out: *mut SramStatus) -> c_int {
    let status = unsafe { &mut *out };
    if status.version != 0x0100_0068 {
        return VERSION_MISMATCH;
    }
    status.counts = [7; 11];
    put(handle, "sram", NOT_SUPPORTED, &raw mut status.threshold_exceeded)
}

/// nvmlRepairStatus_v1_t.
#[repr(C)]
pub struct RepairStatus {
    version: c_uint,
    channel: c_uint,
    tpc: c_uint,
}

/// `repair`: 1 for a pending repair, as `channel/tpc`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRepairStatus(handle: *mut c_void, out: *mut RepairStatus) -> c_int {
    let status = unsafe { &mut *out };
    if status.version != 0x0100_000c {
        return VERSION_MISMATCH;
    }
    match numbers(handle, "repair", NOT_SUPPORTED).as_deref() {
        Ok([channel, tpc]) => (status.channel, status.tpc) = (*channel, *tpc),
        Ok(_) => return INVALID_ARGUMENT,
        Err(code) => return *code,
    }
    SUCCESS
}

/// `unrepairable`: 1 where no repair helps.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUnrepairableMemoryFlag_v1(handle: *mut c_void, out: *mut c_uint) -> c_int {
    put(handle, "unrepairable", NOT_SUPPORTED, out)
}

/// `spares`: banks by what they have left, as `max/high/partial/low/none`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetRowRemapperHistogram(handle: *mut c_void, out: *mut [c_uint; 5]) -> c_int {
    match numbers(handle, "spares", NOT_SUPPORTED).map(<[c_uint; 5]>::try_from) {
        Ok(Ok(banks)) => unsafe { *out = banks },
        Ok(Err(_)) => return INVALID_ARGUMENT,
        Err(code) => return code,
    }
    SUCCESS
}

/// nvmlGpuFabricInfo_v3_t; version 2 ends before the last field.
#[repr(C)]
pub struct FabricInfo {
    version: c_uint,
    cluster: [u8; 16],
    status: c_uint,
    clique: c_uint,
    state: u8,
    mask: c_uint,
    summary: u8,
}

/// nvmlGpuFabricInfo_t.
#[repr(C)]
pub struct FirstFabricInfo {
    cluster: [u8; 16],
    status: c_uint,
    clique: c_uint,
    state: u8,
}

/// `fabric`: nvml.h's numbers as `state/status/mask/summary`.
fn fabric(handle: *mut c_void) -> Result<[c_uint; 4], c_int> {
    numbers(handle, "fabric", NOT_SUPPORTED)?.try_into().map_err(|_| INVALID_ARGUMENT)
}

/// `fabric_version`: the newest version that the driver knows; 1 has a function of its own, `err:13` with this one.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuFabricInfoV(handle: *mut c_void, out: *mut FabricInfo) -> c_int {
    let newest = match reading(handle, "fabric_version", "3") {
        Ok(newest) => newest,
        Err(code) => return code,
    };
    let version = unsafe { (*out).version };
    let summarized = match version {
        0x0300_0028 if newest == "3" => true,
        0x0200_0024 => false,
        _ => return VERSION_MISMATCH,
    };
    match fabric(handle) {
        Ok([state, status, mask, summary]) => unsafe {
            (*out).cluster = [0; 16];
            ((*out).status, (*out).clique, (*out).state) = (status, 0, state as u8);
            (*out).mask = mask;
            if summarized {
                (*out).summary = summary as u8;
            }
            SUCCESS
        },
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGpuFabricInfo(handle: *mut c_void, out: *mut FirstFabricInfo) -> c_int {
    match fabric(handle) {
        Ok([state, status, ..]) => unsafe {
            *out = FirstFabricInfo { cluster: [0; 16], status, clique: 0, state: state as u8 };
            SUCCESS
        },
        Err(code) => code,
    }
}
