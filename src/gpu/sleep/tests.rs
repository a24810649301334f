use super::*;
use crate::gpu::mig_instance::MigInstance;
use crate::gpu::sample::{Failure, Gaps, GpuError, GpuErrorKind};
use crate::gpu::value::{Process, RemappedRows, RetiredPages, SpareRows};

fn idle() -> Gpu {
    Gpu {
        uuid: Some("GPU-a".into()),
        vram_total_bytes: Some(8 << 30),
        vram_used_bytes: Some(15 << 20),
        utilization_percent: Some(0),
        processes: Some(Vec::new()),
        temperature_c: Some(40),
        ..Gpu::default()
    }
}

fn sample(gpus: &[Gpu]) -> GpuSample {
    GpuSample { gpus: gpus.to_vec(), ..GpuSample::default() }
}

/// The GPUs and their driver, second by second.
struct Machine {
    sleep: Sleep,
    start: Instant,
    second: u64,
}

impl Machine {
    fn new() -> Self {
        Self { sleep: Sleep::new(1), start: Instant::now(), second: 0 }
    }

    /// The next second: whether NVML was used, and released.
    fn next(&mut self, asleep: bool, gpu: &Gpu) -> (bool, bool) {
        self.second += 1;
        let now = self.start + Duration::from_secs(self.second);
        if self.sleep.leaves_alone(asleep, false, now) {
            return (false, false);
        }
        (true, self.sleep.releases(&sample(std::slice::from_ref(gpu)), now))
    }

    /// Seconds until NVML was released.
    fn until_released(&mut self, gpu: &Gpu) -> u64 {
        let start = self.second;
        while !self.next(false, gpu).1 {
            assert!(self.second < start + 10_000, "never released");
        }
        self.second - start
    }

    /// Seconds in which awake GPUs are left alone.
    fn left_alone(&mut self) -> u64 {
        let start = self.second;
        while !self.next(false, &idle()).0 {
            assert!(self.second < start + 10_000, "never used again");
        }
        self.second - start - 1
    }
}

#[test]
fn gpus_that_sleep_are_left_alone_and_read_when_they_are_awake() {
    let mut machine = Machine::new();
    for _ in 0..100 {
        assert_eq!(machine.next(true, &idle()), (false, false));
    }
    // The first program that wakes them has work for them.
    assert_eq!(machine.next(false, &idle()), (true, false));
    let busy = Gpu { utilization_percent: Some(60), ..idle() };
    for _ in 0..100 {
        assert_eq!(machine.next(false, &busy), (true, false));
    }
    assert_eq!(machine.until_released(&idle()), 16);
    assert_eq!(machine.next(true, &idle()), (false, false));
    // They had work when they were last awake.
    assert_eq!(machine.next(false, &idle()), (true, false));
}

#[test]
fn gpus_that_another_program_keeps_awake_are_left_alone_less_and_less() {
    let mut machine = Machine::new();
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(machine.until_released(&idle()));
        assert_eq!(machine.left_alone(), 14);
    }
    assert_eq!(waits, [16, 60, 120, 240, 480, 960, 1920, 3600]);
    // They do fall asleep once, and all begins again.
    machine.until_released(&idle());
    machine.next(true, &idle());
    machine.left_alone();
    assert_eq!(machine.until_released(&idle()), 15);
}

#[test]
fn a_program_that_wakes_them_for_a_moment_is_not_followed_twice() {
    let mut machine = Machine::new();
    machine.next(true, &idle());
    assert_eq!(machine.until_released(&idle()), 16);
    for _ in 0..5 {
        // They fall asleep, and are awake for some seconds: nothing of ours keeps them so.
        machine.next(true, &idle());
        for _ in 0..8 {
            assert_eq!(machine.next(false, &idle()), (false, false));
        }
    }
    // One that stays is looked at. That was not a release that failed.
    assert_eq!(machine.left_alone(), 7);
    assert_eq!(machine.until_released(&idle()), 15);
    machine.next(true, &idle());
    // A probe of a model has work for them.
    assert!(machine.sleep.leaves_alone(true, true, machine.start));
    assert!(!machine.sleep.leaves_alone(false, true, machine.start));
}

#[test]
fn a_gpu_with_work_or_with_a_fault_is_not_left_alone() {
    assert!(is_idle(&idle()));
    assert!(is_idle(&Gpu { processes: None, ..idle() }));
    let failed = [("fan_percent".to_owned(), Failure::default())].into();
    let rows = |pending, failed| Some(RemappedRows { pending, failed, ..RemappedRows::default() });
    for gpu in [
        Gpu { utilization_percent: Some(1), ..idle() },
        Gpu { utilization_percent: None, ..idle() },
        Gpu { vram_used_bytes: Some(300 << 20), ..idle() },
        Gpu { vram_used_bytes: None, ..idle() },
        Gpu { processes: Some(vec![Process::default()]), ..idle() },
        Gpu { error: Some(GpuError { kind: GpuErrorKind::Slow, message: String::new() }), ..idle() },
        Gpu { gaps: Gaps { failed, ..Gaps::default() }, ..idle() },
        Gpu { recovery_action: Some(1), ..idle() },
        Gpu { remapped_rows: rows(true, false), ..idle() },
        Gpu { remapped_rows: rows(false, true), ..idle() },
        Gpu { retired_pages: Some(RetiredPages { pending: true, ..RetiredPages::default() }), ..idle() },
        Gpu { inforom_corrupt: Some(true), ..idle() },
        Gpu { ecc_uncorrected_volatile: Some(1), ..idle() },
        Gpu { spare_rows: Some(SpareRows { none: 1, ..SpareRows::default() }), ..idle() },
        Gpu { sram_threshold_exceeded: Some(true), ..idle() },
        Gpu { channel_repair_pending: Some(true), ..idle() },
        Gpu { tpc_repair_pending: Some(true), ..idle() },
        Gpu { unrepairable_memory: Some(true), ..idle() },
        Gpu { fabric_state: Some("in_progress".into()), nvlinks_active: Some(18), ..idle() },
        Gpu { fabric_status: Some("unknown error".into()), ..idle() },
        Gpu { fabric_health: Some("unhealthy: unhealthy route".into()), ..idle() },
        Gpu { mig: Some(Vec::<MigInstance>::new()), ..idle() },
    ] {
        assert!(!is_idle(&gpu), "{gpu:?}");
        let mut machine = Machine::new();
        assert!((0..1000).all(|_| machine.next(false, &gpu) == (true, false)), "{gpu:?}");
    }
    // One of several is enough, and a list without any is not one of idle GPUs.
    let mut sleep = Sleep::new(1);
    let busy = Gpu { utilization_percent: Some(9), ..idle() };
    let start = Instant::now();
    for second in 0..1000 {
        let now = start + Duration::from_secs(second);
        assert!(!sleep.releases(&sample(&[idle(), busy.clone()]), now) && !sleep.releases(&sample(&[]), now));
    }
}

#[test]
fn what_sleeps_keeps_its_identity_its_size_and_what_sleep_does_not_repair() {
    let bad = Gpu { recovery_action: Some(1), tpc_repair_pending: Some(true), pcie_width: Some(4), ..idle() };
    let kept = sleeping(&bad);
    assert_eq!((kept.recovery_action, kept.tpc_repair_pending, kept.pcie_width), (Some(1), Some(true), Some(4)));
    let gpu = sleeping(&Gpu { recovery_action: Some(0), ..idle() });
    assert_eq!(gpu.recovery_action, None);
    assert!(gpu.asleep && gpu.usable() && !gpu.says_nothing());
    assert_eq!((gpu.uuid.as_deref(), gpu.vram_total_bytes), (Some("GPU-a"), Some(8 << 30)));
    assert_eq!((gpu.vram_used_bytes, gpu.temperature_c, gpu.utilization_percent), (None, None, None));
    for (kind, sleeps) in [
        (GpuErrorKind::Lost, false),
        (GpuErrorKind::ResetRequired, false),
        (GpuErrorKind::NotGiven, false),
        (GpuErrorKind::Slow, true),
        (GpuErrorKind::NoAnswer, true),
    ] {
        let gpu = Gpu { error: Some(GpuError { kind, message: "x".into() }), ..idle().identity() };
        let kept = sleeping(&gpu);
        assert_eq!((kept.asleep, kept.usable()), (sleeps, sleeps), "{kind:?}");
        assert!(sleeps || kept == gpu, "{kind:?}");
    }
}
