//! One GPU in the NVLink fabric of a machine with NVSwitches. Without NVSwitches a GPU reports no fabric.

use super::findings::Findings;
use crate::gpu::sample::Gpu;
use crate::health::history::Track;
use crate::health::verdict::{Code, Verdict};

/// The worst of what is wrong: the next is unknown as long as one before it holds.
pub(super) fn fabric_reasons(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let (index, place) = (gpu.index, findings.place);
    let manager = format!("the service nvidia-fabricmanager{}", place.on_the_host());
    let (what, action) = if track.awaits_fabric.held() {
        let what = format!(
            "not registered with its NVLink fabric for {} minutes ({}): CUDA programs fail with error 802",
            track.awaits_fabric.minutes(),
            gpu.fabric_state.as_deref().unwrap_or_default().replace('_', " ")
        );
        (what, format!("Start {manager}. It must have the driver's version."))
    } else if let Some(error) = gpu.fabric_error() {
        let action = format!("Check the log of {manager}, then restart it. {} if the error persists.", place.reboot());
        (format!("registration with its NVLink fabric failed: {error}"), action)
    } else if let Some(health) = gpu.fabric_fault() {
        let action = format!("Check the log of {manager}, and the NVLinks with {}.", place.smi(gpu, "-q"));
        (format!("its NVLink fabric is {health}"), action)
    } else {
        return;
    };
    findings.add(Code::FabricUnhealthy, Verdict::Unhealthy, Some(gpu), format!("GPU {index}: {what}"), action);
}
