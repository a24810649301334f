//! One GPU: what it says of itself now, and what its past adds.

use super::{Facts, Findings, heat, presence};
use crate::gpu::sample::Gpu;
use crate::gpu::state::GpuState;
use crate::gpu::xid::{Class, Kind};
use crate::health::reading_log::{self, Track};
use crate::health::verdict::{Code, Verdict};

/// A warning of the driver is over after this long; a fatal one may be, if everything else says so.
const XID_LASTS_S: f64 = 600.0;
/// DCGM's limit of uncorrectable row remappings.
const MANY_REMAPS: u32 = 512;
/// NVIDIA exchanges boards with this many retired pages,
const RETIRED_LIMIT: u32 = 63;
/// or with more double bit ones than this if they go on.
const RETIRED_DOUBLE_LIMIT: u32 = 15;
/// Repeated transfers a minute and lane that a sound link has at most, by generation (a bit error rate of 1e-12).
const REPLAYS_PER_LANE: [f64; 6] = [0.15, 0.30, 0.48, 0.96, 1.92, 3.84];

pub(super) fn judge(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let answered = matches!(facts.gpu, GpuState::Sample(_));
    let fresh = Track::default();
    for gpu in facts.gpu.gpus() {
        let track = facts.history.of(gpu).unwrap_or(&fresh);
        xids(gpu, track, facts, findings);
        if !answered {
            continue;
        }
        if let Some(error) = &gpu.error {
            presence::judge(gpu, error, facts, findings);
            continue;
        }
        presence::slow(gpu, track, findings);
        readings(gpu, track, findings);
        recovery(gpu, findings);
        ecc(gpu, findings);
        remapped_rows(gpu, findings);
        retired_pages(gpu, track, findings);
        heat::judge(gpu, track, facts.limits.max_temp_c, findings);
        link(gpu, track, findings);
        board(gpu, facts.limits.min_vram_bytes, findings);
    }
}

fn readings(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    if track.dead.held() {
        let failed = gpu.failed().filter(|(_, why)| why.of_device);
        let failed: Vec<String> = failed.map(|(name, why)| format!("{name} ({})", why.words)).collect();
        let message = format!("GPU {} gives a handle, but cannot be read: {}", gpu.index, failed.join(", "));
        let action = "stop its users and run nvidia-smi -r, or reboot; if it comes back, check its power and seat";
        findings.add(Code::GpuReadFailed, Verdict::Unhealthy, Some(gpu), message, action);
    }
    let faults = gpu.failed().filter(|(name, why)| track.is_fault(name, why));
    let fields: Vec<String> = faults.map(|(name, why)| format!("{name} ({})", why.words)).collect();
    if !fields.is_empty() {
        findings.add(
            Code::FieldReadError,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {} cannot be read in full: {}", gpu.index, fields.join(", ")),
            "look at dmesg and nvidia-smi; readings that a device does not have are not counted here",
        );
    }
    if gpu.says_nothing() {
        findings.add(
            Code::GpuNoReadings,
            Verdict::Unknown,
            Some(gpu),
            format!("GPU {} gives neither memory, temperature nor utilisation", gpu.index),
            "its health cannot be told; a MIG parent or a board that NVML does not know gives nothing",
        );
    }
}

/// The driver's own verdict.
fn recovery(gpu: &Gpu, findings: &mut Findings<'_>) {
    let Some(number) = gpu.recovery_action.filter(|n| *n != 0) else { return };
    let (code, severity, wanted, action) = match number {
        1 => (Code::ResetRequired, Verdict::Unhealthy, "a reset of the GPU", "stop its users and run nvidia-smi -r"),
        2 | 7 => (Code::ResetRequired, Verdict::Unhealthy, "a reboot", "reboot the machine"),
        3 => (
            Code::DrainP2p,
            Verdict::Degraded,
            "an end to peer-to-peer traffic",
            "let the work that uses several GPUs end; then reset the GPU (nvidia-smi -r)",
        ),
        4 => (
            Code::ResetRequired,
            Verdict::Unhealthy,
            "that its work ends, and a reset",
            "let its work end and run nvidia-smi -r",
        ),
        5 => (
            Code::ResetRequired,
            Verdict::Degraded,
            "a restart of the IMEX service",
            "restart nvidia-imex on the machines of this NVLink domain",
        ),
        6 => (Code::ResetRequired, Verdict::Unhealthy, "a reset of the bus", "reboot the machine"),
        _ => (
            Code::ResetRequired,
            Verdict::Unhealthy,
            "an action that this worker does not know",
            "run nvidia-smi -q, see \"GPU Recovery Action\"",
        ),
    };
    let message = format!("the driver asks for {wanted} of GPU {} (recovery action {number})", gpu.index);
    findings.add(code, severity, Some(gpu), message, action).numbers(number, 0);
}

fn xids(gpu: &Gpu, track: &Track, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let Some(place) = gpu.pci() else { return };
    // A reading that has never worked is no fault, here as in the reasons.
    let well = gpu.usable() && !gpu.failed().any(|(name, why)| track.is_fault(name, why));
    let all_clear = facts.xids.all_clear(place);
    let asks_for_nothing = |xid: &Kind| match gpu.recovery_action {
        Some(action) => action == 0,
        // Where NVML does not say it, the kernel's log may have.
        None => all_clear.is_some_and(|at| at >= xid.last),
    };
    let is_past = |xid: &Kind| facts.monotonic - xid.last >= XID_LASTS_S;
    let holds = |xid: &&Kind| match xid.class {
        Class::Fatal => !(well && asks_for_nothing(xid) && is_past(xid)),
        Class::NvLink => track.nvlink_ever && !(well && asks_for_nothing(xid) && is_past(xid)),
        Class::Warn | Class::Lesser => !is_past(xid),
        Class::AllClear | Class::Info => false,
    };
    let own = facts.xids.open().filter(|xid| xid.pci == place).filter(holds);
    let (fatal, warnings): (Vec<&Kind>, Vec<&Kind>) =
        own.partition(|xid| matches!(xid.class, Class::Fatal | Class::NvLink));
    let message = |all: &[&Kind]| {
        let each = all.iter().map(|x| format!("{} ({}), {} times", x.number, x.meaning(), x.count));
        format!("GPU {} reported XID {}", gpu.index, each.collect::<Vec<_>>().join("; "))
    };
    if !fatal.is_empty() {
        let action = if gpu.recovery_action.is_some() || all_clear.is_some() { XID_ACTION } else { XID_ACTION_NO_WORD };
        findings.add(Code::XidFatal, Verdict::Unhealthy, Some(gpu), message(&fatal), action);
    }
    if !warnings.is_empty() {
        let action = "look at dmesg; it passes after 10 minutes without another. 54: check the power cables";
        findings.add(Code::XidWarn, Verdict::Degraded, Some(gpu), message(&warnings), action);
    }
}

const XID_ACTION: &str = "stop its users and run nvidia-smi -r, or reboot; it passes after 10 minutes if the driver asks for nothing and all readings succeed, or at once with agent-net ack";
/// Older drivers have no recovery action: nothing but the operator, or a reload of the driver, says that a GPU
/// which may still be broken is not.
const XID_ACTION_NO_WORD: &str = "stop its users and run nvidia-smi -r, or reboot; then run agent-net ack: this driver does not report that a GPU has recovered";

fn ecc(gpu: &Gpu, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if let Some(errors) = gpu.slow.ecc_uncorrected_volatile.filter(|n| *n > 0) {
        findings
            .add(
                Code::EccUncorrected,
                Verdict::Unhealthy,
                Some(gpu),
                format!(
                    "GPU {index} has {errors} memory errors that ECC could not correct since the driver was loaded"
                ),
                "stop its users and run nvidia-smi -r; if it comes back, have the board replaced",
            )
            .numbers(errors as f64, 0);
    }
}

fn remapped_rows(gpu: &Gpu, findings: &mut Findings<'_>) {
    let index = gpu.index;
    let Some(rows) = gpu.remapped_rows else { return };
    if rows.failed {
        findings.add(
            Code::RowRemapFailed,
            Verdict::Unhealthy,
            Some(gpu),
            format!("GPU {index} has no spare memory row left for a broken one"),
            "have the board replaced",
        );
    }
    if rows.pending {
        findings.add(
            Code::RowRemapPending,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index} waits for a reset to replace a broken memory row"),
            "run nvidia-smi -r when it has no work",
        );
    }
    if rows.uncorrectable >= MANY_REMAPS {
        findings
            .add(
                Code::RowRemapMany,
                Verdict::Degraded,
                Some(gpu),
                format!(
                    "GPU {index} has replaced {} memory rows after errors that could not be corrected",
                    rows.uncorrectable
                ),
                "have the board replaced before its spare rows are used up",
            )
            .numbers(rows.uncorrectable, MANY_REMAPS);
    }
}

fn retired_pages(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    let Some(pages) = gpu.slow.retired_pages else { return };
    if pages.pending {
        findings.add(
            Code::RetiredPending,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index} waits for a reboot to retire a broken memory page"),
            "reboot when it has no work",
        );
    }
    let total = reading_log::total(pages);
    if total >= RETIRED_LIMIT || (track.retired_rise && pages.double_bit > RETIRED_DOUBLE_LIMIT) {
        findings
            .add(
                Code::RetiredLimit,
                Verdict::Unhealthy,
                Some(gpu),
                format!(
                    "GPU {index} has retired {total} memory pages, {} of them after double bit errors",
                    pages.double_bit
                ),
                "have the board replaced",
            )
            .numbers(total, RETIRED_LIMIT);
    }
}

fn link(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if let (Some(width), Some(max)) = (gpu.slow.pcie_width, gpu.fixed.pcie_width_max.filter(|_| track.narrow.held())) {
        let message = format!("GPU {index} uses {width} of {max} PCIe lanes");
        findings
            .add(Code::PcieWidthLow, Verdict::Degraded, Some(gpu), message, "seat the card anew; check riser and slot")
            .numbers(width, max);
    }
    let (Some(lanes), Some(generation)) = (gpu.slow.pcie_width, gpu.slow.pcie_generation) else { return };
    let rate = REPLAYS_PER_LANE[(generation.max(1) as usize - 1).min(REPLAYS_PER_LANE.len() - 1)];
    let (replays, limit) = (track.replays.per_minute(), f64::from(lanes) * rate);
    if replays > limit {
        let message =
            format!("GPU {index} repeats {replays:.0} PCIe transfers a minute; a sound link needs {limit:.1} at most");
        findings
            .add(Code::PcieReplay, Verdict::Degraded, Some(gpu), message, "seat the card anew; check riser and slot")
            .numbers(replays, limit);
    }
}

fn board(gpu: &Gpu, min_vram_bytes: Option<u64>, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if gpu.fixed.inforom_corrupt == Some(true) {
        let message = format!("the board data (infoROM) of GPU {index} is damaged");
        let action = "its ECC and serial data cannot be trusted; have the board looked at";
        findings.add(Code::InforomCorrupt, Verdict::Degraded, Some(gpu), message, action);
    }
    if gpu.power_alarm == Some(true) {
        let message = format!("a power rail of the board of GPU {index} is over its limit");
        let action = "use a stronger power supply, or a lower power mode (nvpmodel)";
        findings.add(Code::PowerAlarm, Verdict::Degraded, Some(gpu), message, action);
    }
    if let (Some(total), Some(min)) = (gpu.vram_total_bytes, min_vram_bytes)
        && total < min
    {
        let gigabytes = |bytes: u64| (bytes as f64 / 1e8).round() / 10.0;
        let message = format!("GPU {index} has {} GB of VRAM; GPU_MIN_VRAM_GB is {}", gigabytes(total), gigabytes(min));
        let action = "use the GPU that was meant, or lower GPU_MIN_VRAM_GB";
        findings
            .add(Code::VramBelowMin, Verdict::Unhealthy, Some(gpu), message, action)
            .numbers(gigabytes(total), gigabytes(min));
    }
}
