//! What a GPU did since a mark. Only the driver's own timestamps are compared with each other, because a wall clock steps.

use std::time::Instant;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;

use super::raw;
use super::reading_log::{ReadingLog, Times, micros};
use crate::gpu::activity::Activity;

/// More power than the largest board takes.
const MAX_POWER_MW: u64 = 3_000_000;
/// The energy counter is renewed a few times a second: the first value may be this much older than the mark.
const COUNTER_LAG_US: u64 = 1_000_000;

/// Where the driver's buffers and counters of one GPU stood.
pub(super) struct Mark {
    at: Instant,
    /// The newest timestamp of each list, 0 for an empty one; None where the driver does not have the list.
    samples: Option<u64>,
    processes: Option<u64>,
    energy_mj: Option<u64>,
    power_mw: Option<u32>,
}

impl Mark {
    /// `power_mw`: the power as it was just read.
    pub(super) fn new(device: &Device<'_>, power_mw: Option<u32>, times: &mut Times) -> Self {
        let [samples, processes] = [utilization_samples(device, 0, times), process_samples(device, 0, times)]
            .map(|list| list.map(|list| list.iter().map(|(at, _)| *at).max().unwrap_or(0)));
        Self { at: Instant::now(), samples, processes, energy_mj: energy_counter(device, times), power_mw }
    }

    /// What came since then.
    pub(super) fn since(&self, device: &Device<'_>, times: &mut Times) -> Activity {
        let energy_mj = energy_counter(device, times);
        let window_us = micros(self.at);
        let mut activity = Activity { window_us, power_before_mw: self.power_mw, ..Activity::default() };
        activity.energy_mj = self.energy_mj.zip(energy_mj).and_then(|(before, now)| used(before, now, window_us));
        if let Some(since) = self.samples {
            let list = utilization_samples(device, since, times).unwrap_or_default();
            see_samples(&mut activity, since, &list);
        }
        if let Some(since) = self.processes {
            let list = process_samples(device, since, times).unwrap_or_default();
            activity.process_percent = busiest(since, &list);
        }
        activity
    }
}

/// Timestamps and percentages.
type Samples = Vec<(u64, i64)>;

fn utilization_samples(device: &Device<'_>, since: u64, times: &mut Times) -> Option<Samples> {
    read("utilization_samples", times, || raw::utilization_samples(device, since))
}

fn process_samples(device: &Device<'_>, since: u64, times: &mut Times) -> Option<Samples> {
    read("process_utilization", times, || {
        Ok(raw::process_utilization(device, since)?.into_iter().map(|sample| (sample.at, sample.percent)).collect())
    })
}

/// The list, if the driver has it. Why it does not have one says nothing of the GPU's health: the log is dropped.
fn read(call: &str, times: &mut Times, list: impl FnOnce() -> Result<Samples, NvmlError>) -> Option<Samples> {
    ReadingLog::new(times).at(call, &[], || match list() {
        Err(NvmlError::NotFound) => Ok(Samples::new()),
        other => other,
    })
}

fn energy_counter(device: &Device<'_>, times: &mut Times) -> Option<u64> {
    ReadingLog::new(times).at("total_energy_consumption", &[], || device.total_energy_consumption())
}

/// Adds the samples that are newer than `since`. One that is impossible makes all of them unknown.
fn see_samples(activity: &mut Activity, since: u64, list: &[(u64, i64)]) {
    let new = || list.iter().filter(|(at, _)| *at > since);
    let percents: Option<Vec<u32>> = new().map(|(_, percent)| plausible(*percent)).collect();
    let Some(percents) = percents.filter(|percents| !percents.is_empty()) else { return };
    activity.utilization_percent = percents.iter().copied().max();
    activity.samples = u32::try_from(percents.len()).unwrap_or(u32::MAX);
    activity.sampled_us = new().map(|(at, _)| at - since).max().filter(|_| since > 0);
}

/// The highest percentage that is newer than `since`. Drivers are known to put junk between the processes: it is left out.
fn busiest(since: u64, list: &[(u64, i64)]) -> Option<u32> {
    list.iter().filter(|(at, _)| *at > since).filter_map(|(_, percent)| plausible(*percent)).max()
}

pub(super) fn plausible(percent: i64) -> Option<u32> {
    u32::try_from(percent).ok().filter(|percent| *percent <= 100)
}

/// Millijoules between two values of the counter. A counter that stands still does not work: each GPU uses some.
fn used(before: u64, now: u64, window_us: u64) -> Option<u64> {
    let most = window_us.saturating_add(COUNTER_LAG_US).saturating_mul(MAX_POWER_MW) / 1_000_000;
    now.checked_sub(before).filter(|used| *used > 0 && *used <= most)
}

#[test]
fn only_newer_samples_count_and_nothing_impossible_does() {
    #[track_caller]
    fn check(since: u64, list: &[(u64, i64)], expect: (Option<u32>, u32, Option<u64>)) {
        let mut activity = Activity::default();
        see_samples(&mut activity, since, list);
        assert_eq!((activity.utilization_percent, activity.samples, activity.sampled_us), expect, "{list:?}");
    }
    check(1_000, &[], (None, 0, None));
    check(1_000, &[(900, 99), (1_000, 98)], (None, 0, None));
    check(1_000, &[(1_000, 98), (1_400, 3), (1_200, 7)], (Some(7), 2, Some(400)));
    check(1_000, &[(1_200, 0), (1_400, 0)], (Some(0), 2, Some(400)));
    check(1_000, &[(1_200, 101), (1_400, 3)], (None, 0, None));
    check(1_000, &[(1_200, -1)], (None, 0, None));
    // Without a sample before the mark the first one may cover any time.
    check(0, &[(1_200, 3)], (Some(3), 1, None));
    // A clock that was set back.
    check(u64::MAX, &[(1_200, 3)], (None, 0, None));
    assert_eq!(busiest(1_000, &[(1_000, 90), (1_200, 40), (1_300, 3_000), (1_400, 7)]), Some(40));
    assert_eq!(busiest(1_000, &[(1_300, 3_000)]), None);
}

#[test]
fn energy_that_no_board_uses_is_unknown() {
    for (before, now, window_us, expect) in [
        (100, 31_100, 1_000_000, Some(31_000)),
        (100, 100, 1_000_000, None),
        (100, 99, 1_000_000, None),
        (0, 6_000_000, 1_000_000, Some(6_000_000)),
        (0, 6_000_001, 1_000_000, None),
        (0, u64::MAX, u64::MAX, None),
    ] {
        assert_eq!(used(before, now, window_us), expect, "{before} {now}");
    }
}
