//! The readings that each GPU has had. Health is judged by some of them: one that ends has failed, whatever the driver's
//! error, because a value that is unknown now must not count as a good one. It is remembered here, so that it outlives the
//! helper.

use std::collections::{BTreeMap, BTreeSet};

use crate::gpu::readings::{Gpu, READINGS};
use crate::gpu::sample::Failure;
use crate::gpu::state::GpuState;

/// GPUs that are remembered: more than any machine has.
const MAX_GPUS: usize = 512;
const WORDS: &str = "the driver reported it before and now calls it unsupported";

/// By the UUID of the GPU.
#[derive(Debug, Default)]
pub(super) struct Worked {
    gpus: BTreeMap<String, BTreeSet<&'static str>>,
    driver: Option<String>,
}

impl Worked {
    /// Remembers what works, and makes failures of what has ended.
    pub(super) fn see(&mut self, state: &mut GpuState) {
        let driver = state.sample().and_then(|sample| sample.driver_version.as_ref());
        if let Some(driver) = driver.filter(|driver| self.driver.as_ref() != Some(driver)) {
            // Another driver may have other readings.
            self.gpus.clear();
            self.driver = Some(driver.clone());
        }
        state.gpus_mut().iter_mut().for_each(|gpu| self.see_gpu(gpu));
    }

    fn see_gpu(&mut self, gpu: &mut Gpu) {
        // A Tegra board's GPU has no UUID, and its sensors are off while it idles.
        let Some(uuid) = gpu.uuid.clone() else { return };
        // In MIG mode most readings of the whole GPU end.
        if !gpu.usable() || gpu.asleep || gpu.mig_mode == Some(true) {
            return;
        }
        if self.gpus.len() >= MAX_GPUS && !self.gpus.contains_key(&uuid) {
            return;
        }
        let worked = self.gpus.entry(uuid).or_default();
        for reading in READINGS.iter().filter(|reading| reading.lasting && (reading.shown)(gpu).is_some()) {
            worked.insert(reading.name);
        }
        for gaps in [&mut gpu.gaps, &mut gpu.slow_gaps, &mut gpu.fixed_gaps] {
            let failed = &mut gaps.failed;
            gaps.unsupported.retain(|name| {
                let ended = worked.contains(name.as_str());
                if ended {
                    failed.insert(name.clone(), Failure { words: WORDS.into(), of_device: false });
                }
                !ended
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::sample::{Gaps, GpuSample};

    /// A GPU with a temperature and a fan, or without both.
    fn gpu(known: bool) -> Gpu {
        let mut gpu = Gpu { uuid: Some("GPU-0".into()), ..Gpu::default() };
        let names = ["temperature_c", "recovery_action", "performance_state"];
        if known {
            (gpu.temperature_c, gpu.recovery_action, gpu.performance_state) = (Some(40), Some(0), Some(8));
        } else {
            gpu.gaps = Gaps { unsupported: names.map(str::to_owned).into(), ..Gaps::default() };
        }
        gpu
    }

    fn seen(worked: &mut Worked, gpu: Gpu, driver: Option<&str>) -> Gpu {
        let driver_version = driver.map(str::to_owned);
        let mut state = GpuState::Sample(GpuSample { driver_version, gpus: vec![gpu], ..GpuSample::default() });
        worked.see(&mut state);
        state.gpus()[0].clone()
    }

    #[track_caller]
    fn has_ended(gpu: &Gpu, expect: &[&str]) {
        assert_eq!(gpu.failed().map(|(name, _)| name).collect::<Vec<_>>(), expect);
        assert_eq!(gpu.unsupported().count(), 3 - expect.len());
    }

    #[test]
    fn what_health_is_judged_by_must_not_end() {
        let mut worked = Worked::default();
        has_ended(&seen(&mut worked, gpu(false), Some("550.1")), &[]);
        seen(&mut worked, gpu(true), Some("550.1"));
        let ended = ["recovery_action", "temperature_c"];
        has_ended(&seen(&mut worked, gpu(false), Some("550.1")), &ended);
        // Between two helpers there is no sample, and a version that could not be read is not another one.
        worked.see(&mut GpuState::Pending);
        has_ended(&seen(&mut worked, gpu(false), None), &ended);
        has_ended(&seen(&mut worked, gpu(false), Some("550.1")), &ended);
        has_ended(&seen(&mut worked, gpu(false), Some("535.2")), &[]);
    }

    #[test]
    fn a_gpu_that_is_another_one_or_in_another_state_may_end_its_readings() {
        let mut worked = Worked::default();
        seen(&mut worked, gpu(true), None);
        has_ended(&seen(&mut worked, Gpu { mig_mode: Some(true), ..gpu(false) }, None), &[]);
        has_ended(&seen(&mut worked, Gpu { asleep: true, ..gpu(false) }, None), &[]);
        has_ended(&seen(&mut worked, Gpu { uuid: Some("GPU-1".into()), ..gpu(false) }, None), &[]);
        seen(&mut worked, Gpu { uuid: None, ..gpu(true) }, None);
        has_ended(&seen(&mut worked, Gpu { uuid: None, ..gpu(false) }, None), &[]);
        has_ended(&seen(&mut worked, gpu(false), None), &["recovery_action", "temperature_c"]);
    }
}
