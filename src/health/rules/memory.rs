//! One GPU's memory: errors, spare rows and repairs.

use super::findings::Findings;
use crate::gpu::sample::Gpu;
use crate::health::history::{self, Track};
use crate::health::verdict::{Code, Verdict};
use crate::sys::text::counted;

/// DCGM's limit of uncorrectable row remappings.
const MANY_REMAPS: u32 = 512;
/// NVIDIA replaces boards with this many retired pages,
const RETIRED_LIMIT: u32 = 63;
/// or with more double-bit ones than this if they keep rising.
const RETIRED_DOUBLE_LIMIT: u32 = 15;
const REPLACE: &str = "Replace the board (RMA).";

pub(super) fn memory_reasons(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    ecc(gpu, findings);
    beyond_repair(gpu, findings);
    repairs(gpu, findings);
    remapped_rows(gpu, findings);
    retired_pages(gpu, track, findings);
}

fn ecc(gpu: &Gpu, findings: &mut Findings<'_>) {
    let Some(errors) = gpu.ecc_uncorrected_volatile.filter(|n| *n > 0) else { return };
    let errors_in_words = counted(errors, "uncorrectable ECC error");
    let message = format!("GPU {}: {errors_in_words} since driver load", gpu.index);
    let action = format!("{}. If they return, replace the board (RMA).", findings.place.stop_and_reset(gpu));
    findings.add(Code::EccUncorrected, Verdict::Unhealthy, Some(gpu), message, action).numbers(errors as f64, 0);
}

fn beyond_repair(gpu: &Gpu, findings: &mut Findings<'_>) {
    let index = gpu.index;
    if gpu.unrepairable_memory == Some(true) {
        let message = format!("GPU {index}: its memory has errors beyond repair");
        findings.add(Code::MemoryUnrepairable, Verdict::Unhealthy, Some(gpu), message, REPLACE);
    }
    if gpu.sram_threshold_exceeded == Some(true) {
        let message = format!("GPU {index}: too many uncorrectable errors in its on-chip memory (SRAM)");
        findings.add(Code::SramThreshold, Verdict::Unhealthy, Some(gpu), message, REPLACE);
    }
}

/// A board that must be replaced need not be reset to repair it.
fn is_to_be_replaced(gpu: &Gpu) -> bool {
    gpu.unrepairable_memory == Some(true) || gpu.sram_threshold_exceeded == Some(true)
}

/// A reset while the GPU is idle, or the one that the driver requests now.
fn reset_when_idle(gpu: &Gpu, findings: &Findings<'_>) -> String {
    match gpu.recovery_action {
        Some(1 | 2 | 4 | 6 | 7) => "Do what RESET_REQUIRED says: that completes it as well.".into(),
        _ => format!("Run {} when the GPU is idle.", findings.place.reset(gpu)),
    }
}

fn repairs(gpu: &Gpu, findings: &mut Findings<'_>) {
    let parts = match (gpu.channel_repair_pending, gpu.tpc_repair_pending) {
        (Some(true), Some(true)) => "a memory channel and a compute unit (TPC)",
        (Some(true), _) => "a memory channel",
        (_, Some(true)) => "a compute unit (TPC)",
        _ => return,
    };
    if is_to_be_replaced(gpu) {
        return;
    }
    let message = format!("GPU {}: the repair of {parts} is pending; it takes effect at the next GPU reset", gpu.index);
    let action = reset_when_idle(gpu, findings);
    findings.add(Code::RepairPending, Verdict::Degraded, Some(gpu), message, action);
}

fn remapped_rows(gpu: &Gpu, findings: &mut Findings<'_>) {
    let index = gpu.index;
    let rows = gpu.remapped_rows.unwrap_or_default();
    if rows.failed {
        let message = format!("GPU {index}: row remapping failed, no spare rows left");
        findings.add(Code::RowRemapFailed, Verdict::Unhealthy, Some(gpu), message, REPLACE);
    }
    if rows.pending && !is_to_be_replaced(gpu) {
        let message = format!("GPU {index}: a row remap is pending; it takes effect at the next GPU reset");
        let action = reset_when_idle(gpu, findings);
        findings.add(Code::RowRemapPending, Verdict::Degraded, Some(gpu), message, action);
    }
    let empty = gpu.spare_rows.map_or(0, |banks| banks.none);
    let (what, numbers) = if rows.uncorrectable >= MANY_REMAPS {
        (format!("{} rows remapped after uncorrectable errors", rows.uncorrectable), (rows.uncorrectable, MANY_REMAPS))
    } else if empty > 0 {
        (format!("memory banks without a spare row: {empty}"), (empty, 0))
    } else {
        return;
    };
    findings
        .add(
            Code::RowRemapMany,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index}: {what}"),
            "Plan to replace the board (RMA) before its spare rows are used up.",
        )
        .numbers(numbers.0, numbers.1);
}

fn retired_pages(gpu: &Gpu, track: &Track, findings: &mut Findings<'_>) {
    let index = gpu.index;
    let Some(pages) = gpu.retired_pages else { return };
    if pages.pending {
        findings.add(
            Code::RetiredPending,
            Verdict::Degraded,
            Some(gpu),
            format!("GPU {index}: a page retirement is pending; it takes effect at the next reboot"),
            format!("{} when the GPU is idle.", findings.place.reboot()),
        );
    }
    // AMD's driver has a limit for each board, and logs when it is reached.
    if gpu.vendor.is_amd() {
        return;
    }
    let total = history::total(pages);
    if total >= RETIRED_LIMIT || (track.retired_rise && pages.double_bit > RETIRED_DOUBLE_LIMIT) {
        findings
            .add(
                Code::RetiredLimit,
                Verdict::Unhealthy,
                Some(gpu),
                format!("GPU {index}: {total} pages retired, {} after double-bit errors", pages.double_bit),
                REPLACE,
            )
            .numbers(total, RETIRED_LIMIT);
    }
}
