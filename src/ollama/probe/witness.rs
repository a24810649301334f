//! What the GPUs did while a model answered a probe, and who holds their memory.

use std::time::Duration;

use super::answer::Answered;
use crate::gpu::activity::Activity;
use crate::gpu::holders;
use crate::gpu::sample::{Gpu, GpuSample};
use crate::sys::text::counted;

/// A model that computed for less leaves too little in the driver's samples.
const LEAST_BUSY: Duration = Duration::from_millis(500);
/// From this utilization on a GPU works, and from this one on one of its processes does.
pub(crate) const WORKS_PERCENT: u32 = 20;
const PROCESS_WORKS_PERCENT: u32 = 10;
/// Above this utilization a GPU may work for a model whose CPU is slow.
const IDLE_PERCENT: u32 = 10;
/// Power up to this many times the power before, and this many milliwatts more, is that of an idle GPU.
const IDLE_POWER: f64 = 1.3;
const IDLE_POWER_MW: f64 = 10_000.0;
/// GPUs that are named.
const MOST_GPUS: usize = 4;

/// What the GPUs did during an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Witness {
    /// The highest utilization of a GPU.
    Worked { percent: u32 },
    /// None worked: the same, and the numbers of each GPU.
    Idle { percent: u32, clause: String },
    /// The driver does not say, or the answer was too short.
    Unknown,
}

impl Witness {
    /// The highest utilization of a GPU.
    pub(crate) fn percent(&self) -> Option<u32> {
        match self {
            Self::Worked { percent } | Self::Idle { percent, .. } => Some(*percent),
            Self::Unknown => None,
        }
    }
}

/// `sample`: taken since the mark, right after the answer. Idle is a finding only where Ollama reports all of the model on
/// GPUs: while a part of it runs on the CPU, a GPU waits most of the time.
pub(crate) fn judge(sample: &GpuSample, answered: &Answered) -> Witness {
    match highest(sample) {
        Some((percent, true)) => Witness::Worked { percent },
        Some((percent, false)) if percent <= IDLE_PERCENT && is_idle(sample, answered) => {
            Witness::Idle { percent, clause: idle_clause(&sample.gpus) + &holders::clause(&sample.gpus) }
        }
        _ => Witness::Unknown,
    }
}

/// The highest utilization of a GPU or of a process since the mark, and whether it is that of a GPU at work.
fn highest(sample: &GpuSample) -> Option<(u32, bool)> {
    let percents = sample.gpus.iter().filter_map(|gpu| gpu.activity).flat_map(|activity| {
        let of = |percent: Option<u32>, works: u32| percent.map(|percent| (percent, percent >= works));
        [of(activity.utilization_percent, WORKS_PERCENT), of(activity.process_percent, PROCESS_WORKS_PERCENT)]
    });
    percents.flatten().reduce(|a, b| (a.0.max(b.0), a.1 || b.1))
}

fn is_idle(sample: &GpuSample, answered: &Answered) -> bool {
    let long = !answered.embedding && answered.busy() >= LEAST_BUSY;
    long && sample.gpus.iter().all(|gpu| {
        // Without this reading, as in MIG mode, its samples prove nothing.
        let supported = gpu.usable() && gpu.utilization_percent.is_some();
        supported && gpu.activity.is_some_and(|activity| was_idle(&activity, answered.busy()))
    })
}

/// Some drivers report a utilization of 0 whatever the GPU does: then its power must say the same.
fn was_idle(activity: &Activity, busy: Duration) -> bool {
    let by_power = used_power(activity, busy).map(|used| !used);
    saw_all(activity, busy) && by_power.unwrap_or(activity.utilization_percent != Some(0))
}

/// A sample covers the time since the one before. Where the model computed for two such periods, one of them shows at
/// least half of its period at work, although the newest sample may be from before the answer's end.
fn saw_all(activity: &Activity, busy: Duration) -> bool {
    let (Some(_), Some(sampled_us)) = (activity.utilization_percent, activity.sampled_us) else { return false };
    let period = Duration::from_micros(sampled_us / u64::from(activity.samples.max(1)));
    busy >= period * 2 && Duration::from_micros(activity.window_us) >= busy
}

/// Whether it used more power than an idle GPU while the model computed, which may be a small part of the time since the
/// mark; None: unknown.
fn used_power(activity: &Activity, busy: Duration) -> Option<bool> {
    let (mean, before) = mean_power_mw(activity).zip(activity.power_before_mw.map(f64::from))?;
    let share = Duration::from_micros(activity.window_us).as_secs_f64() / busy.as_secs_f64();
    Some((mean - before) * share > before * (IDLE_POWER - 1.0) + IDLE_POWER_MW)
}

fn mean_power_mw(activity: &Activity) -> Option<f64> {
    let seconds = Duration::from_micros(activity.window_us).as_secs_f64();
    activity.energy_mj.filter(|_| seconds > 0.0).map(|mj| mj as f64 / seconds)
}

fn idle_clause(gpus: &[Gpu]) -> String {
    let one = |gpu: &Gpu| {
        let activity = gpu.activity.unwrap_or_default();
        let percent = activity.utilization_percent.unwrap_or_default();
        let watts =
            mean_power_mw(&activity).or(gpu.power_mw.map(f64::from)).map(|mw| format!(", {:.0} W", mw / 1000.0));
        let samples = counted(activity.samples, "sample");
        format!("GPU {} at most {percent} % in {samples}{}", gpu.index, watts.unwrap_or_default())
    };
    let named: Vec<String> = gpus.iter().take(MOST_GPUS).map(one).collect();
    let others = match gpus.len().saturating_sub(MOST_GPUS) {
        0 => String::new(),
        others => format!(", and {others} more"),
    };
    named.join(", ") + &others
}

#[cfg(test)]
mod tests;
