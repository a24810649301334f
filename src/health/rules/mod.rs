//! The rules: one moment and its past in, all current reasons out. Thresholds follow gpud, DCGM, nvidia_gpu_exporter
//! and NVIDIA's XID catalogue.

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
use crate::sys::order;
use findings::Findings;

pub(crate) use facts::Facts;

/// All current reasons, worst first. `before` are those of the last moment: a reason that persists keeps its `since`.
/// `now`: Unix seconds.
pub(crate) fn reasons(facts: &Facts<'_>, before: &[Reason], now: f64) -> Vec<Reason> {
    let mut findings = Findings::new(before, now, facts.host.place);
    driver::driver_reasons(facts, &mut findings);
    gpu::gpu_reasons(facts, &mut findings);
    service::service_reasons(facts, &mut findings);
    findings.worst_first()
}

/// A command that asks once cannot wait for a second look: a driver that did not answer until the timeout, or a helper
/// that crashed again, is unhealthy, however short that was.
pub(crate) fn settle(reasons: &mut [Reason], place: Place) {
    for reason in reasons.iter_mut() {
        if reason.code == Code::GpuSlow && reason.severity == Verdict::Unknown {
            reason.recode(Code::DriverStuck);
        }
        let on_the_host = place.on_the_host();
        reason.action = match reason.code {
            Code::DriverStuck => format!(
                "{} {} if nvidia-smi hangs too. If the driver only starts slowly, enable persistence mode \
                 (`nvidia-smi -pm 1`{on_the_host}) or raise --timeout.",
                place.check_logs(),
                place.reboot()
            ),
            Code::NvmlHelperFailed if reason.action == driver::ONE_BUILD => driver::ONE_BUILD.into(),
            Code::NvmlHelperFailed => {
                format!("{} If nvidia-smi crashes too, reinstall the driver.", place.check_logs())
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
