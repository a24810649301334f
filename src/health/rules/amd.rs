//! What the driver amdgpu reports in the kernel's log.

use super::facts::Facts;
use super::findings::Findings;
use crate::gpu::amd_log::{Report, Said};
use crate::gpu::sample::Gpu;
use crate::health::verdict::{Code, Verdict};
use crate::sys::text::counted;

/// What is over by itself clears after this long.
const LASTS_S: f64 = 600.0;

/// The reports about one GPU of the list.
pub(super) fn of_gpu(gpu: &Gpu, facts: &Facts<'_>, findings: &mut Findings<'_>) {
    if !gpu.vendor.is_amd() {
        return;
    }
    let alone = of_amd(facts).count() == 1;
    let is_it = |report: &&Report| report.pci.map_or(alone, |place| gpu.pci() == Some(place));
    let reports: Vec<&Report> = facts.xids.amd.open().filter(is_it).collect();
    reasons(Some(gpu), &format!("GPU {}", gpu.index), &reports, facts, findings);
}

/// The reports that name no GPU of the list: one that is gone or did not start, or one of several.
pub(super) fn of_others(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let gpus = of_amd(facts).count();
    let is_ours = |report: &&Report| match report.pci {
        Some(place) => {
            let listed = of_amd(facts).any(|gpu| gpu.pci() == Some(place));
            !listed && (facts.history.knows(place) || facts.host.amd_unbound.contains(&place))
        }
        None => gpus > 1 || gpus == 0 && (facts.history.amd_ever || !facts.host.amd_unbound.is_empty()),
    };
    let mut reports: Vec<&Report> = facts.xids.amd.open().filter(is_ours).collect();
    while let Some(place) = reports.first().map(|report| report.pci) {
        let (of_one, others): (Vec<&Report>, Vec<&Report>) = reports.into_iter().partition(|r| r.pci == place);
        let name = place.map_or_else(
            || "An AMD GPU that the kernel's log does not name".into(),
            |place| format!("An AMD GPU not in the list ({place})"),
        );
        reasons(None, &name, &of_one, facts, findings);
        reports = others;
    }
}

fn of_amd<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Gpu> {
    facts.gpu.gpus().iter().filter(|gpu| gpu.vendor.is_amd())
}

fn reasons(gpu: Option<&Gpu>, name: &str, reports: &[&Report], facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let place = findings.place;
    let reboot = format!("{}. Then, or if it works again, run `agent-net ack`.", place.reboot());
    let has = |said: Said| reports.iter().any(|report| report.said == said);
    let recent = |said: Said| reports.iter().any(|r| r.said == said && facts.monotonic - r.last < LASTS_S);
    // The driver's own count says more, where it can be read.
    let counted_errors = gpu.is_some_and(|gpu| gpu.ecc_uncorrected_volatile.is_some());
    let rows = [
        (has(Said::OffTheBus), Code::GpuLost, "fell off the bus", "Check its power cables and the slot. "),
        (has(Said::InitFailed), Code::GpuHandleError, "the driver amdgpu could not start it", "See `dmesg` for why. "),
        (
            has(Said::ResumeFailed),
            Code::GpuHandleError,
            "the driver amdgpu could not resume it",
            "See `dmesg` for why. ",
        ),
        (
            reports.iter().any(|report| report.is_failed_reset(facts.monotonic)),
            Code::ResetRequired,
            "hung, and the driver amdgpu could not reset it",
            "",
        ),
        (has(Said::Uncorrectable) && !counted_errors, Code::EccUncorrected, "uncorrectable memory errors", ""),
    ];
    for (holds, code, what, first) in rows {
        if holds && !findings.has_of(code, gpu) {
            findings.add(code, Verdict::Unhealthy, gpu, format!("{name}: {what}"), format!("{first}{reboot}"));
        }
    }
    if has(Said::Unrepairable) {
        let message = format!("{name}: the driver amdgpu reports too many bad memory pages");
        findings.add(Code::MemoryUnrepairable, Verdict::Unhealthy, gpu, message, "Replace the board (RMA).");
    }
    if recent(Said::TooHot) && !findings.has_of(Code::TempCritical, gpu) {
        let message = format!("{name}: the driver amdgpu reported a temperature at which it shuts down");
        let action = "Stop its workload and fix the cooling.";
        findings.add(Code::TempCritical, Verdict::Unhealthy, gpu, message, action);
    }
    hangs(gpu, name, reports, facts, findings);
}

/// What the driver recovered from, or is recovering from.
fn hangs(gpu: Option<&Gpu>, name: &str, reports: &[&Report], facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let is_recent = |report: &&&Report| facts.monotonic - report.last < LASTS_S;
    let mut lost = false;
    let parts: Vec<String> = reports
        .iter()
        .filter(is_recent)
        .filter_map(|report| {
            let times = |what: &str| Some(counted(report.count, what));
            match report.said {
                Said::Hang => times("hung job"),
                Said::FirmwareHung => Some("its firmware did not respond".into()),
                Said::RingRecovered => times("queue reset"),
                Said::ResetBegun if !report.is_failed_reset(facts.monotonic) => Some("a reset has begun".into()),
                Said::Recovered => times("GPU reset"),
                Said::VramLost => {
                    lost = true;
                    Some("its memory was lost".into())
                }
                _ => None,
            }
        })
        .collect();
    if parts.is_empty() {
        return;
    }
    let restart = if lost { " Restart Ollama: what it had in this memory is gone." } else { "" };
    let action = format!(
        "Check `dmesg`{} for the program that hung.{restart} Clears 10 minutes after the last of them.",
        findings.place.on_the_host()
    );
    findings.add(Code::GpuReset, Verdict::Degraded, gpu, format!("{name}: {}", parts.join(", ")), action);
}
