//! What the driver's numbers prove, and what they do not.

use std::time::Duration;

use super::{Witness, judge};
use crate::gpu::activity::Activity;
use crate::gpu::sample::{Gpu, GpuSample};
use crate::ollama::probe::answer::Answered;

/// A second and a half that an idle GPU of 31 W was watched.
const IDLE: Activity = Activity {
    window_us: 1_500_000,
    utilization_percent: Some(3),
    samples: 12,
    sampled_us: Some(1_440_000),
    process_percent: None,
    energy_mj: Some(46_500),
    power_before_mw: Some(30_000),
};

/// A generation of this many milliseconds.
fn generation(ms: u64) -> Answered {
    let eval = Duration::from_millis(ms);
    Answered { total: eval, eval, tokens_written: 16, ..Answered::default() }
}

fn gpu(index: u32, activity: Activity) -> Gpu {
    Gpu { index, activity: Some(activity), utilization_percent: Some(3), ..Gpu::default() }
}

fn of(gpus: &[Gpu]) -> GpuSample {
    GpuSample { gpus: gpus.to_vec(), ..GpuSample::default() }
}

fn idle(clause: &str) -> Witness {
    Witness::Idle { percent: 3, clause: clause.into() }
}

#[test]
fn an_idle_gpu_is_described_with_its_numbers() {
    let answered = generation(1_200);
    let seen = judge(&of(&[gpu(0, IDLE)]), &answered);
    assert_eq!(seen, idle("GPU 0 at most 3 % in 12 samples, 31 W"));
    let silent = Activity { energy_mj: None, samples: 1, sampled_us: Some(400_000), ..IDLE };
    let seen = judge(&of(&[gpu(0, silent)]), &answered);
    assert_eq!(seen, idle("GPU 0 at most 3 % in 1 sample"));
    let powered = Gpu { power_mw: Some(14_600), ..gpu(0, silent) };
    let seen = judge(&of(&[powered]), &answered);
    assert_eq!(seen, idle("GPU 0 at most 3 % in 1 sample, 15 W"));
    let many: Vec<Gpu> = (0..6).map(|index| gpu(index, silent)).collect();
    let Witness::Idle { clause, .. } = judge(&of(&many), &answered) else { panic!() };
    assert!(clause.ends_with("GPU 3 at most 3 % in 1 sample, and 2 more"), "{clause}");
}

#[test]
fn whatever_speaks_against_it_makes_it_unknown() {
    let answered = generation(1_200);
    let against = |what: &str, change: &dyn Fn(&mut Gpu)| {
        let mut changed = gpu(1, IDLE);
        change(&mut changed);
        assert_eq!(judge(&of(&[gpu(0, IDLE), changed]), &answered), Witness::Unknown, "{what}");
    };
    against("no activity", &|gpu| gpu.activity = None);
    against("no answer", &|gpu| *gpu = Gpu { activity: Some(IDLE), ..gpu.silent("hangs") });
    against("no samples", &|gpu| gpu.activity = Some(Activity { utilization_percent: None, samples: 0, ..IDLE }));
    against("no sample before", &|gpu| gpu.activity = Some(Activity { sampled_us: None, ..IDLE }));
    // A sample each 700 ms: an answer of 1.2 s may lie between what two of them show.
    against("rare samples", &|gpu| gpu.activity = Some(Activity { samples: 2, ..IDLE }));
    // Another probe set a mark in the middle of this one.
    against("a short window", &|gpu| gpu.activity = Some(Activity { window_us: 1_100_000, ..IDLE }));
    // It may wait for a slow CPU most of the time.
    against("some work", &|gpu| gpu.activity = Some(Activity { utilization_percent: Some(11), ..IDLE }));
    against("MIG", &|gpu| gpu.utilization_percent = None);
    // Some drivers report 0 % whatever the GPU does.
    let zero = Activity { utilization_percent: Some(0), ..IDLE };
    assert!(matches!(judge(&of(&[gpu(0, zero)]), &answered), Witness::Idle { percent: 0, .. }));
    against("no energy", &|gpu| gpu.activity = Some(Activity { energy_mj: None, ..zero }));
    against("no power", &|gpu| gpu.activity = Some(Activity { power_before_mw: None, ..zero }));
    // The model waited 8.8 s for others, and then used 100 W.
    let waited = Activity { window_us: 10_000_000, energy_mj: Some(384_000), ..IDLE };
    against("diluted power", &|gpu| gpu.activity = Some(waited));
    // 100 W on the average.
    against("power", &|gpu| gpu.activity = Some(Activity { energy_mj: Some(150_000), ..IDLE }));
    for short in [generation(499), Answered { embedding: true, ..generation(1_200) }] {
        assert_eq!(judge(&of(&[gpu(0, IDLE)]), &short), Witness::Unknown, "{short:?}");
    }
    assert_eq!(judge(&of(&[]), &answered), Witness::Unknown);
    let unsupported = Activity { window_us: 1_500_000, ..Activity::default() };
    assert_eq!(judge(&of(&[gpu(0, unsupported)]), &answered), Witness::Unknown);
}

#[test]
fn both_sides_of_each_limit() {
    #[track_caller]
    fn check(change: Activity, expect: Option<u32>) {
        let seen = judge(&of(&[gpu(0, change), gpu(1, IDLE)]), &generation(500));
        match expect {
            Some(percent) => assert_eq!(seen, Witness::Worked { percent }),
            None => assert!(matches!(seen, Witness::Idle { .. }), "{seen:?}"),
        }
    }
    check(Activity { utilization_percent: Some(10), ..IDLE }, None);
    check(Activity { utilization_percent: Some(20), ..IDLE }, Some(20));
    check(Activity { process_percent: Some(9), ..IDLE }, None);
    check(Activity { process_percent: Some(10), ..IDLE }, Some(10));
    let between = gpu(0, Activity { utilization_percent: Some(19), ..IDLE });
    assert_eq!(judge(&of(&[between]), &generation(500)), Witness::Unknown);
    check(Activity { utilization_percent: Some(15), process_percent: Some(10), ..IDLE }, Some(15));
    // 1.3 times 30 W and 10 W while the model computed, for a third of 1.5 s.
    check(Activity { energy_mj: Some(54_499), ..IDLE }, None);
    let more = Activity { energy_mj: Some(54_501), ..IDLE };
    assert_eq!(judge(&of(&[gpu(0, more)]), &generation(500)), Witness::Unknown);
    // Neither can contradict.
    check(Activity { energy_mj: Some(900_000), power_before_mw: None, ..IDLE }, None);
}

#[test]
fn one_gpu_at_work_is_enough_however_short_the_answer() {
    let working = Activity { utilization_percent: Some(87), ..IDLE };
    let sample = of(&[gpu(0, IDLE), gpu(1, working), Gpu::default().silent("hangs")]);
    assert_eq!(judge(&sample, &generation(20)), Witness::Worked { percent: 87 });
    assert_eq!(judge(&of(&[Gpu::default()]), &generation(1_200)).percent(), None);
}
