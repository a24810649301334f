//! GPM. `gpm=37.5/12/80/1000/2000` are SM, tensor, DRAM, PCIe sent and received between any two samples; `!3` instead of a
//! number is NVML's error of that metric, `nan` and `inf` are numbers as well. A GPU without `gpm` does not support it, and
//! `gpm_support=err:13` is a driver that cannot say. `gpm_sample=err:3` is what taking a sample returns, `gpm_metrics=err:3`
//! what comparing two does. Samples of different GPUs, in the wrong order or less than 100 ms apart are refused, as is a
//! buffer that was freed. A GPU instance has the same keys behind that of the first MIG instance with its id: `mig0.gpm`.
//! Samples of two that had one id after each other are compared, as if it were one.
//! Written from nvml.h 13.5; no driver at work was asked.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::{INVALID_ARGUMENT, SUCCESS, index_of, mig, put, reading};

/// Ids of nvml.h, in the order of `gpm`.
const IDS: [c_uint; 5] = [2, 5, 10, 20, 21];
const SHORTEST: Duration = Duration::from_millis(100);

/// The handle of the GPU or the instance, and when it was filled.
type Sample = (usize, Instant);

/// A handle is a buffer's place from 1 on. None: freed.
static BUFFERS: Mutex<Vec<Option<Sample>>> = Mutex::new(Vec::new());

#[repr(C)]
pub struct Support {
    version: c_uint,
    supported: c_uint,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmQueryDeviceSupport(handle: *mut c_void, out: *mut Support) -> c_int {
    let support = unsafe { &mut *out };
    if support.version != 1 {
        return 25;
    }
    let default = if reading(handle, "gpm", "").is_ok_and(|text| text.is_empty()) { "0" } else { "1" };
    put(handle, "gpm_support", default, &raw mut support.supported)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleAlloc(out: *mut *mut c_void) -> c_int {
    let mut buffers = BUFFERS.lock().unwrap();
    buffers.push(Some((usize::MAX, Instant::now())));
    unsafe { *out = buffers.len() as *mut c_void };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleFree(buffer: *mut c_void) -> c_int {
    assert!(BUFFERS.lock().unwrap()[index_of(buffer)].take().is_some(), "freed twice");
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleGet(handle: *mut c_void, buffer: *mut c_void) -> c_int {
    fill(handle, buffer)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmMigSampleGet(handle: *mut c_void, instance: c_uint, buffer: *mut c_void) -> c_int {
    match mig::first_of(handle, instance) {
        Some(handle) => fill(handle, buffer),
        None => INVALID_ARGUMENT,
    }
}

fn fill(handle: *mut c_void, buffer: *mut c_void) -> c_int {
    if let Err(code) = reading(handle, "gpm_sample", "") {
        return code;
    }
    let mut buffers = BUFFERS.lock().unwrap();
    let Some(sample) = &mut buffers[index_of(buffer)] else { return INVALID_ARGUMENT };
    *sample = (handle as usize, Instant::now());
    SUCCESS
}

/// nvmlGpmMetric_t.
#[repr(C)]
pub struct Metric {
    id: c_uint,
    result: c_int,
    value: f64,
    names: [*const c_char; 3],
}

/// nvmlGpmMetricsGet_t, whose list has as many elements as it says.
#[repr(C)]
pub struct MetricsGet {
    version: c_uint,
    count: c_uint,
    samples: [*mut c_void; 2],
    metrics: [Metric; 1],
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmMetricsGet(all: *mut MetricsGet) -> c_int {
    let (version, count, samples) = unsafe { ((*all).version, (*all).count, (*all).samples) };
    let sample = |at: usize| BUFFERS.lock().unwrap()[index_of(samples[at])];
    let (Some((of, older)), Some((other, newer))) = (sample(0), sample(1)) else { return INVALID_ARGUMENT };
    if version != 1 || of != other || newer.checked_duration_since(older).is_none_or(|apart| apart < SHORTEST) {
        return INVALID_ARGUMENT;
    }
    let handle = of as *mut c_void;
    let text = match reading(handle, "gpm_metrics", "").and_then(|_| reading(handle, "gpm", "")) {
        Ok(text) => text,
        Err(code) => return code,
    };
    let values: Vec<&str> = text.split('/').collect();
    for i in 0..count as usize {
        let metric = unsafe { &mut *(&raw mut (*all).metrics).cast::<Metric>().add(i) };
        let value = IDS.iter().position(|id| *id == metric.id).and_then(|at| values.get(at));
        (metric.result, metric.value) = match value.map(|text| (text.strip_prefix('!'), text.parse())) {
            Some((Some(code), _)) => (code.parse().unwrap(), 0.0),
            Some((None, Ok(value))) => (SUCCESS, value),
            _ => (3, 0.0),
        };
    }
    SUCCESS
}
