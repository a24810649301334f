//! XIDs: the numbered errors that NVIDIA's driver reports, from the kernel's log or from NVML's events.
//!
//! Their times are seconds of the monotonic clock, which the kernel's log uses and which cannot be set: no step of the
//! wall clock makes an error older, newer or settled. It stops while the machine is suspended. Unix times are computed
//! from the difference of the two clocks.

mod catalogue;
mod kernel;

use super::amd_log::AmdLog;
use super::pci::PciId;
use crate::sys::json::millis;

pub(crate) use catalogue::{Class, class, meaning};
use catalogue::{OFF_THE_BUS, RECOVERY_ACTION};
pub(crate) use kernel::{KernelEvent, KernelLog};

/// One number of one GPU, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Xid {
    pub(crate) pci: PciId,
    pub(crate) number: u32,
    /// Reports since the machine started, as far as they were seen.
    pub(crate) count: u64,
    /// Unix seconds of the last one.
    pub(crate) last: f64,
}

/// All reports of one number of one GPU with the same meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kind {
    pub(crate) pci: PciId,
    pub(crate) number: u32,
    pub(crate) class: Class,
    pub(crate) count: u64,
    /// Monotonic seconds of the last one.
    pub(crate) last: f64,
    /// It raises no reason any more.
    settled: bool,
}

impl Kind {
    pub(crate) fn meaning(&self) -> &'static str {
        match (self.number, self.class) {
            (RECOVERY_ACTION, Class::Fatal) => "driver requests a reset or a reboot",
            (RECOVERY_ACTION, Class::Lesser) => "driver requests a peer-to-peer drain or a restart of IMEX",
            _ => meaning(self.number),
        }
    }
}

/// The kernel reports "fallen off the bus" in up to three lines; they are one error.
const SAME_EVENT_S: f64 = 5.0;
/// At most this many kinds of errors: beyond it the oldest is forgotten.
const MAX_KINDS: usize = 512;
/// A larger difference of the wall clock is a step; smaller corrections are normal.
const CLOCK_STEP_S: f64 = 1.0;

/// All errors since the machine started, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct XidLog {
    kinds: Vec<Kind>,
    /// What amdgpu reports, which has no numbers.
    pub(crate) amd: AmdLog,
    /// The Unix time at which the monotonic clock was 0.
    zero: f64,
}

impl XidLog {
    /// One report. `at`: monotonic seconds.
    pub(crate) fn record(&mut self, pci: PciId, number: u32, class: Class, at: f64) {
        let same = |kind: &Kind| kind.pci == pci && kind.number == number;
        if number == RECOVERY_ACTION && class != Class::Warn {
            // What the driver requests now replaces what it requested before.
            self.kinds.iter_mut().filter(|kind| same(kind)).for_each(|kind| kind.settled = true);
        }
        if let Some(kind) = self.kinds.iter_mut().find(|kind| same(kind) && kind.class == class) {
            if number != OFF_THE_BUS || (at - kind.last).abs() > SAME_EVENT_S {
                kind.count += 1;
            }
            kind.last = kind.last.max(at);
            kind.settled = false;
            return;
        }
        if self.kinds.len() >= MAX_KINDS {
            let oldest = (0..self.kinds.len()).min_by(|a, b| self.kinds[*a].last.total_cmp(&self.kinds[*b].last));
            oldest.map(|index| self.kinds.swap_remove(index));
        }
        self.kinds.push(Kind { pci, number, class, count: 1, last: at, settled: false });
    }

    /// Settles all reports from before `at` (monotonic seconds). They stay counted.
    pub(crate) fn settle_before(&mut self, at: f64) {
        self.kinds.iter_mut().filter(|kind| kind.last < at).for_each(|kind| kind.settled = true);
    }

    /// Settles all reports so far.
    pub(crate) fn settle(&mut self) {
        self.amd.settle();
        self.settle_before(f64::INFINITY);
    }

    /// The unsettled ones.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|kind| !kind.settled)
    }

    /// When the driver last reported for this GPU that it requests nothing, if it has requested nothing since.
    pub(crate) fn all_clear(&self, pci: PciId) -> Option<f64> {
        self.open().find(|kind| kind.pci == pci && kind.class == Class::AllClear).map(|kind| kind.last)
    }

    /// The two clocks at one moment.
    pub(crate) fn see_clocks(&mut self, monotonic: f64, unix: f64) {
        // Following every correction would make the displayed times flicker.
        if (unix - monotonic - self.zero).abs() > CLOCK_STEP_S {
            self.zero = unix - monotonic;
        }
    }

    /// For people: one for each number of each GPU.
    pub(crate) fn all(&self) -> Vec<Xid> {
        let mut all: Vec<Xid> = Vec::new();
        for kind in &self.kinds {
            let last = millis(self.zero + kind.last);
            match all.iter_mut().find(|xid| xid.pci == kind.pci && xid.number == kind.number) {
                Some(xid) => {
                    xid.count += kind.count;
                    xid.last = xid.last.max(last);
                }
                None => all.push(Xid { pci: kind.pci, number: kind.number, count: kind.count, last }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
