//! How much of a GPU each of its processes used since the last slow reading, by the driver's own samples. Only its own
//! timestamps are compared with each other, because a wall clock steps.

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::activity::plausible;
use super::final_calls::FinalCalls;
use super::raw::{self, ProcessSample};
use super::reading_log::ReadingLog;
use crate::gpu::value::Process;

/// Where the driver's two lists stood at the last slow reading: their newest timestamps, 0 before the first.
#[derive(Default)]
pub(super) struct ProcessUse {
    processes: u64,
    samples: u64,
}

impl ProcessUse {
    /// Fills in the utilization of these processes. Without processes nothing is asked.
    pub(super) fn read(
        &mut self,
        device: &Device<'_>,
        processes: &mut [Process],
        finals: &mut FinalCalls,
        log: &mut ReadingLog<'_>,
    ) {
        if processes.is_empty() {
            return;
        }
        let since = self.processes;
        let list = finals.at(log, "process_utilization", &[], || or_none(raw::process_utilization(device, since)));
        let Some(mut list) = list else { return };
        list.retain(|sample| sample.at > since);
        let idle = list.is_empty() && self.was_idle(device, finals, log);
        for process in processes {
            process.utilization_percent = if idle { Some(0) } else { mean(process.pid, &list) };
        }
        let newest = list.iter().filter(|sample| plausible(sample.percent).is_some()).map(|sample| sample.at).max();
        self.processes = newest.unwrap_or(self.processes);
    }

    /// No process is in the driver's list: that its samples of the whole GPU are all 0 proves that none computed.
    fn was_idle(&mut self, device: &Device<'_>, finals: &mut FinalCalls, log: &mut ReadingLog<'_>) -> bool {
        let since = self.samples;
        let list = finals.at(log, "utilization_samples", &[], || or_none(raw::utilization_samples(device, since)));
        let Some(list) = list else { return false };
        match list.iter().map(|(at, _)| *at).filter(|at| *at > since).max() {
            Some(newest) => self.samples = newest,
            // The driver's clock may have been set back: next time all that it has counts.
            None => *self = Self::default(),
        }
        !list.is_empty() && list.iter().all(|(at, percent)| *at <= since || *percent == 0)
    }
}

/// An empty list is an error of NVML.
fn or_none<T>(list: Result<Vec<T>, NvmlError>) -> Result<Vec<T>, NvmlError> {
    match list {
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        other => other,
    }
}

/// The mean of a process's samples. The driver lists the processes that used the GPU: one that it leaves out used none of
/// it. A sample that is impossible makes it unknown.
fn mean(pid: u32, list: &[ProcessSample]) -> Option<u32> {
    if list.is_empty() {
        return None;
    }
    let own = list.iter().filter(|sample| sample.pid == pid).map(|sample| plausible(sample.percent));
    let own: Vec<u32> = own.collect::<Option<_>>()?;
    let count = u32::try_from(own.len()).ok()?;
    let sum: u32 = own.iter().sum();
    Some((sum + count / 2).checked_div(count).unwrap_or(0))
}

#[test]
fn the_mean_of_a_process_is_of_its_own_samples() {
    let sample = |pid, percent| ProcessSample { at: 1, pid, percent };
    let list = [sample(7, 30), sample(8, 99), sample(7, 41), sample(9, 4_294_967_295), sample(9, 3)];
    for (pid, expect) in [(7, Some(36)), (8, Some(99)), (9, None), (10, Some(0))] {
        assert_eq!(mean(pid, &list), expect, "{pid}");
    }
    assert_eq!(mean(7, &[]), None);
}
