//! Whether a GPU answers, and how fast.

use super::driver::{self, STUCK_UNHEALTHY_S};
use super::facts::Facts;
use super::findings::Findings;
use crate::gpu::place::Place;
use crate::gpu::sample::{Gpu, GpuError, GpuErrorKind, SLOW_READ};
use crate::health::history::Track;
use crate::health::verdict::{Code, Verdict};

/// The reason for a GPU's own error.
pub(super) fn error_reason(gpu: &Gpu, error: &GpuError, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    match error.kind {
        GpuErrorKind::Slow | GpuErrorKind::NoAnswer => silent(gpu, error, findings),
        GpuErrorKind::NotGiven => not_given(gpu, &error.message, facts, findings),
        kind => {
            let (code, action) = no_answer(kind, gpu, findings.place);
            let message = format!("GPU {}: not responding: {}", gpu.index, error.message);
            findings.add(code, Verdict::Unhealthy, Some(gpu), message, action);
        }
    }
}

/// The code of a GPU that does not answer, and what to do about it.
fn no_answer(kind: GpuErrorKind, gpu: &Gpu, place: Place) -> (Code, String) {
    let handle = |action| (Code::GpuHandleError, action);
    match kind {
        GpuErrorKind::Lost => {
            let action =
                format!("{}. If the GPU drops off again, check its power cables and reseat it.", place.reboot());
            (Code::GpuLost, action)
        }
        GpuErrorKind::ResetRequired => (Code::ResetRequired, format!("{}.", place.reset_or_reboot(gpu))),
        GpuErrorKind::NoPower => handle(
            "Switch the machine off and attach all power cables of the card. Check that the power supply is strong enough."
                .into(),
        ),
        GpuErrorKind::NotReady => {
            handle(format!("Wait a minute: it may still be starting. If it persists: {}", place.check_logs(gpu.vendor)))
        }
        GpuErrorKind::Stale => handle(format!(
            "Wait: the driver's library is loaded again automatically. If it persists, the driver was unloaded or upgraded, or lost the GPU: \
             check `dmesg`{} and reboot.",
            place.on_the_host()
        )),
        GpuErrorKind::Slow | GpuErrorKind::NotGiven | GpuErrorKind::Other | GpuErrorKind::NoAnswer => {
            handle(format!("{} A reboot usually fixes this.", place.check_logs(gpu.vendor)))
        }
    }
}

/// A GPU that this process may not use. The card may be healthy and belong to another container: only a count below the
/// expected one is a fault, and GPU_COUNT_LOW reports that.
fn not_given(gpu: &Gpu, why: &str, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // EXPECTED_GPUS is met, or no GPU can be used: then the count says it all.
    if !driver::any_given(facts.gpu) || driver::enough(facts) {
        return;
    }
    findings.add(
        Code::NvmlNoPermission,
        Verdict::Degraded,
        Some(gpu),
        format!("GPU {}: the worker may not use it: {why}", gpu.index),
        findings.place.give_this_gpu(),
    );
}

/// A GPU that does not answer while others do.
fn silent(gpu: &Gpu, error: &GpuError, findings: &mut Findings<'_>) {
    let seconds = gpu.read_us.map_or(0.0, |us| (us as f64 / 1e6).floor());
    let (code, severity, action) = if seconds >= STUCK_UNHEALTHY_S {
        (Code::DriverStuck, Verdict::Unhealthy, findings.place.driver_hangs(gpu.vendor))
    } else {
        let action = format!("Wait. If it returns: {}", persistence(gpu, findings));
        (Code::GpuSlow, Verdict::Unknown, action)
    };
    let message = format!("GPU {}: {}", gpu.index, error.message);
    findings.add(code, severity, Some(gpu), message, action).numbers(seconds, STUCK_UNHEALTHY_S);
}

/// A GPU that answers slowly each time.
pub(super) fn slow(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let Some(us) = gpu.read_us.filter(|_| track.slow.held()) else { return };
    let seconds = (us as f64 / 1e5).round() / 10.0;
    let message = format!("GPU {}: takes {seconds} s to answer", gpu.index);
    let action = format!("{} Check the riser and the slot.", persistence(gpu, findings));
    findings
        .add(Code::GpuSlow, Verdict::Degraded, Some(gpu), message, action)
        .numbers(seconds, SLOW_READ.as_secs_f64());
}

fn persistence(gpu: &Gpu, findings: &Findings<'_>) -> String {
    let place = findings.place;
    if gpu.vendor.is_amd() {
        return place.check_logs(gpu.vendor);
    }
    format!("Check `dmesg`{} and enable persistence mode ({}).", place.on_the_host(), place.smi(gpu, "-pm 1"))
}
