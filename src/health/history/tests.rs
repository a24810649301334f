//! Conditions over time, in rows.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers of samples

use super::*;
use crate::gpu::sample::{FaultKind, GpuFault};
use crate::gpu::vendor::Vendor;

fn gpu() -> Gpu {
    Gpu { uuid: Some("GPU-1".into()), temperature_c: Some(40), ..Gpu::default() }
}

/// One GPU sampled every `interval` seconds.
struct Watch {
    track: Track,
    at: f64,
    interval: f64,
    fresh: bool,
}

impl Watch {
    fn every(interval: f64) -> Self {
        Self { track: Track::default(), at: 0.0, interval, fresh: true }
    }

    fn see(&mut self, gpu: &Gpu, times: u32) {
        for _ in 0..times {
            self.at += self.interval;
            self.track.see(gpu, self.fresh, Some(80), Duration::from_secs_f64(self.at));
        }
    }
}

#[test]
fn heat_is_judged_by_the_best_threshold_there_is() {
    #[track_caller]
    fn check(temperature: u32, margin: Option<i32>, fixed: &str, over: i32) {
        let gpu = Gpu {
            temperature_c: Some(temperature),
            temperature_margin_c: margin,
            ..serde_json::from_str(fixed).unwrap()
        };
        assert_eq!(heat(&gpu).unwrap().over, over, "{fixed}");
    }
    check(90, None, r#"{"temperature_max_c":90,"temperature_slowdown_c":80}"#, -1);
    check(91, None, r#"{"temperature_max_c":90}"#, 0);
    check(88, None, r#"{"temperature_slowdown_c":91}"#, 0);
    check(90, None, "{}", 0);
    check(87, Some(1), r#"{"margin_at_max_c":0,"temperature_slowdown_c":60}"#, -2);
    check(87, Some(-1), r#"{"margin_at_max_c":0}"#, 0);
    check(87, Some(i32::MIN), r#"{"margin_at_max_c":0}"#, i32::MAX);
    // A margin without its threshold says nothing: on older parts it is 0.
    check(40, Some(0), "{}", -50);
    assert_eq!(heat(&Gpu { temperature_c: None, ..gpu() }), None);
}

#[test]
fn hot_is_three_samples_and_cool_is_two_degrees_below() {
    let at = |c| Gpu { temperature_c: Some(c), ..gpu() };
    let mut watch = Watch::every(5.0);
    let mut row = |c: Option<u32>, expect: bool| {
        watch.see(&Gpu { temperature_c: c, ..at(0) }, 1);
        assert_eq!(watch.track.hot.held(), expect, "{c:?} at {}", watch.at);
    };
    for (c, expect) in [(90, false), (95, false), (89, false), (90, false), (90, false), (90, true)] {
        row(Some(c), expect);
    }
    for (c, expect) in [(89, true), (88, false), (90, false), (90, false), (90, true)] {
        row(Some(c), expect);
    }
    // Without a reading nothing is held.
    row(None, false);
}

#[test]
fn the_operators_limit_has_its_own_streak() {
    let mut watch = Watch::every(5.0);
    let at = |c| Gpu { temperature_c: Some(c), ..gpu() };
    watch.see(&at(81), 3);
    assert!(watch.track.above_max.held() && !watch.track.hot.held());
    watch.see(&at(79), 1);
    assert!(watch.track.above_max.held());
    watch.see(&at(78), 1);
    assert!(!watch.track.above_max.held());
}

#[test]
fn a_slowdown_is_three_fifths_of_five_minutes_and_over_after_five_clean_ones() {
    let slow = Gpu { throttle_bits: Some(HW_THERMAL), ..gpu() };
    let clean = Gpu { throttle_bits: Some(0x05), ..gpu() };
    for interval in [0.1, 1.0, 5.0, 30.0] {
        let per_minute = |minutes: f64| (minutes * 60.0 / interval).ceil() as u32;
        let mut watch = Watch::every(interval);
        watch.see(&clean, per_minute(5.0));
        watch.see(&slow, per_minute(2.8));
        assert!(!watch.track.thermal.held(), "every {interval} s");
        watch.see(&slow, per_minute(0.5) + 1);
        assert!(watch.track.thermal.held() && !watch.track.brake.held(), "every {interval} s");
        watch.see(&clean, per_minute(4.4));
        assert!(watch.track.thermal.held(), "every {interval} s");
        watch.see(&clean, per_minute(0.7) + 1);
        assert!(!watch.track.thermal.held(), "every {interval} s");
        assert!(watch.track.thermal.seen.len() <= 302, "{}", watch.track.thermal.seen.len());
    }
    // Half of the time is not enough, however long it lasts.
    let mut watch = Watch::every(5.0);
    for _ in 0..200 {
        watch.see(&slow, 1);
        watch.see(&clean, 1);
    }
    assert!(!watch.track.thermal.held());
}

#[test]
fn time_in_which_a_gpu_was_not_read_counts_for_nothing() {
    let slow = Gpu { throttle_bits: Some(HW_THERMAL), ..gpu() };
    let waiting = |json: &str| Gpu { nvlinks_active: Some(18), ..serde_json::from_str(json).unwrap() };
    let sample =
        |gpu: &Gpu| GpuState::Sample(GpuSample { gpus: vec![gpu.clone()], slow_fresh: true, ..GpuSample::default() });
    let fault = |gpu: &Gpu| {
        let fault = GpuFault { kind: FaultKind::Stuck, detail: "why".into() };
        GpuState::Fault { vendor: Vendor::Nvidia, fault, lasting_s: 1.0, gpus: vec![gpu.silent("why")] }
    };
    let starting =
        |gpu: &Gpu| GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 1.0, gpus: vec![gpu.silent("")] };
    let registering = waiting(r#"{"uuid":"GPU-1","fabric_state":"in_progress"}"#);
    let unread: [&dyn Fn(&Gpu) -> GpuState; 3] =
        [&fault, &starting, &|gpu: &Gpu| sample(&gpu.silent("has not answered"))];
    for state in unread {
        let mut history = History::default();
        let mut see = |gpu: &Gpu, unread: u64, begin: u64| {
            let mut see = |state: GpuState, second| {
                history.see_state(&state, &OllamaState::PENDING, None, Duration::from_secs(second));
            };
            see(sample(gpu), begin);
            (1..=unread).for_each(|second| see(state(gpu), begin + second));
            see(sample(gpu), begin + unread + 1);
            let track = &history.tracks["GPU-1"];
            assert!(!track.thermal.held() && !track.awaits_fabric.held(), "{track:?}");
        };
        see(&slow, 250, 0);
        see(&registering, 400, 1000);
    }
}

#[test]
fn the_drivers_counter_reports_what_happens_between_samples() {
    let counted =
        |ns: u64| Gpu { throttle_bits: Some(0), throttle_ns: [("hw_power_brake".to_owned(), ns)].into(), ..gpu() };
    let mut watch = Watch::every(5.0);
    let mut ns = 7_000_000_000;
    let mut grow = |watch: &mut Watch, share: f64, samples: u32| {
        for _ in 0..samples {
            ns += (share * 5e9) as u64;
            watch.see(&counted(ns), 1);
        }
    };
    grow(&mut watch, 0.45, 60);
    assert!(!watch.track.brake.held(), "27 s a minute");
    grow(&mut watch, 0.6, 12);
    assert!(watch.track.brake.held() && !watch.track.thermal.held(), "36 s a minute");
    grow(&mut watch, 0.01, 50);
    assert!(watch.track.brake.held());
    grow(&mut watch, 0.0, 12);
    assert!(!watch.track.brake.held());
    // A driver that was reloaded counts from 0.
    watch.see(&counted(0), 1);
    watch.see(&counted(4_000_000_000), 20);
    assert!(!watch.track.brake.held());
}

#[test]
fn a_narrow_link_counts_only_at_work() {
    let link = |width, state| {
        let mut gpu = Gpu { performance_state: state, ..gpu() };
        gpu.pcie_width_max = Some(16);
        gpu.pcie_width = Some(width);
        gpu
    };
    let mut watch = Watch::every(30.0);
    watch.see(&link(8, Some(8)), 10);
    watch.see(&link(8, None), 10);
    watch.see(&link(8, Some(0)), 2);
    assert!(!watch.track.narrow.held());
    // At rest in between: no evidence, neither way.
    watch.see(&link(8, Some(8)), 5);
    watch.see(&link(8, Some(2)), 1);
    assert!(watch.track.narrow.held());
    watch.see(&link(16, Some(8)), 1);
    assert!(!watch.track.narrow.held());
    watch.see(&Gpu { unified_memory: true, ..link(1, Some(0)) }, 5);
    assert!(!watch.track.narrow.held());
    // Without fresh slow readings the same value is not counted again.
    watch.see(&link(8, Some(0)), 1);
    watch.fresh = false;
    watch.see(&link(8, Some(0)), 5);
    assert!(!watch.track.narrow.held());
}

#[test]
fn replays_are_counted_by_the_minute() {
    let counted = |replays| Gpu { pcie_replays: Some(replays), ..gpu() };
    let mut watch = Watch::every(30.0);
    watch.see(&counted(1000), 1);
    assert_eq!(watch.track.replays.per_minute(), 0.0);
    watch.see(&counted(1020), 1);
    assert_eq!(watch.track.replays.per_minute(), 20.0);
    watch.see(&counted(1020), 1);
    assert_eq!(watch.track.replays.per_minute(), 20.0);
    watch.see(&counted(1020), 1);
    assert_eq!(watch.track.replays.per_minute(), 0.0);
    // The driver was reloaded.
    watch.see(&counted(5), 1);
    assert_eq!(watch.track.replays.per_minute(), 0.0);
    watch.see(&gpu(), 1);
    assert_eq!(watch.track.replays.per_minute(), 0.0);
    let mut rare = Watch::every(300.0);
    rare.see(&counted(0), 1);
    rare.see(&counted(100), 1);
    assert_eq!(rare.track.replays.per_minute(), 20.0);
}

#[test]
fn a_reading_that_never_worked_is_not_a_fault_unless_it_fails_on_every_gpu() {
    let odd = Failure { words: "odd".into(), of_device: false };
    let failing = |names: &[&str]| {
        let mut gpu = gpu();
        gpu.gaps.failed = names.iter().map(|n| ((*n).to_owned(), odd.clone())).collect();
        gpu
    };
    let mut watch = Watch::every(5.0);
    watch.see(&failing(&["fan_percent", "temperature_c"]), 2);
    assert!(!watch.track.is_fault("fan_percent", &odd) && watch.track.is_fault("temperature_c", &odd));
    assert!(watch.track.is_fault("energy_j", &odd), "it worked before");
    assert!(watch.track.is_fault("fan_percent", &Failure { of_device: true, ..odd.clone() }), "999 is a fault at once");
    watch.see(&gpu(), 1);
    watch.see(&failing(&["fan_percent"]), 1);
    assert!(watch.track.is_fault("fan_percent", &odd));
}

#[test]
fn a_gpu_is_dead_when_main_readings_fail_twice_in_a_row() {
    let with = |names: &[&str], of_device: bool| {
        let mut gpu = gpu();
        let failure = Failure { words: "x".into(), of_device };
        gpu.gaps.failed = names.iter().map(|n| ((*n).to_owned(), failure.clone())).collect();
        gpu
    };
    let row = |gpu: &Gpu, times: u32, expect: bool| {
        let mut watch = Watch::every(5.0);
        watch.see(gpu, times);
        assert_eq!(watch.track.dead.held(), expect, "{gpu:?}");
        watch
    };
    let dead = with(&["temperature_c", "utilization_percent"], true);
    row(&dead, 1, false);
    let mut watch = row(&dead, 2, true);
    watch.see(&gpu(), 1);
    assert!(!watch.track.dead.held());
    watch.see(&dead, 1);
    assert!(!watch.track.dead.held(), "not twice in a row");
    row(&with(&["temperature_c", "utilization_percent"], false), 5, false);
    row(&with(&["temperature_c", "fan_percent"], true), 5, false);
}

#[test]
fn a_gpu_that_is_late_twice_in_a_row_is_slow() {
    let taking = |ms: u64| Gpu { read_us: Some(ms * 1000), ..gpu() };
    let mut watch = Watch::every(5.0);
    watch.see(&taking(2500), 1);
    assert!(!watch.track.slow.held());
    watch.see(&taking(2500), 1);
    assert!(watch.track.slow.held());
    watch.see(&taking(20), 1);
    assert!(!watch.track.slow.held());
}

#[test]
fn a_slowdown_without_a_cause_counts_at_work() {
    let with = |bits: u64, percent: u32| Gpu { throttle_bits: Some(bits), utilization_percent: Some(percent), ..gpu() };
    let row = |gpu: &Gpu, held: bool| {
        let mut watch = Watch::every(5.0);
        watch.see(gpu, 60);
        assert_eq!(watch.track.hardware.held(), held, "{gpu:?}");
        watch
    };
    let mut watch = row(&with(0x08, 97), true);
    watch.see(&with(0, 97), 61);
    assert!(!watch.track.hardware.held());
    row(&with(0x08, 0), false);
    row(&with(0x09, 5), false);
    // These have reasons of their own.
    row(&with(0x48, 97), false);
    row(&with(0x88, 97), false);
    row(&with(0x04, 97), false);
}

#[test]
fn a_margin_needs_a_second_witness() {
    let with = |margin: i32, celsius: u32, bits: u64| Gpu {
        temperature_margin_c: Some(margin),
        temperature_c: Some(celsius),
        throttle_bits: Some(bits),
        ..gpu()
    };
    assert_eq!(credible_margin(&with(-10, 35, 1)), None);
    assert_eq!(credible_margin(&with(0, 79, 4)), None);
    assert_eq!(credible_margin(&with(0, 80, 0)), Some(0));
    assert_eq!(credible_margin(&with(-3, 35, 0x40)), Some(-3));
    assert_eq!(credible_margin(&with(-3, 35, 0x20)), Some(-3));
    assert_eq!(credible_margin(&with(30, 35, 1)), Some(30));
}

#[test]
fn more_vram_claimed_than_used_is_reported_after_three_samples() {
    use crate::ollama::models::{Loaded, Model};
    let ollama = |vram_bytes| {
        let loaded = Some(Loaded { size_bytes: Some(vram_bytes), vram_bytes, ..Loaded::default() });
        let models =
            vec![Model { name: "m".into(), size_bytes: None, pulled: true, loaded, digest: None, remote_host: None }];
        OllamaState { models, lists_known: true, ..OllamaState::PENDING }
    };
    let sample =
        |used: Option<u64>| GpuSample { gpus: vec![Gpu { vram_used_bytes: used, ..gpu() }], ..GpuSample::default() };
    let mut history = History::default();
    let mut row = |used, claimed, times, expect| {
        for _ in 0..times {
            history.see(&sample(used), &ollama(claimed), None, Duration::ZERO);
        }
        assert_eq!(history.vram_mismatch(), expect, "{used:?} of {claimed}");
    };
    row(Some(900 << 20), 2 << 30, 2, false);
    row(Some(900 << 20), 2 << 30, 1, true);
    row(Some(1100 << 20), 2 << 30, 1, false);
    row(Some(0), 1 << 30, 5, false);
    row(None, 2 << 30, 5, false);
    let shared = GpuSample {
        gpus: vec![Gpu { unified_memory: true, vram_used_bytes: Some(1), ..gpu() }],
        ..GpuSample::default()
    };
    assert_eq!(vram_mismatch(&shared, &ollama(2 << 30)), None);
}
