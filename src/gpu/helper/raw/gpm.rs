//! GPM: the activity of a GPU's units, as the difference of two samples. nvml-wrapper allocates a buffer for each sample and
//! three texts for each metric: here two buffers are kept, which nvml-wrapper frees.

use std::mem;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, GpmSample};
use nvml_wrapper_sys::bindings as c;

/// A buffer for samples of this library. It is freed when it is dropped.
///
/// # Errors
/// NVML's, here and below.
pub(crate) fn buffer(device: &Device<'static>) -> Result<GpmSample<'static>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlGpmSampleAlloc.as_ref())?;
    let mut handle: c::nvmlGpmSample_t = std::ptr::null_mut();
    // SAFETY: the library is never unloaded, and it writes one pointer.
    nvml_try(unsafe { call(&raw mut handle) })?;
    // SAFETY: the handle was just allocated by this library, and nothing else frees it.
    Ok(unsafe { GpmSample::from_handle(device.nvml(), handle) })
}

/// Fills `buffer` with the counters of the GPU, or of this GPU instance of it.
pub(crate) fn sample(device: &Device<'_>, instance: Option<u32>, buffer: &mut GpmSample<'_>) -> Result<(), NvmlError> {
    let library = device.nvml().lib();
    nvml_try(match instance {
        None => {
            let call = nvml_sym(library.nvmlGpmSampleGet.as_ref())?;
            // SAFETY: the device is alive as long as its reference, and the buffer as long as `buffer`, here and below.
            unsafe { call(device.handle(), buffer.handle()) }
        }
        Some(id) => {
            let call = nvml_sym(library.nvmlGpmMigSampleGet.as_ref())?;
            // SAFETY: as above.
            unsafe { call(device.handle(), id, buffer.handle()) }
        }
    })
}

/// Metrics between two samples, by nvml.h's numbers: NVML's return code of each, and its value.
pub(crate) fn metrics<const N: usize>(
    older: &GpmSample<'static>,
    newer: &GpmSample<'static>,
    ids: [u32; N],
) -> Result<[(u32, f64); N], NvmlError> {
    const { assert!(N <= c::nvmlGpmMetricId_t_NVML_GPM_METRIC_MAX as usize) };
    let call = nvml_sym(newer.nvml().lib().nvmlGpmMetricsGet.as_ref())?;
    // SAFETY: the struct holds only numbers and pointers, for which zero bits are valid.
    let mut all: c::nvmlGpmMetricsGet_t = unsafe { mem::zeroed() };
    all.version = c::NVML_GPM_METRICS_GET_VERSION;
    all.numMetrics = u32::try_from(N).unwrap_or_default();
    // SAFETY: as above.
    (all.sample1, all.sample2) = unsafe { (older.handle(), newer.handle()) };
    for (metric, id) in all.metrics.iter_mut().zip(ids) {
        metric.metricId = id;
    }
    // SAFETY: the array has more than `numMetrics` elements.
    nvml_try(unsafe { call(&raw mut all) })?;
    let mut values = [(0, 0.0); N];
    for (value, metric) in values.iter_mut().zip(&all.metrics) {
        *value = (metric.nvmlReturn, metric.value);
    }
    Ok(values)
}
