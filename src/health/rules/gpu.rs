//! One GPU: its readings now, and what its past adds.

use super::facts::Facts;
use super::findings::Findings;
use super::{amd, fabric, heat, memory, presence};
use crate::gpu::place::Place;
use crate::gpu::sample::Gpu;
use crate::gpu::state::GpuState;
use crate::gpu::xid::{Class, Kind};
use crate::health::history::Track;
use crate::health::verdict::{Code, Verdict};

/// An XID warning clears after this long; a fatal XID does if nothing contradicts it.
const XID_LASTS_S: f64 = 600.0;
/// PCIe replays a minute and lane of a healthy link, by generation (a bit error rate of 1e-12).
const REPLAYS_PER_LANE: [f64; 6] = [0.15, 0.30, 0.48, 0.96, 1.92, 3.84];

pub(super) fn gpu_reasons(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let answered = matches!(facts.gpu, GpuState::Sample(_));
    let fresh = Track::default();
    for gpu in facts.gpu.gpus() {
        let track = facts.history.of(gpu).unwrap_or(&fresh);
        xids(gpu, track, facts, findings);
        of_one(gpu, track, answered, facts, findings);
        amd::of_gpu(gpu, facts, findings);
    }
}

fn of_one(gpu: &Gpu, track: &Track, answered: bool, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // In a fault of one driver the GPUs of the other one still have readings.
    if !answered && !gpu.usable() {
        return;
    }
    if let Some(error) = &gpu.error {
        presence::error_reason(gpu, error, facts, findings);
        return;
    }
    presence::slow(gpu, track, findings);
    readings(gpu, track, findings);
    recovery(gpu, findings);
    memory::memory_reasons(gpu, track, findings);
    fabric::fabric_reasons(gpu, track, findings);
    heat::heat_reasons(gpu, track, facts.limits.max_temp_c, findings);
    link(gpu, track, findings);
    board(gpu, facts.limits.min_vram_bytes, findings);
}

fn readings(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    if track.dead.held() {
        let failed = gpu.failed().filter(|(_, why)| why.of_device);
        let failed: Vec<String> = failed.map(|(name, why)| format!("{name} ({})", why.words)).collect();
        let driver = gpu.vendor.driver();
        let message = format!("GPU {}: {driver} finds it but cannot read it: {}", gpu.index, failed.join(", "));
        let action =
            format!("{}. If it returns, check its power cables and reseat it.", findings.place.reset_or_reboot(gpu));
        findings.add(Code::GpuReadFailed, Verdict::Unhealthy, Some(gpu), message, action);
    }
    let faults = gpu.failed().filter(|(name, why)| track.is_fault(name, why));
    let fields: Vec<String> = faults.map(|(name, why)| format!("{name} ({})", why.words)).collect();
    if !fields.is_empty() {
        findings.add(
            Code::FieldReadError,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {}: some readings fail: {}", gpu.index, fields.join(", ")),
            format!("{} Unsupported readings are not errors.", findings.place.check_logs(gpu.vendor)),
        );
    }
    if gpu.says_nothing() {
        findings.add(
            Code::GpuNoReadings,
            Verdict::Unknown,
            Some(gpu),
            format!("GPU {}: no memory, temperature or utilization reported; its health is unknown", gpu.index),
            gpu.vendor
                .pick("Try a newer driver. Boards that NVML does not support report nothing.", "Try a newer kernel."),
        );
    }
    if gpu.lacks_instance() {
        let place = findings.place;
        let severity = if place == Place::Host { Verdict::Unhealthy } else { Verdict::Degraded };
        let message = format!("GPU {}: MIG is on, and there is no instance: nothing can compute on it", gpu.index);
        findings.add(Code::MigNoInstance, severity, Some(gpu), message, place.give_an_instance(gpu));
    }
}

/// What the driver requests.
fn recovery(gpu: &Gpu, findings: &mut Findings<'_>) {
    let Some(number) = gpu.recovery_action.filter(|n| *n != 0) else { return };
    let (place, index) = (findings.place, gpu.index);
    let reboot = || format!("{}.", place.reboot());
    let reset = || format!("{}.", place.stop_and_reset(gpu));
    let (code, severity, wanted, action) = match number {
        1 => (Code::ResetRequired, Verdict::Unhealthy, "a GPU reset", reset()),
        2 | 7 => (Code::ResetRequired, Verdict::Unhealthy, "a reboot", reboot()),
        3 => (
            Code::DrainP2p,
            Verdict::Degraded,
            "a peer-to-peer drain",
            format!("Let multi-GPU jobs finish, then run {}.", place.reset(gpu)),
        ),
        4 => (
            Code::ResetRequired,
            Verdict::Unhealthy,
            "a drain, then a reset",
            format!("Let its jobs finish, then run {}.", place.reset(gpu)),
        ),
        5 => (
            Code::ResetRequired,
            Verdict::Degraded,
            "a restart of the IMEX service",
            "Restart nvidia-imex on every machine in this NVLink domain.".into(),
        ),
        6 => (Code::ResetRequired, Verdict::Unhealthy, "a bus reset", reboot()),
        _ => (
            Code::ResetRequired,
            Verdict::Unhealthy,
            "an unknown action",
            format!("Run {} and see \"GPU Recovery Action\".", place.smi(gpu, "-q")),
        ),
    };
    let message = format!("GPU {index}: driver requests {wanted} (recovery action {number})");
    findings.add(code, severity, Some(gpu), message, action).numbers(number, 0);
}

fn xids(gpu: &Gpu, track: &Track, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(place) = gpu.pci() else { return };
    // A reading that never worked is not a fault, here as in the reasons.
    let readable = gpu.usable() && !gpu.failed().any(|(name, why)| track.is_fault(name, why));
    let all_clear = facts.xids.all_clear(place);
    let requests_nothing = |xid: &Kind| match gpu.recovery_action {
        Some(action) => action == 0,
        // Where NVML does not report it, the kernel's log may.
        None => all_clear.is_some_and(|at| at >= xid.last),
    };
    let is_past = |xid: &Kind| facts.monotonic - xid.last >= XID_LASTS_S;
    let holds = |xid: &&Kind| match xid.class {
        Class::Fatal => !(readable && requests_nothing(xid) && is_past(xid)),
        Class::NvLink => track.nvlink_ever && !(readable && requests_nothing(xid) && is_past(xid)),
        Class::Warn | Class::Lesser => !is_past(xid),
        Class::AllClear | Class::Info => false,
    };
    let own = facts.xids.open().filter(|xid| xid.pci == place).filter(holds);
    let (fatal, warnings): (Vec<&Kind>, Vec<&Kind>) =
        own.partition(|xid| matches!(xid.class, Class::Fatal | Class::NvLink));
    let message = |all: &[&Kind]| {
        let each = all.iter().map(|x| format!("{} ({}), {}×", x.number, x.meaning(), x.count));
        format!("GPU {}: XID {}", gpu.index, each.collect::<Vec<_>>().join(", XID "))
    };
    if !fatal.is_empty() {
        let reports_recovery = gpu.recovery_action.is_some() || all_clear.is_some();
        let then = if reports_recovery { FATAL_XID_CLEARS } else { FATAL_XID_STAYS };
        let action = format!("{}. {then}", findings.place.reset_or_reboot(gpu));
        findings.add(Code::XidFatal, Verdict::Unhealthy, Some(gpu), message(&fatal), action);
    }
    if !warnings.is_empty() {
        let power = if warnings.iter().any(|x| x.number == 54) { " Check the power cables." } else { "" };
        let action =
            format!("Check `dmesg`{}.{power} Clears after 10 minutes without a new one.", findings.place.on_the_host());
        findings.add(Code::XidWarn, Verdict::Degraded, Some(gpu), message(&warnings), action);
    }
}

const FATAL_XID_CLEARS: &str = "Clears after 10 minutes if the driver requests nothing and all readings succeed, or \
                                immediately with `agent-net ack`.";
/// Older drivers have no recovery action: only the operator, or a reload of the driver, can say that the GPU works again.
const FATAL_XID_STAYS: &str = "Then run `agent-net ack`: this driver does not report that a GPU has recovered.";

const RESEAT: &str = "Reseat the card. Check the riser and the slot.";

fn link(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if let (Some(width), Some(max)) = (gpu.pcie_width, gpu.pcie_width_max.filter(|_| track.narrow.held())) {
        let message = format!("GPU {index}: runs at PCIe x{width} (capable of x{max})");
        findings.add(Code::PcieWidthLow, Verdict::Degraded, Some(gpu), message, RESEAT).numbers(width, max);
    }
    let (Some(lanes), Some(generation)) = (gpu.pcie_width, gpu.pcie_generation) else { return };
    let rate = REPLAYS_PER_LANE[(generation.max(1) as usize - 1).min(REPLAYS_PER_LANE.len() - 1)];
    let (replays, limit) = (track.replays.per_minute(), f64::from(lanes) * rate);
    if replays > limit {
        let message = format!("GPU {index}: {replays:.0} PCIe replays/min (a healthy link stays below {limit:.1})");
        findings.add(Code::PcieReplay, Verdict::Degraded, Some(gpu), message, RESEAT).numbers(replays, limit);
    }
}

fn board(gpu: &Gpu, min_vram_bytes: Option<u64>, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if gpu.inforom_corrupt == Some(true) {
        let message = format!("GPU {index}: infoROM is corrupted");
        let action = "Contact the vendor. Do not trust its ECC counters and serial number.";
        findings.add(Code::InforomCorrupt, Verdict::Degraded, Some(gpu), message, action);
    }
    if gpu.power_alarm == Some(true) {
        let message = format!("GPU {index}: a power rail exceeds its limit");
        let action = "Use a stronger power supply, or a lower power mode (`nvpmodel`).";
        findings.add(Code::PowerAlarm, Verdict::Degraded, Some(gpu), message, action);
    }
    // Without an instance there is another reason.
    if let (Some(total), Some(min)) = (gpu.model_memory().filter(|_| !gpu.lacks_instance()), min_vram_bytes)
        && total < min
    {
        let gigabytes = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
        let of = if gpu.mig_mode == Some(true) { " in its largest MIG instance" } else { "" };
        let message =
            format!("GPU {index}: {} GB of VRAM{of}, below GPU_MIN_VRAM_GB={}", gigabytes(total), gigabytes(min));
        let action = "Use the intended GPU, or lower GPU_MIN_VRAM_GB.";
        findings
            .add(Code::VramBelowMin, Verdict::Unhealthy, Some(gpu), message, action)
            .numbers(gigabytes(total), gigabytes(min));
    }
}
