//! Whether a GPU answers at all, and how soon.

use super::driver::{self, STUCK_UNHEALTHY_S};
use super::{Facts, Findings};
use crate::gpu::sample::{Gpu, GpuError, GpuErrorKind, SLOW_READ};
use crate::health::reading_log::Track;
use crate::health::verdict::{Code, Verdict};

/// A GPU with an error of its own.
pub(super) fn judge(gpu: &Gpu, error: &GpuError, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    match error.kind {
        GpuErrorKind::Slow => silent(gpu, error, findings),
        GpuErrorKind::NotGiven => not_given(gpu, &error.message, facts, findings),
        kind => {
            let (code, action) = no_answer(kind);
            let message = format!("GPU {} does not answer: {}", gpu.index, error.message);
            findings.add(code, Verdict::Unhealthy, Some(gpu), message, action);
        }
    }
}

/// The code of a GPU that does not answer, and what to do about it.
fn no_answer(kind: GpuErrorKind) -> (Code, &'static str) {
    match kind {
        GpuErrorKind::Lost => (Code::GpuLost, "reboot the machine; if the GPU is lost again, check its power and seat"),
        GpuErrorKind::ResetRequired => (Code::ResetRequired, "stop its users and run nvidia-smi -r, or reboot"),
        GpuErrorKind::NoPower => (
            Code::GpuHandleError,
            "switch the machine off and attach all power cables of the card; check that the power supply is strong enough",
        ),
        GpuErrorKind::NotReady => (
            Code::GpuHandleError,
            "wait a minute, it may still be starting; if this lasts, look at dmesg and nvidia-smi",
        ),
        GpuErrorKind::Stale => (
            Code::GpuHandleError,
            "NVML is started again by itself; if this lasts, the driver was unloaded, upgraded or lost the GPU: look at dmesg, reboot",
        ),
        GpuErrorKind::Slow | GpuErrorKind::NotGiven | GpuErrorKind::Other | GpuErrorKind::NoAnswer => {
            (Code::GpuHandleError, "look at dmesg and nvidia-smi; a reboot usually fixes it")
        }
    }
}

/// A GPU that this process may not use. The card may be perfectly well, in another container's hands: a fault is only
/// that there are fewer than there should be, which the count says.
fn not_given(gpu: &Gpu, why: &str, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // The operator says how many there are to be, or none can be used: the count says all of it.
    if !driver::any_given(facts.gpu) || driver::enough(facts) {
        return;
    }
    findings.add(
        Code::NvmlNoPermission,
        Verdict::Degraded,
        Some(gpu),
        format!("GPU {} was not given to this container or user: {why}", gpu.index),
        "give it to the container (NVIDIA_VISIBLE_DEVICES, --gpus, group_add), or set EXPECTED_GPUS to the number that it has",
    );
}

/// A GPU that has been asked and does not answer, while others do.
fn silent(gpu: &Gpu, error: &GpuError, findings: &mut Findings<'_>) {
    let seconds = gpu.read_us.map_or(0.0, |us| (us as f64 / 1e6).floor());
    let (code, severity, action) = if seconds >= STUCK_UNHEALTHY_S {
        let action = "look at dmesg and run nvidia-smi on the host; reboot if that hangs as well";
        (Code::DriverStuck, Verdict::Unhealthy, action)
    } else {
        (Code::GpuSlow, Verdict::Unknown, "wait; if this comes back, look at dmesg and enable persistence mode")
    };
    let message = format!("GPU {}: {}", gpu.index, error.message);
    findings.add(code, severity, Some(gpu), message, action).numbers(seconds, STUCK_UNHEALTHY_S);
}

/// A GPU that answers, but keeps others waiting each time.
pub(super) fn slow(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let Some(us) = gpu.read_us.filter(|_| track.slow.held()) else { return };
    let seconds = (us as f64 / 1e5).round() / 10.0;
    let message = format!("GPU {} takes {seconds} s to answer", gpu.index);
    let action = "look at dmesg; enable persistence mode (nvidia-smi -pm 1), check riser and slot";
    findings
        .add(Code::GpuSlow, Verdict::Degraded, Some(gpu), message, action)
        .numbers(seconds, SLOW_READ.as_secs_f64());
}
