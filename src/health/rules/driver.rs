//! Library, driver and the number of GPUs: whether there is anything to judge at all.

use super::{Facts, Findings};
use crate::gpu::sample::{FIRST_ANSWER, FaultKind, Gpu, GpuFault, GpuSample};
use crate::gpu::state::GpuState;
use crate::gpu::surroundings::{Access, Surroundings};
use crate::gpu::xid::Class;
use crate::health::verdict::{Code, Verdict};

/// A stuck or dying driver is degraded at first and unhealthy from here on.
pub(super) const STUCK_UNHEALTHY_S: f64 = 30.0;

macro_rules! keep_loaded {
    () => {
        "without persistence mode the driver starts again for each program, which takes 6 to 25 s: enable nvidia-persistenced on the host, or run nvidia-smi -pm 1"
    };
}

pub(super) fn judge(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    match facts.gpu {
        GpuState::Pending => {
            findings.add(
                Code::NoSample,
                Verdict::Unknown,
                None,
                "the GPUs have not been read yet".into(),
                "wait a few seconds; if this lasts, the driver does not answer",
            );
        }
        GpuState::Starting { lasting_s, .. } => {
            let message = format!("the NVIDIA driver has been starting for {} s", lasting_s.floor());
            let action = concat!("wait up to a minute; ", keep_loaded!());
            findings
                .add(Code::DriverStarting, Verdict::Unknown, None, message, action)
                .numbers(lasting_s.floor(), FIRST_ANSWER.as_secs_f64());
        }
        GpuState::Fault { fault, lasting_s, .. } => judge_fault(fault, *lasting_s, facts, findings),
        GpuState::Sample(sample) => {
            access(facts, findings);
            count(sample, facts, findings);
        }
    }
    strangers(facts, findings);
}

fn no_gpu(what: &str, around: &Surroundings, findings: &mut Findings<'_>) {
    let why = around.without_driver();
    let action = if why.is_empty() {
        "give the container a GPU (compose/gpu.yaml, or --gpus all), or set EXPECTED_GPUS=0 if none is meant to be here"
    } else {
        around.load_driver()
    };
    findings.add(Code::NoGpu, Verdict::Unhealthy, None, format!("{what}{why}"), action);
}

/// A library that was initialised in time goes on working when the device is taken away; others cannot begin.
fn access(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let (message, action) = match &facts.around.access {
        Access::Untested | Access::Open => return,
        Access::Revoked => (
            "the right to open /dev/nvidiactl was taken away from this container, and with it probably from Ollama's"
                .into(),
            "restart both containers (a systemctl daemon-reload does this); for good: native.cgroupdriver=cgroupfs, or nvidia-ctk system create-dev-char-symlinks",
        ),
        Access::Refused(why) => (
            format!("/dev/nvidiactl cannot be opened any more: {why}"),
            "look at the device's owner and mode, and at dmesg; then restart the containers",
        ),
    };
    findings.add(Code::GpuAccessLost, Verdict::Unhealthy, None, message, action);
}

fn count(sample: &GpuSample, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let around = facts.around;
    let counted = sample.gpus.len();
    let none_expected = facts.limits.expected_gpus == Some(0);
    if counted == 0 && !none_expected {
        return no_gpu("NVML works and counts no GPU", around, findings);
    }
    let given = sample.given();
    if given == 0 && !none_expected {
        let action = "give the container a GPU (compose/gpu.yaml, or --gpus all) and the worker the group of /dev/nvidia0 (group_add)";
        let message =
            format!("NVML lists {counted} GPUs, none of which this container or user may use: {}", refusal(sample));
        findings.add(Code::NvmlNoPermission, Verdict::Unhealthy, None, message, action);
    }
    let (have, want, why) = match facts.limits.expected_gpus {
        // What the operator says is more than any guess.
        Some(expected) => (usable(sample), expected as usize, "EXPECTED_GPUS"),
        None => {
            // The bus shows all GPUs, a container's devices and the past only those that may be used.
            let (have, want, place) = if around.in_container {
                (given, around.device_nodes, "GPUs given to this container")
            } else {
                (counted, around.gpus_on_bus(), "GPUs on the PCI bus")
            };
            let shown = (have, want.unwrap_or(0) as usize, place);
            let before = (given, facts.history.most_gpus, "GPUs seen before");
            let missing = |(have, want, _): &(usize, usize, _)| (want.saturating_sub(*have), *want);
            if missing(&before) > missing(&shown) { before } else { shown }
        }
    };
    if have < want {
        let message = format!("{have} of {want} GPUs can be used ({why})");
        let action = "look for the missing GPU in nvidia-smi and dmesg; if it was taken out, set EXPECTED_GPUS or run agent-net ack";
        findings
            .add(Code::GpuCountLow, Verdict::Unhealthy, None, message, action)
            .numbers(u32::try_from(have).unwrap_or(u32::MAX), u32::try_from(want).unwrap_or(u32::MAX));
    }
}

/// GPUs that can be used; one that is slow is there.
fn usable(sample: &GpuSample) -> usize {
    sample.gpus.iter().filter(|gpu| gpu.usable() || gpu.is_slow()).count()
}

/// Why the first of those that may not be used is refused.
fn refusal(sample: &GpuSample) -> &str {
    let error = sample.gpus.iter().find(|gpu| !gpu.given()).and_then(|gpu| gpu.error.as_ref());
    error.map_or("", |error| &error.message)
}

/// Any GPU of the list may be used by this process, whether it works or not.
pub(super) fn any_given(state: &GpuState) -> bool {
    state.sample().is_some_and(|sample| sample.given() > 0)
}

/// The operator has said how many GPUs there are to be, and so many can be used.
pub(super) fn enough(facts: &Facts<'_>) -> bool {
    let expected = facts.limits.expected_gpus.zip(facts.gpu.sample());
    expected.is_some_and(|(expected, sample)| usable(sample) >= expected as usize)
}

/// Fatal errors of GPUs that are not in the list. In a container the log also tells of GPUs that are none of ours.
fn strangers(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let listed = |place| facts.gpu.gpus().iter().any(|gpu| gpu.pci() == Some(place));
    let ours = |place| facts.history.knows(place) || !facts.around.in_container;
    let mut fatal = facts.xids.open().filter(|x| x.class == Class::Fatal);
    if let Some(xid) = fatal.find(|x| ours(x.pci) && !listed(x.pci)) {
        let what = xid.meaning();
        let message = format!("the GPU at {}, which is not listed, reported XID {} ({what})", xid.pci, xid.number);
        findings.add(Code::XidFatal, Verdict::Unhealthy, None, message, XID_ACTION_ACK);
    }
}

/// Where nothing but the operator, or a reload of the driver, can say that it is over.
const XID_ACTION_ACK: &str = "stop its users and run nvidia-smi -r, or reboot; then run agent-net ack";

fn judge_fault(fault: &GpuFault, lasting_s: f64, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some((code, severity, action)) = meaning(fault, lasting_s, facts, findings) else { return };
    let missing = matches!(fault.kind, FaultKind::LibMissing | FaultKind::DriverNotLoaded);
    let why = if missing { facts.around.without_driver() } else { String::new() };
    let reason = findings.add(code, severity, None, format!("{}{why}", fault.detail), action);
    if matches!(fault.kind, FaultKind::HelperFailed | FaultKind::Stuck) {
        reason.numbers(lasting_s.floor(), STUCK_UNHEALTHY_S);
    }
}

/// The reason of a fault and what to do; None when there is nothing more to say.
fn meaning(
    fault: &GpuFault,
    lasting_s: f64,
    facts: &Facts<'_>,
    findings: &mut Findings<'_>,
) -> Option<(Code, Verdict, &'static str)> {
    let none_expected = facts.limits.expected_gpus == Some(0);
    let pci_gpus = facts.around.pci_gpus;
    let lasting = if lasting_s >= STUCK_UNHEALTHY_S { Verdict::Unhealthy } else { Verdict::Degraded };
    Some(match fault.kind {
        FaultKind::LibMissing | FaultKind::DriverNotLoaded if none_expected => return None,
        FaultKind::LibMissing | FaultKind::DriverNotLoaded if pci_gpus == Some(0) => {
            if facts.ollama.vram_bytes() == 0 {
                let what = format!("no NVIDIA device on the PCI bus and no NVML: {}", fault.detail);
                no_gpu(&what, facts.around, findings);
                return None;
            }
            // Ollama holds a model in the memory of a GPU that NVML does not know: another maker's.
            (
                Code::NvmlLibMissing,
                Verdict::Unknown,
                "Ollama uses a GPU that is no NVIDIA one; its health cannot be read",
            )
        }
        FaultKind::LibMissing => (
            Code::NvmlLibMissing,
            if pci_gpus.is_some() { Verdict::Unhealthy } else { Verdict::Unknown },
            "start the container with the NVIDIA runtime and NVIDIA_DRIVER_CAPABILITIES=utility (compose/gpu.yaml), or set NVML_LIB",
        ),
        FaultKind::DriverNotLoaded => (Code::DriverNotLoaded, Verdict::Unhealthy, facts.around.load_driver()),
        FaultKind::LibMismatch => (
            Code::DriverLibMismatch,
            Verdict::Unhealthy,
            "the driver was upgraded: reboot the host, then restart the containers",
        ),
        FaultKind::NoPermission => (
            Code::NvmlNoPermission,
            Verdict::Unhealthy,
            "give the worker the group of /dev/nvidiactl (group_add in compose)",
        ),
        FaultKind::InitUnknown => (
            Code::NvmlInitUnknown,
            Verdict::Unhealthy,
            "the container lost its GPU (a systemctl daemon-reload does it): restart the containers; for good: native.cgroupdriver=cgroupfs",
        ),
        FaultKind::InitFailed => {
            (Code::NvmlInitFailed, Verdict::Unhealthy, "run nvidia-smi on the host; if it fails too, reboot")
        }
        FaultKind::HelperMissing => (
            Code::NvmlHelperMissing,
            Verdict::Unknown,
            "put agent-net-nvml beside agent-net, or name it in NVML_HELPER",
        ),
        FaultKind::HelperFailed => (
            Code::NvmlHelperFailed,
            lasting,
            "it is started again by itself; if this lasts, look at the worker's log and at dmesg",
        ),
        FaultKind::Stuck => (
            Code::DriverStuck,
            lasting,
            "the driver does not answer; look at dmesg and nvidia-smi on the host, reboot if they hang too",
        ),
    })
}

/// GPUs that can be used at this moment.
pub(super) fn any_usable(state: &GpuState) -> bool {
    matches!(state, GpuState::Sample(sample) if sample.gpus.iter().any(Gpu::usable))
}
