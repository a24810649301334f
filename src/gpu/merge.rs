//! One state of the GPUs of two readers.

use super::sample::{Gpu, GpuSample};
use super::state::GpuState;

/// The GPUs of `first`, and those of `second` behind them, whose indices follow. A reader that fails does not hide what the
/// other one reads.
pub(crate) fn merge(first: GpuState, second: GpuState) -> GpuState {
    match (first, second) {
        (GpuState::Sample(first), GpuState::Sample(second)) => GpuState::Sample(samples(first, second)),
        // Its GPUs carry the error. Without one, only the fault says that some are missing.
        (GpuState::Sample(mut sample), second) => {
            if second.gpus().is_empty() {
                before(sample.gpus, second)
            } else {
                append(&mut sample.gpus, second.gpus().to_vec());
                GpuState::Sample(sample)
            }
        }
        (mut first, second) => {
            if let GpuState::Starting { gpus, .. } | GpuState::Fault { gpus, .. } = &mut first {
                append(gpus, second.gpus().to_vec());
            }
            first
        }
    }
}

fn samples(mut first: GpuSample, second: GpuSample) -> GpuSample {
    append(&mut first.gpus, second.gpus);
    first.driver_version = first.driver_version.or(second.driver_version);
    first.slow_fresh |= second.slow_fresh;
    first.read_us += second.read_us;
    second.call_us.into_iter().for_each(|(call, us)| *first.call_us.entry(call).or_default() += us);
    first
}

fn append(gpus: &mut Vec<Gpu>, others: Vec<Gpu>) {
    let offset = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
    gpus.extend(others.into_iter().map(|gpu| Gpu { index: gpu.index.saturating_add(offset), ..gpu }));
}

/// Puts `gpus` in front of those of a state that is not a sample.
fn before(mut gpus: Vec<Gpu>, mut state: GpuState) -> GpuState {
    if let GpuState::Starting { gpus: own, .. } | GpuState::Fault { gpus: own, .. } = &mut state {
        append(&mut gpus, std::mem::take(own));
        *own = gpus;
    }
    state
}

#[cfg(test)]
mod tests;
