//! The rules: one moment and its past in, all current reasons out. Thresholds follow gpud, DCGM, nvidia_gpu_exporter
//! and NVIDIA's XID catalogue.

mod amd;
mod driver;
mod fabric;
mod facts;
mod findings;
mod gpu;
mod heat;
mod memory;
mod presence;
mod probes;
mod service;

use super::verdict::{Code, Reason, Verdict};
use crate::gpu::place::Place;
use crate::gpu::state::GpuState;
use crate::sys::order;
use findings::Findings;

pub(crate) use facts::Facts;

/// All current reasons, worst first. `before` are those of the last moment: a reason that persists keeps its `since`.
/// `now`: Unix seconds.
pub(crate) fn reasons(facts: &Facts<'_>, before: &[Reason], now: f64) -> Vec<Reason> {
    let mut findings = Findings::new(before, now, facts.host.place);
    driver::driver_reasons(facts, &mut findings);
    gpu::gpu_reasons(facts, &mut findings);
    amd::of_others(facts, &mut findings);
    service::service_reasons(facts, &mut findings);
    findings.worst_first()
}

/// A command that asks once cannot wait for a second look: a driver that did not answer until the timeout, or a helper
/// that crashed again, is unhealthy, however short that was.
pub(crate) fn settle(reasons: &mut [Reason], gpus: &GpuState, place: Place) {
    for reason in reasons.iter_mut() {
        if reason.code == Code::GpuSlow && reason.severity == Verdict::Unknown {
            reason.recode(Code::DriverStuck);
        }
        let on_the_host = place.on_the_host();
        let gpu = gpus.gpus().iter().find(|gpu| reason.gpu.as_ref() == Some(&gpu.id()));
        let vendor = gpu.map_or(gpus.vendor(), |gpu| gpu.vendor);
        reason.action = match reason.code {
            Code::DriverStuck => {
                let keep_loaded = format!("enable persistence mode (`nvidia-smi -pm 1`{on_the_host}) or ");
                format!(
                    "{} If the driver only starts slowly, {}raise --timeout.",
                    place.driver_hangs(vendor),
                    vendor.pick(keep_loaded.as_str(), "")
                )
            }
            Code::NvmlHelperFailed if reason.action == driver::ONE_BUILD => driver::ONE_BUILD.into(),
            Code::NvmlHelperFailed => {
                let then = vendor.pick(" If nvidia-smi crashes too, reinstall the driver.", "");
                place.check_logs(vendor) + then
            }
            _ => continue,
        }
        .into();
        (reason.severity, reason.value, reason.threshold) = (Verdict::Unhealthy, None, None);
    }
    order::sort_by_key(reasons, |reason| std::cmp::Reverse(reason.severity));
}

#[cfg(test)]
mod tests;
