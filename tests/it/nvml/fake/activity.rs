//! What a GPU did lately, as the driver's buffers have it: `samples`, and `used_by` for processes.
//!
//! `samples=3` is a buffer of the last 20 s, a sample of 3 % each 100 ms. `samples=1000:3,1200:87` are samples of 3 and 87 %
//! at these microseconds, and `samples=` is an empty buffer. `used_by` has processes: `4242:37` used 37 % of the GPU just
//! now, `1000:4242:37` at this microsecond; `used_by=err:6` is a GPU that none used. In both `hang` never returns, `sleep:MS`
//! returns an empty list MS milliseconds later, and `claims:N` is a driver that claims to have N elements. `sample_type` is NVML's number of the samples' type.
//!
//! Compared with NVIDIA's documents and the calls of nvml-wrapper alone, never with a driver at work. NVIDIA's libraries have
//! both functions, except 340.108, which lacks that of processes (`real_nvml.rs`).

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::INSUFFICIENT_SIZE;
use crate::{INVALID_ARGUMENT, SUCCESS, misbehave, put, reading};

const NOT_FOUND: c_int = 6;
const GPU_UTILIZATION: c_int = 1;
/// Microseconds between two samples, and samples that are kept.
const PERIOD: u64 = 100_000;
const KEPT: u64 = 200;

/// Microseconds of the wall clock, which is what drivers were seen to use.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A reading that may misbehave, or be `claims:N`: N as the error.
fn list(handle: *mut c_void, name: &str, default: &str) -> Result<Result<String, c_uint>, c_int> {
    let mut text = reading(handle, name, default)?;
    if text == "hang" || text.starts_with("sleep:") {
        misbehave(&text);
        text.clear();
    }
    Ok(match text.strip_prefix("claims:") {
        Some(count) => Err(count.parse().unwrap()),
        None => Ok(text),
    })
}

/// nvmlSample_t; its value is one of several types of 8 bytes at most.
#[repr(C)]
pub struct Sample {
    at: c_ulonglong,
    value: u64,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSamples(
    handle: *mut c_void,
    kind: c_int,
    last_seen: c_ulonglong,
    value_kind: *mut c_uint,
    count: *mut c_uint,
    out: *mut Sample,
) -> c_int {
    let text = match list(handle, "samples", "3") {
        Ok(Ok(text)) if kind == GPU_UTILIZATION => text,
        Ok(Err(claim)) => unsafe {
            *count = claim;
            return if out.is_null() { SUCCESS } else { INVALID_ARGUMENT };
        },
        Ok(Ok(_)) => return INVALID_ARGUMENT,
        Err(code) => return code,
    };
    let newest = now() / PERIOD;
    let all: Vec<Sample> = match text.parse::<u64>() {
        Ok(value) => (newest - KEPT..=newest).map(|number| Sample { at: number * PERIOD, value }).collect(),
        Err(_) => {
            let pairs = text.split(',').filter_map(|one| one.split_once(':'));
            pairs.map(|(at, value)| Sample { at: at.parse().unwrap(), value: value.parse().unwrap() }).collect()
        }
    };
    let new: Vec<Sample> = all.into_iter().filter(|sample| sample.at > last_seen).collect();
    if new.is_empty() {
        return NOT_FOUND;
    }
    put(handle, "sample_type", "1", value_kind);
    if out.is_null() {
        unsafe { *count = new.len() as c_uint };
        return SUCCESS;
    }
    // As many as there is room for.
    let room = unsafe { *count } as usize;
    if room == 0 {
        return INVALID_ARGUMENT;
    }
    unsafe { *count = new.len().min(room) as c_uint };
    for (i, sample) in new.into_iter().take(room).enumerate() {
        // Above the half that is meant there may be anything.
        unsafe { out.add(i).write(Sample { value: sample.value | 0xdead_beef << 32, ..sample }) };
    }
    SUCCESS
}

/// nvmlProcessUtilizationSample_t.
#[repr(C)]
pub struct ProcessSample {
    pid: c_uint,
    at: c_ulonglong,
    sm: c_uint,
    memory: c_uint,
    encoder: c_uint,
    decoder: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetProcessUtilization(
    handle: *mut c_void,
    out: *mut ProcessSample,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> c_int {
    let text = match list(handle, "used_by", "err:6") {
        Ok(Ok(text)) => text,
        Ok(Err(claim)) => unsafe {
            *count = claim;
            return INSUFFICIENT_SIZE;
        },
        Err(code) => return code,
    };
    let parse = |one: &str| {
        let numbers: Vec<u64> = one.split(':').filter_map(|part| part.parse().ok()).collect();
        let (at, pid, sm) = match numbers[..] {
            [at, pid, sm] => (at, pid, sm),
            [pid, sm] => (now(), pid, sm),
            _ => return None,
        };
        Some(ProcessSample { pid: pid as c_uint, at, sm: sm as c_uint, memory: 1, encoder: 0, decoder: 0 })
    };
    let new: Vec<_> = text.split(',').filter_map(parse).filter(|process| process.at > last_seen).collect();
    if new.is_empty() {
        return NOT_FOUND;
    }
    let room = unsafe { std::mem::replace(&mut *count, new.len() as c_uint) };
    if out.is_null() || new.len() > room as usize {
        return INSUFFICIENT_SIZE;
    }
    for (i, process) in new.into_iter().enumerate() {
        unsafe { out.add(i).write(process) };
    }
    SUCCESS
}
