//! When NVIDIA's GPUs are left alone so that they can sleep. An open NVML handle keeps a GPU awake, and a query wakes one
//! that sleeps: while none has work, NVML is released, and it is not used again before a GPU is awake for another reason.

use std::time::{Duration, Instant};

use super::sample::{Gpu, GpuSample};
use crate::sys::backoff::Backoff;

/// How long no GPU may have had work before NVML is released.
const IDLE: Duration = Duration::from_secs(15);
/// How long GPUs get to fall asleep. Drivers take some 6 s.
const SETTLE: Duration = Duration::from_secs(15);
/// First and longest wait after a release that did not let them sleep: another program keeps them awake.
const RETRY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// More memory in use means work, even where its process is not shown: a CUDA context alone takes more.
const MAX_IDLE_BYTES: u64 = 100 << 20;

/// Decides when NVML is used.
#[derive(Debug)]
pub(crate) struct Sleep {
    phase: Phase,
    /// Since when no GPU has had work.
    idle_since: Option<Instant>,
    /// NVML is kept until then.
    keep_until: Option<Instant>,
    retry: Backoff,
    /// A GPU has had work since they were last awake.
    worked: bool,
    idle: Duration,
    settle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// NVML is used.
    Used,
    /// They are awake and left alone since then.
    LeftAlone { since: Instant, reason: LeftAlone },
    /// They sleep, and nothing of ours wakes them.
    Asleep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftAlone {
    /// NVML was released so that they fall asleep.
    Released,
    /// Another program woke them, as one did before without giving them work.
    Woken,
}

impl Sleep {
    /// `time_scale`: divides all times.
    pub(crate) fn new(time_scale: u32) -> Self {
        Self {
            phase: Phase::Used,
            idle_since: None,
            keep_until: None,
            retry: Backoff::new(RETRY.0 / time_scale, RETRY.1 / time_scale),
            worked: true,
            idle: IDLE / time_scale,
            settle: SETTLE / time_scale,
        }
    }

    /// Whether the GPUs are left alone now. `asleep`: all of them sleep. `needed`: a probe of a model asks, which wakes them
    /// anyway.
    pub(crate) fn leaves_alone(&mut self, asleep: bool, needed: bool, now: Instant) -> bool {
        if asleep {
            self.retry.success();
            self.keep_until = None;
            self.enter(Phase::Asleep);
            return true;
        }
        match self.phase {
            Phase::Used => false,
            _ if needed => self.use_again(),
            Phase::Asleep if self.worked => self.use_again(),
            Phase::Asleep => {
                self.enter(Phase::LeftAlone { since: now, reason: LeftAlone::Woken });
                true
            }
            Phase::LeftAlone { since, .. } if now.duration_since(since) < self.settle => true,
            Phase::LeftAlone { reason, .. } => {
                if reason == LeftAlone::Released {
                    self.keep_until = Some(now + self.retry.after_failure(0.0));
                }
                self.use_again()
            }
        }
    }

    /// Whether NVML is to be released after this sample; then the GPUs are left alone from now on.
    pub(crate) fn releases(&mut self, sample: &GpuSample, now: Instant) -> bool {
        if sample.gpus.is_empty() || !sample.gpus.iter().all(is_idle) {
            self.worked = true;
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        let released = now.duration_since(since) >= self.idle && self.keep_until.is_none_or(|until| now >= until);
        if released {
            self.enter(Phase::LeftAlone { since: now, reason: LeftAlone::Released });
        }
        released
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.idle_since = None;
    }

    fn use_again(&mut self) -> bool {
        self.enter(Phase::Used);
        self.worked = false;
        false
    }
}

/// It has no work, and nothing is wrong with it that would be forgotten while it sleeps.
fn is_idle(gpu: &Gpu) -> bool {
    let is_unused = gpu.utilization_percent == Some(0)
        && gpu.vram_used_bytes.is_some_and(|bytes| bytes <= MAX_IDLE_BYTES)
        && gpu.processes.as_ref().is_none_or(Vec::is_empty);
    let is_well = gpu.usable()
        && gpu.failed().next().is_none()
        && gpu.recovery_action.is_none_or(|action| action == 0)
        && gpu.remapped_rows.is_none_or(|rows| !rows.pending && !rows.failed)
        && gpu.retired_pages.is_none_or(|pages| !pages.pending)
        && gpu.spare_rows.is_none_or(|banks| banks.none == 0)
        && gpu.ecc_uncorrected_volatile.is_none_or(|errors| errors == 0)
        && !(gpu.awaits_fabric() || gpu.fabric_error().is_some() || gpu.fabric_fault().is_some())
        && !gpu.lacks_instance();
    let flags = [
        gpu.inforom_corrupt,
        gpu.sram_threshold_exceeded,
        gpu.channel_repair_pending,
        gpu.tpc_repair_pending,
        gpu.unrepairable_memory,
    ];
    is_unused && is_well && !flags.contains(&Some(true))
}

/// The same GPU while it is left alone: what is known of it without its driver, and what sleep does not repair. A GPU that
/// falls asleep by itself, as after a crash of the helper, keeps the reasons for that.
pub(crate) fn sleeping(gpu: &Gpu) -> Gpu {
    // One that is lost, or that belongs to others. That one has not answered yet, sleep explains.
    if gpu.error.is_some() && !gpu.is_slow() {
        return gpu.clone();
    }
    Gpu {
        asleep: true,
        vram_total_bytes: gpu.vram_total_bytes,
        // That nothing is requested does not stay true.
        recovery_action: gpu.recovery_action.filter(|action| *action != 0),
        remapped_rows: gpu.remapped_rows,
        spare_rows: gpu.spare_rows,
        retired_pages: gpu.retired_pages,
        ecc_uncorrected_volatile: gpu.ecc_uncorrected_volatile,
        sram_threshold_exceeded: gpu.sram_threshold_exceeded,
        channel_repair_pending: gpu.channel_repair_pending,
        tpc_repair_pending: gpu.tpc_repair_pending,
        unrepairable_memory: gpu.unrepairable_memory,
        inforom_corrupt: gpu.inforom_corrupt,
        // A card in a bad slot sleeps nevertheless.
        pcie_width: gpu.pcie_width,
        pcie_width_max: gpu.pcie_width_max,
        pcie_generation: gpu.pcie_generation,
        ..gpu.identity()
    }
}

#[cfg(test)]
mod tests;
