//! GPM (Hopper and later): how busy the units of a GPU were between two fast samples. One call takes a sample, one compares
//! it with the last; nothing waits.

use std::mem;
use std::time::{Duration, Instant};

use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, GpmSample};
use nvml_wrapper_sys::bindings as c;

use super::final_calls::is_final;
use super::raw;
use super::reading_log::ReadingLog;
use crate::gpu::plausible;
use crate::gpu::sample::Gpu;

/// The driver renews its counters at this pace: closer samples compare nothing.
const SHORTEST: Duration = Duration::from_millis(100);
/// Twice the longest SAMPLE_INTERVAL: what is farther apart was interrupted.
const LONGEST: Duration = Duration::from_secs(600);

/// nvml.h's numbers and our names.
const METRICS: [(u32, &str); 5] = [
    (c::nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL, "sm_activity_percent"),
    (c::nvmlGpmMetricId_t_NVML_GPM_METRIC_ANY_TENSOR_UTIL, "tensor_activity_percent"),
    (c::nvmlGpmMetricId_t_NVML_GPM_METRIC_DRAM_BW_UTIL, "dram_activity_percent"),
    (c::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_TX_PER_SEC, "pcie_sent_mib_per_second"),
    (c::nvmlGpmMetricId_t_NVML_GPM_METRIC_PCIE_RX_PER_SEC, "pcie_received_mib_per_second"),
];
const NAMES: [&str; 5] = [METRICS[0].1, METRICS[1].1, METRICS[2].1, METRICS[3].1, METRICS[4].1];

/// Return code and value of each metric.
type Values = [(u32, f64); METRICS.len()];

/// The samples of one GPU, or of one GPU instance.
#[derive(Default)]
pub(super) struct Gpm {
    /// The id of the GPU instance; None: the whole GPU.
    instance: Option<u32>,
    support: Support,
}

/// SM, tensor and DRAM activity in percent.
pub(super) type Activity = [Option<f64>; 3];

#[derive(Default)]
enum Support {
    #[default]
    Untried,
    Missing,
    Kept(Box<Samples>),
}

/// Two buffers that are used in turn. They are freed with the GPU.
struct Samples {
    last: GpmSample<'static>,
    next: GpmSample<'static>,
    /// When `last` was filled; None: it holds nothing.
    at: Option<Instant>,
    values: Option<Values>,
}

impl Gpm {
    pub(super) fn of_instance(id: u32) -> Self {
        Self { instance: Some(id), support: Support::Untried }
    }

    /// Reads the activity of a GPU instance. What it lacks is not a fault of the GPU.
    pub(super) fn activity(&mut self, device: &Device<'static>, probing: bool, log: &mut ReadingLog<'_>) -> Activity {
        let [sm, tensor, dram, ..] = self.values(device, probing, &[], log);
        [sm, tensor, dram]
    }

    /// Reads the activity of the whole GPU. `probing`: this sample is a probe's, between those of SAMPLE_INTERVAL.
    pub(super) fn read(&mut self, device: &Device<'static>, gpu: &mut Gpu, probing: bool, log: &mut ReadingLog<'_>) {
        let [sm, tensor, dram, sent, received] = self.values(device, probing, &NAMES, log);
        (gpu.sm_activity_percent, gpu.tensor_activity_percent, gpu.dram_activity_percent) = (sm, tensor, dram);
        (gpu.pcie_sent_mib_per_second, gpu.pcie_received_mib_per_second) = (sent, received);
    }

    /// Forgets the last sample: the GPU did not answer in between.
    pub(super) fn interrupt(&mut self) {
        if let Support::Kept(samples) = &mut self.support {
            (samples.at, samples.values) = (None, None);
        }
    }

    /// The metrics since the last sample. `names`: of the readings that the log gets the reasons for what is missing.
    fn values(
        &mut self,
        device: &Device<'static>,
        probing: bool,
        names: &[&str],
        log: &mut ReadingLog<'_>,
    ) -> [Option<f64>; METRICS.len()] {
        let values = self.compared(device, probing, names, log);
        values.map(|values| checked(values, names, log)).unwrap_or_default()
    }

    /// None: there are none, or not yet.
    fn compared(
        &mut self,
        device: &Device<'static>,
        probing: bool,
        names: &[&str],
        log: &mut ReadingLog<'_>,
    ) -> Option<Values> {
        if matches!(self.support, Support::Untried) {
            self.support = log.at("gpm_support", names, || start(device))?;
        }
        let Support::Kept(samples) = &mut self.support else {
            names.iter().for_each(|name| log.unsupported(name));
            return None;
        };
        let now = Instant::now();
        let age = samples.at.map(|at| now.duration_since(at));
        if probing || age.is_some_and(|age| age < SHORTEST) {
            if samples.values.is_none() {
                names.iter().for_each(|name| log.pending(name));
            }
            return samples.values;
        }
        let mut refused = false;
        let instance = self.instance;
        let taken = log.at("gpm_sample", names, || {
            let taken = raw::gpm::sample(device, instance, &mut samples.next);
            refused = taken.as_ref().is_err_and(is_final);
            taken
        });
        (samples.at, samples.values) = (taken.map(|()| now), None);
        if refused {
            self.support = Support::Missing;
            return None;
        }
        taken?;
        mem::swap(&mut samples.last, &mut samples.next);
        if age.is_none_or(|age| age > LONGEST) {
            names.iter().for_each(|name| log.pending(name));
            return None;
        }
        samples.values = log.at("gpm_metrics", names, || {
            // After the swap the older one is in `next`.
            raw::gpm::metrics(&samples.next, &samples.last, METRICS.map(|(id, _)| id))
        });
        samples.values
    }
}

/// Whether this GPU has GPM, which is decided once.
fn start(device: &Device<'static>) -> Result<Support, NvmlError> {
    match device.gpm_support() {
        Ok(false) => Ok(Support::Missing),
        Ok(true) => {
            let samples =
                Samples { last: raw::gpm::buffer(device)?, next: raw::gpm::buffer(device)?, at: None, values: None };
            Ok(Support::Kept(Box::new(samples)))
        }
        Err(why) if is_final(&why) => Ok(Support::Missing),
        Err(why) => Err(why),
    }
}

fn checked(values: Values, names: &[&str], log: &mut ReadingLog<'_>) -> [Option<f64>; METRICS.len()] {
    let mut all = [None; METRICS.len()];
    for (at, (code, value)) in values.into_iter().enumerate() {
        let logged = names.get(at..=at).unwrap_or_default();
        let value = log.take(logged, nvml_try(code).map(|()| value));
        all[at] = value.and_then(|value| {
            let checked = plausible::check_decimal(NAMES[at], value);
            checked.map_err(|why| logged.iter().for_each(|name| log.fail(name, &why))).ok()
        });
    }
    all
}
