//! What the driver amdgpu has reported in the kernel's log: hangs, resets, lost and broken GPUs. Times are seconds of the
//! monotonic clock, as those of XIDs.

mod line;

use super::pci::PciId;
pub(crate) use line::{Said, said};

/// A GPU resets within seconds. One whose reset has not ended by then hangs in it.
const RESET_S: f64 = 60.0;
/// Beyond it the oldest is forgotten.
const MAX_KINDS: usize = 256;

/// All reports of one kind about one GPU.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// None: the line did not name it.
    pub(crate) pci: Option<PciId>,
    pub(crate) said: Said,
    pub(crate) count: u64,
    /// Monotonic seconds of the last one.
    pub(crate) last: f64,
    /// It raises no reason any more.
    settled: bool,
}

impl Report {
    /// The GPU does not work again by itself.
    pub(crate) fn is_failed_reset(&self, now: f64) -> bool {
        self.said == Said::ResetFailed || self.said == Said::ResetBegun && now - self.last > RESET_S
    }
}

/// All reports since the machine started, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct AmdLog(Vec<Report>);

impl AmdLog {
    /// One line. `at`: monotonic seconds.
    pub(crate) fn record(&mut self, pci: Option<PciId>, said: Said, at: f64) {
        let settles = |report: &Report| report.pci == pci && report.last <= at && said.settles(report.said);
        self.0.iter_mut().filter(|report| settles(report)).for_each(|report| report.settled = true);
        if said.is_all_clear() {
            return;
        }
        if let Some(report) = self.0.iter_mut().find(|report| (report.pci, report.said) == (pci, said)) {
            report.count += 1;
            report.last = report.last.max(at);
            report.settled = false;
            return;
        }
        if self.0.len() >= MAX_KINDS {
            let oldest = (0..self.0.len()).min_by(|a, b| self.0[*a].last.total_cmp(&self.0[*b].last));
            oldest.map(|index| self.0.swap_remove(index));
        }
        self.0.push(Report { pci, said, count: 1, last: at, settled: false });
    }

    pub(crate) fn settle(&mut self) {
        self.0.iter_mut().for_each(|report| report.settled = true);
    }

    /// The unsettled ones.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Report> {
        self.0.iter().filter(|report| !report.settled)
    }

    /// Resets of whole GPUs that succeeded, as far as the log named the GPU.
    pub(crate) fn resets(&self) -> Vec<(PciId, u64)> {
        let reset = |report: &Report| Some((report.pci?, report.count)).filter(|_| report.said == Said::Recovered);
        self.0.iter().filter_map(reset).collect()
    }
}

#[cfg(test)]
mod tests;
