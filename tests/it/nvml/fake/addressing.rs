//! `addressing`: NVML's number of the addressing mode, 0 none, 1 HMM, 2 ATS. By default the driver does not have the call,
//! like those before 580.

use std::ffi::{c_int, c_uint, c_void};

use crate::put;

const FUNCTION_NOT_FOUND: &str = "err:13";

/// nvmlDeviceAddressingMode_v1_t.
#[repr(C)]
pub struct Mode {
    version: c_uint,
    value: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetAddressingMode(handle: *mut c_void, out: *mut Mode) -> c_int {
    let mode = unsafe { &mut *out };
    if mode.version as usize != size_of::<Mode>() | 1 << 24 {
        return 25; // NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    }
    put(handle, "addressing", FUNCTION_NOT_FOUND, &raw mut mode.value)
}
