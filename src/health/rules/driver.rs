//! Library, driver and the number of GPUs: whether there is a GPU to look at.

use std::borrow::Cow;

use super::facts::Facts;
use super::findings::Findings;
use crate::gpu::host_facts::Access;
use crate::gpu::sample::{FIRST_ANSWER, FaultKind, Gpu, GpuFault, GpuSample};
use crate::gpu::state::GpuState;
use crate::gpu::vendor::Vendor;
use crate::gpu::xid::Class;
use crate::health::history::History;
use crate::health::verdict::{Code, Verdict};

/// A stuck or crashing driver is degraded at first and unhealthy from here on.
pub(super) const STUCK_UNHEALTHY_S: f64 = 30.0;

/// What to do about a driver that was slow to start. It can be the end of a log line.
pub(crate) const KEEP_LOADED: &str = "Enable nvidia-persistenced on the host, or run `nvidia-smi -pm 1` there: without \
                                      persistence mode the driver starts for each program, which takes 6 to 25 s.";

/// What to do about a helper that the kernel does not start.
const RIGHT_HELPER: &str = "Install the agent-net-nvml for this machine's architecture with mode 755. It needs glibc.";

/// What to do about a helper that will fail at each start.
pub(super) const ONE_BUILD: &str =
    "Install agent-net and agent-net-nvml from one build. If NVML_HELPER is set, it must name that agent-net-nvml.";

pub(super) fn driver_reasons(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    match facts.gpu {
        GpuState::Pending => {
            findings.add(
                Code::NoSample,
                Verdict::Unknown,
                None,
                "No GPU reading yet".into(),
                "Wait a few seconds. If it persists, the driver is not responding.",
            );
        }
        GpuState::Starting { vendor, lasting_s, .. } => {
            let driver = vendor.pick("The NVIDIA driver", "The reader of the driver amdgpu");
            let message = format!("{driver} has been starting for {} s", lasting_s.floor());
            let action = format!("Wait up to a minute.{}", vendor.pick(format!(" {KEEP_LOADED}").as_str(), ""));
            findings
                .add(Code::DriverStarting, Verdict::Unknown, None, message, action)
                .numbers(lasting_s.floor(), FIRST_ANSWER.as_secs_f64());
        }
        GpuState::Fault { fault, lasting_s, .. } => fault_reason(fault, *lasting_s, facts, findings),
        GpuState::Sample(sample) => {
            access(facts, findings);
            count(sample, facts, findings);
        }
    }
    unlisted_gpus(facts, findings);
}

fn no_gpu(what: &str, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let denied = if facts.host.denied_nodes > 0 { "; the worker may not open their device nodes" } else { "" };
    let message = format!("{what}{denied}{}", facts.host.without_driver());
    findings.add(Code::NoGpu, Verdict::Unhealthy, None, message, facts.host.give_a_gpu());
}

/// A library that is initialized keeps working when the device is taken away; other processes cannot start.
fn access(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let place = findings.place;
    let (message, action) = match &facts.host.access {
        Access::Untested | Access::Open => return,
        Access::Revoked => (
            "The worker may no longer open /dev/nvidiactl; Ollama probably lost access too".into(),
            place.regain_access(),
        ),
        Access::Refused(why) | Access::Failed(why) => (
            format!("Can no longer open /dev/nvidiactl: {why}"),
            format!("Check the device's owner and mode, and `dmesg`{}. {}.", place.on_the_host(), place.restart_both())
                .into(),
        ),
    };
    findings.add(Code::GpuAccessLost, Verdict::Unhealthy, None, message, action);
}

fn count(sample: &GpuSample, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let host = facts.host;
    let counted = sample.gpus.len();
    // Without a library only the driver amdgpu is read, or a board.
    let vendor = if sample.library.is_none() && (host.amd_gpus > 0 || facts.history.amd_ever) {
        Vendor::Amd
    } else {
        Vendor::Nvidia
    };
    let none_expected = facts.limits.expected_gpus == Some(0);
    if counted == 0 && !none_expected {
        let what = vendor.pick("NVML works but reports no GPUs", "The driver amdgpu has no GPUs any more");
        return no_gpu(what, facts, findings);
    }
    let given = sample.given();
    if given == 0 && !none_expected {
        let message = format!("NVML lists GPUs ({counted}), but the worker may use none of them: {}", refusal(sample));
        let action = findings.place.give_one_of_the_gpus();
        findings.add(Code::NvmlNoPermission, Verdict::Unhealthy, None, message, action);
    }
    let (have, want, why) = match facts.limits.expected_gpus {
        // The operator's number overrules any guess.
        Some(expected) => (usable(&sample.gpus, facts.history), expected as usize, "EXPECTED_GPUS"),
        None => {
            // The bus shows all GPUs; a container's devices and the past show only those that may be used.
            let (have, want, place) = if host.in_container {
                let nodes = host.device_nodes.unwrap_or(0);
                (given, nodes.saturating_add(host.amd_gpus), "GPUs given to this container")
            } else {
                (counted, host.all_gpus_on_bus().unwrap_or(0), "GPUs on the PCI bus")
            };
            let shown = (have, want as usize, place);
            let before = (given, facts.history.most_gpus, "GPUs seen before");
            let missing = |(have, want, _): &(usize, usize, _)| (want.saturating_sub(*have), *want);
            if missing(&before) > missing(&shown) { before } else { shown }
        }
    };
    if have < want {
        let mut message = format!("{have} of {want} GPUs usable (expected from: {why})");
        if let Some(place) = host.amd_unbound.first() {
            message.push_str(&format!("; no driver has the AMD GPU at {place}"));
        }
        let action = format!(
            "Look for the missing GPU in {}`dmesg`{}. If you removed it on purpose, set EXPECTED_GPUS or \
             run `agent-net ack`.",
            vendor.pick("`nvidia-smi` and ", ""),
            findings.place.on_the_host()
        );
        findings
            .add(Code::GpuCountLow, Verdict::Unhealthy, None, message, action)
            .numbers(u32::try_from(have).unwrap_or(u32::MAX), u32::try_from(want).unwrap_or(u32::MAX));
    }
}

/// GPUs that can be used; a slow one counts, a dead one does not.
fn usable(gpus: &[Gpu], history: &History) -> usize {
    let is_dead = |gpu: &Gpu| history.of(gpu).is_some_and(|track| track.dead.held());
    gpus.iter().filter(|gpu| gpu.usable() && !is_dead(gpu) || gpu.is_slow()).count()
}

/// Why access to the first of them is refused.
fn refusal(sample: &GpuSample) -> &str {
    let error = sample.gpus.iter().find(|gpu| !gpu.given()).and_then(|gpu| gpu.error.as_ref());
    error.map_or("", |error| &error.message)
}

/// This process may use a GPU of the list, whether it works or not.
pub(super) fn any_given(state: &GpuState) -> bool {
    state.sample().is_some_and(|sample| sample.given() > 0)
}

/// EXPECTED_GPUS is set, and that many can be used.
pub(super) fn enough(facts: &Facts<'_>) -> bool {
    let expected = facts.limits.expected_gpus.zip(facts.gpu.sample());
    expected.is_some_and(|(expected, sample)| usable(&sample.gpus, facts.history) >= expected as usize)
}

/// Fatal errors of GPUs that are not in the list. In a container the log also has those of other containers' GPUs.
fn unlisted_gpus(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // Which ones are listed is known once they were read. An error of long ago may be over by then.
    let unread = matches!(facts.gpu, GpuState::Pending | GpuState::Starting { .. });
    if unread && facts.gpu.gpus().iter().all(|gpu| gpu.vendor.is_amd()) {
        return;
    }
    let listed = |place| facts.gpu.gpus().iter().any(|gpu| gpu.pci() == Some(place));
    let ours = |place| facts.history.knows(place) || !facts.host.in_container;
    let mut fatal = facts.xids.open().filter(|x| x.class == Class::Fatal);
    if let Some(xid) = fatal.find(|x| ours(x.pci) && !listed(x.pci)) {
        let message = format!("A GPU not in the list ({}) reported XID {} ({})", xid.pci, xid.number, xid.meaning());
        let action = format!(
            "Stop all processes using this GPU, then run `nvidia-smi -i {} -r`{} or reboot. Once it is fixed, run \
             `agent-net ack`.",
            xid.pci,
            findings.place.on_the_host()
        );
        findings.add(Code::XidFatal, Verdict::Unhealthy, None, message, action);
    }
}

fn fault_reason(fault: &GpuFault, lasting_s: f64, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some((code, severity, action)) = meaning(fault, lasting_s, facts, findings) else { return };
    let missing = matches!(fault.kind, FaultKind::LibMissing | FaultKind::DriverNotLoaded);
    let why = if missing { facts.host.without_driver() } else { String::new() };
    let reason = findings.add(code, severity, None, format!("{}{why}", fault.detail), action);
    if fault.kind == FaultKind::Stuck || fault.kind.of_helper() {
        reason.numbers(lasting_s.floor(), STUCK_UNHEALTHY_S);
    }
}

/// Code, severity and action of a fault; None where the reason was added already, or there is none.
fn meaning(
    fault: &GpuFault,
    lasting_s: f64,
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
) -> Option<(Code, Verdict, Cow<'static, str>)> {
    let (pci_gpus, place, vendor) = (facts.host.pci_gpus, findings.place, facts.gpu.vendor());
    let lasting = if lasting_s >= STUCK_UNHEALTHY_S { Verdict::Unhealthy } else { Verdict::Degraded };
    Some(match fault.kind {
        // EXPECTED_GPUS are there without NVIDIA's, or it is 0.
        FaultKind::LibMissing | FaultKind::DriverNotLoaded
            if facts.limits.expected_gpus.is_some_and(|expected| facts.gpu.usable().count() >= expected as usize) =>
        {
            return None;
        }
        FaultKind::LibMissing | FaultKind::DriverNotLoaded if pci_gpus == Some(0) && any_usable(facts.gpu) => {
            (Code::NvmlLibMissing, Verdict::Unknown, "Unset NVML_LIB: only AMD GPUs are in this machine.".into())
        }
        FaultKind::LibMissing | FaultKind::DriverNotLoaded if pci_gpus == Some(0) => {
            if facts.ollama.vram_bytes() == 0 {
                let what = format!("No NVIDIA GPU on the PCI bus, and NVML could not be loaded: {}", fault.detail);
                no_gpu(&what, facts, findings);
                return None;
            }
            // Ollama has a model on a GPU that is not NVIDIA's.
            (
                Code::NvmlLibMissing,
                Verdict::Unknown,
                "Monitor the GPU that Ollama uses by other means: it is not an NVIDIA GPU, and not one of the driver amdgpu \
                 that AMD_GPUS lets the worker read."
                    .into(),
            )
        }
        FaultKind::LibMissing => (
            Code::NvmlLibMissing,
            if pci_gpus.is_some() { Verdict::Unhealthy } else { Verdict::Unknown },
            place.give_the_library().into(),
        ),
        FaultKind::DriverNotLoaded => (Code::DriverNotLoaded, Verdict::Unhealthy, facts.host.load_driver()),
        FaultKind::LibMismatch => (Code::DriverLibMismatch, Verdict::Unhealthy, place.after_a_driver_upgrade()),
        FaultKind::NoPermission => (Code::NvmlNoPermission, Verdict::Unhealthy, place.let_it_open_devices()),
        FaultKind::InitUnknown => (Code::NvmlInitUnknown, Verdict::Unhealthy, place.regain_access()),
        FaultKind::InitFailed => {
            let action = format!("Run `nvidia-smi`{}. If that fails too, reboot.", place.on_the_host());
            let action = vendor.pick(action, place.driver_hangs(vendor));
            (Code::NvmlInitFailed, Verdict::Unhealthy, action.into())
        }
        FaultKind::HelperMissing => (
            Code::NvmlHelperMissing,
            Verdict::Unknown,
            "Put agent-net-nvml in the same directory as agent-net, or set NVML_HELPER to its path.".into(),
        ),
        FaultKind::HelperNotExecutable => (Code::NvmlHelperMissing, Verdict::Unknown, RIGHT_HELPER.into()),
        FaultKind::HelperFailed => (
            Code::NvmlHelperFailed,
            lasting,
            format!(
                "Wait: it is restarted automatically. If it persists, check the worker's log and `dmesg`{}.",
                place.on_the_host()
            )
            .into(),
        ),
        FaultKind::HelperOfOtherBuild => (Code::NvmlHelperFailed, lasting, ONE_BUILD.into()),
        FaultKind::Stuck => (Code::DriverStuck, lasting, place.driver_hangs(vendor).into()),
    })
}

/// A GPU can be used now.
pub(super) fn any_usable(state: &GpuState) -> bool {
    state.usable().next().is_some()
}
