//! GPUs of AMD: alone, and beside one of NVIDIA.

use super::*;
use crate::gpu::amd_log::Said;
use crate::gpu::merge::merge;

fn amd() -> Gpu {
    Gpu {
        vendor: Vendor::Amd,
        uuid: Some("GPU-a".into()),
        pci_bus_id: Some("00000000:03:00.0".into()),
        vram_total_bytes: Some(16 << 30),
        vram_used_bytes: Some(1 << 30),
        ..gpu()
    }
}

/// A machine whose GPUs are AMD's, each of which says this.
fn case(gpus: Vec<Gpu>) -> Case {
    let amd_gpus = u32::try_from(gpus.len()).unwrap();
    let host = HostFacts { pci_gpus: Some(0), pci_gpus_for_nvidia: Some(0), amd_gpus, ..HostFacts::default() };
    Case { gpu: sample(gpus), host, ..Case::default() }
}

/// The reasons, of which none names what is NVIDIA's.
#[track_caller]
fn check(case: &Case, expect: &[(Code, Verdict)]) {
    case.check(expect);
    for place in [Place::Host, Place::Container, Place::Kubernetes] {
        let mut reasons = case.reasons_with(&HostFacts { place, ..case.host.clone() }, &[], NOW);
        for reason in reasons.iter().chain(&reasons.clone()) {
            let text = format!("{} {}", reason.message, reason.action).to_lowercase();
            for word in ["nvidia", "nvml", "persistence", "--gpus", "mig "] {
                assert!(!text.contains(word), "{word}: {reason:#?}");
            }
        }
        settle(&mut reasons, &case.gpu, place);
        assert!(!format!("{reasons:?}").contains("nvidia"), "{reasons:#?}");
    }
}

/// `amd` with this on top, seen often enough for every streak.
#[track_caller]
fn row(json: &str, expect: &[(Code, Verdict)]) {
    let mut value = serde_json::to_value(amd()).unwrap();
    super::merge(&mut value, serde_json::from_str(json).unwrap());
    check(&case(vec![serde_json::from_value(value).unwrap()]).seen(3), expect);
}

#[test]
fn readings_are_judged_as_those_of_other_gpus() {
    row("{}", &[]);
    row(r#"{"temperature_slowdown_c":100,"temperature_c":96}"#, &[]);
    row(r#"{"temperature_slowdown_c":100,"temperature_c":97}"#, &[(TempHigh, Degraded)]);
    row(
        r#"{"temperature_slowdown_c":100,"temperature_shutdown_c":105,"temperature_c":103}"#,
        &[(TempCritical, Unhealthy), (TempHigh, Degraded)],
    );
    row(r#"{"hotspot_temperature_slowdown_c":110,"hotspot_temperature_c":109}"#, &[]);
    row(r#"{"hotspot_temperature_slowdown_c":110,"hotspot_temperature_c":110}"#, &[(TempHigh, Degraded)]);
    row(
        r#"{"temperature_slowdown_c":100,"temperature_c":97,"hotspot_temperature_slowdown_c":110,
            "hotspot_temperature_c":112}"#,
        &[(TempHigh, Degraded)],
    );
    // One in the processor has no limit.
    row(r#"{"unified_memory":true,"temperature_c":98}"#, &[]);
    row(r#"{"memory_temperature_max_c":100,"memory_temperature_c":99}"#, &[]);
    row(r#"{"memory_temperature_max_c":100,"memory_temperature_c":100}"#, &[(MemTempHigh, Degraded)]);
    // A link of any speed, and without a performance state.
    row(r#"{"pcie_width":8,"pcie_width_max":16,"pcie_generation":1}"#, &[(PcieWidthLow, Degraded)]);
    row(r#"{"pcie_width":16,"pcie_width_max":16,"pcie_generation":1,"pcie_generation_max":4}"#, &[]);
    row(r#"{"ecc_uncorrected_volatile":2}"#, &[(EccUncorrected, Unhealthy)]);
    row(r#"{"retired_pages":{"single_bit":0,"double_bit":90,"pending":false}}"#, &[]);
    row(r#"{"retired_pages":{"single_bit":0,"double_bit":1,"pending":true}}"#, &[(RetiredPending, Degraded)]);
    row(r#"{"fan_percent":[0],"power_limit_mw":120000,"power_limit_default_mw":304000}"#, &[]);
    row(r#"{"vram_used_bytes":17179869184}"#, &[]);
    row(r#"{"read_us":6100000}"#, &[(GpuSlow, Degraded)]);
    row(r#"{"gaps":{"failed":{"temperature_c":{"words":"no"}}}}"#, &[(FieldReadError, Degraded)]);
    let dead = r#"{"temperature_c":{"words":"-5","of_device":true},"power_w":{"words":"-5","of_device":true}}"#;
    row(&format!(r#"{{"gaps":{{"failed":{dead}}}}}"#), &[(GpuReadFailed, Unhealthy), (FieldReadError, Degraded)]);
    row(r#"{"temperature_c":null,"vram_used_bytes":null}"#, &[(GpuNoReadings, Unknown)]);
    let limits = Limits { min_vram_bytes: Some(20 << 30), ..Limits::default() };
    check(&Case { limits, ..case(vec![amd()]) }, &[(VramBelowMin, Unhealthy)]);
    let apu = Gpu { unified_memory: true, vram_total_bytes: Some(24 << 30), ..amd() };
    check(&Case { limits, ..case(vec![apu.clone()]) }, &[]);
    // Its models are in the host's memory.
    let claims = |vram_used_bytes| {
        let gpu = Gpu { vram_used_bytes, ..apu.clone() };
        Case { ollama: holding(4 << 30), ..case(vec![gpu]) }.seen(3)
    };
    check(&claims(Some(4 << 30)), &[]);
    check(&claims(None), &[]);
    check(&claims(Some(1 << 20)), &[(ModelVramMismatch, Degraded)]);
}

#[test]
fn one_that_sleeps_is_well() {
    let asleep = Gpu { asleep: true, temperature_c: None, vram_used_bytes: None, ..amd() };
    let limits = Limits { expected_gpus: Some(2), ..Limits::default() };
    check(&Case { limits, ..case(vec![amd(), Gpu { uuid: Some("b".into()), ..asleep.clone() }]) }.seen(3), &[]);
    // What fails once it is awake did not work before.
    let mut history = case(vec![asleep]).seen(3);
    history.gpu = sample(vec![
        serde_json::from_value({
            let mut value = serde_json::to_value(amd()).unwrap();
            let failed = r#"{"slow_gaps":{"failed":{"fan_percent":{"words":"no"}}}}"#;
            super::merge(&mut value, serde_json::from_str(failed).unwrap());
            value
        })
        .unwrap(),
    ]);
    check(&history.seen(3), &[]);
}

#[test]
fn one_that_does_not_respond() {
    let error = |kind, read_us| {
        let error = Some(GpuError { kind, message: "gone".into() });
        case(vec![Gpu { error, read_us, ..amd() }])
    };
    check(&error(GpuErrorKind::Lost, None), &[(GpuLost, Unhealthy)]);
    check(&error(GpuErrorKind::Other, None), &[(GpuHandleError, Unhealthy)]);
    check(&error(GpuErrorKind::ResetRequired, None), &[(ResetRequired, Unhealthy)]);
    check(&error(GpuErrorKind::NotReady, None), &[(GpuHandleError, Unhealthy)]);
    for kind in [GpuErrorKind::Slow, GpuErrorKind::NoAnswer] {
        check(&error(kind, Some(29_000_000)), &[(GpuSlow, Unknown)]);
        check(&error(kind, Some(30_000_000)), &[(DriverStuck, Unhealthy)]);
    }
}

fn failing(kind: FaultKind, lasting_s: f64, gpus: Vec<Gpu>) -> GpuState {
    let fault = GpuFault { kind, detail: "the driver amdgpu did not answer".into() };
    GpuState::Fault { vendor: Vendor::Amd, fault, lasting_s, gpus }
}

#[test]
fn the_driver_as_a_whole() {
    let state = |gpu| Case { gpu, ..case(vec![]) };
    check(&state(failing(FaultKind::Stuck, 1.0, vec![])), &[(DriverStuck, Degraded)]);
    check(&state(failing(FaultKind::Stuck, 30.0, vec![amd().silent("x")])), &[(DriverStuck, Unhealthy)]);
    check(&state(failing(FaultKind::InitFailed, 30.0, vec![])), &[(NvmlInitFailed, Unhealthy)]);
    let starting = GpuState::Starting { vendor: Vendor::Amd, lasting_s: 2.0, gpus: vec![] };
    check(&state(starting), &[(DriverStarting, Unknown)]);
    let mut gone = case(vec![amd()]).seen(1);
    gone.gpu = sample(vec![]);
    gone.host.amd_gpus = 0;
    let reasons = gone.reasons(&[], NOW);
    assert!(reasons[0].message.starts_with("The driver amdgpu has no GPUs any more"), "{reasons:?}");
}

#[test]
fn missing_gpus_are_counted_over_both_drivers() {
    #[track_caller]
    fn check(gpus: Vec<Gpu>, change: impl Fn(&mut HostFacts), expected: Option<u32>, expect: &[(Code, Verdict)]) {
        let mut case = case(gpus);
        (case.host.pci_gpus, case.host.pci_gpus_for_nvidia) = (Some(1), Some(1));
        case.host.amd_gpus = 1;
        change(&mut case.host);
        case.limits.expected_gpus = expected;
        case.check(expect);
    }
    let low = &[(GpuCountLow, Unhealthy)];
    let both = || vec![gpu(), amd()];
    let same = |_: &mut HostFacts| {};
    check(both(), same, None, &[]);
    check(vec![gpu()], same, None, low);
    check(vec![amd()], same, None, low);
    check(both(), same, Some(3), low);
    check(vec![amd()], same, Some(1), &[]);
    let unbound = |host: &mut HostFacts| host.amd_unbound = vec![PciId::parse("0000:43:00.0").unwrap()];
    check(both(), unbound, None, low);
    check(both(), unbound, Some(2), &[]);
    let container = |host: &mut HostFacts| (host.in_container, host.device_nodes) = (true, Some(1));
    check(both(), container, None, &[]);
    check(vec![amd()], container, None, low);
    // Which of the host's cards this container should have, its bus does not say.
    check(both(), |host| (container(host), unbound(host)).0, None, &[]);
}

#[test]
fn a_card_that_no_driver_has_is_named() {
    let mut case = Case { gpu: fault(FaultKind::LibMissing, 0.0), ..case(vec![]) };
    case.host.amd_unbound = vec![PciId::parse("0000:03:00.0").unwrap()];
    case.check(&[(NoGpu, Unhealthy)]);
    let reason = &case.reasons(&[], NOW)[0];
    assert!(reason.message.ends_with("; no driver has the AMD GPU at 0000:03:00"), "{reason:?}");
    assert!(reason.action.starts_with("Load the driver (`modprobe amdgpu`)."), "{reason:?}");
}

#[test]
fn a_driver_that_fails_does_not_hide_the_other_ones_gpus() {
    let hot = Gpu { temperature_c: Some(99), temperature_slowdown_c: Some(100), ..amd() };
    let state = |first: GpuState, second: GpuState| {
        let mut case = case(vec![]);
        case.gpu = merge(first, second);
        for at in 0..3 {
            case.history.see_state(&case.gpu, &case.ollama, None, Duration::from_secs(at));
        }
        case
    };
    let broken = || fault(FaultKind::DriverNotLoaded, 40.0);
    let mut case = state(broken(), sample(vec![hot.clone()]));
    case.host = HostFacts { pci_gpus: Some(1), pci_gpus_for_nvidia: Some(1), amd_gpus: 1, ..HostFacts::default() };
    case.check(&[(DriverNotLoaded, Unhealthy), (TempHigh, Degraded)]);
    // As many GPUs as there should be.
    case.limits.expected_gpus = Some(1);
    case.check(&[(TempHigh, Degraded)]);
    case.limits.expected_gpus = Some(2);
    case.check(&[(DriverNotLoaded, Unhealthy), (TempHigh, Degraded)]);
    // The library is named although there is no card for it.
    let mut case = state(fault(FaultKind::LibMissing, 0.0), sample(vec![amd()]));
    case.host.amd_gpus = 1;
    case.check(&[(NvmlLibMissing, Unknown)]);
    // The other way round: its GPU is late, and the rest is judged.
    let hot = Gpu { temperature_c: Some(99), ..gpu() };
    let late = |us| failing(FaultKind::Stuck, 1.0, vec![Gpu { read_us: Some(us), ..amd().silent("x") }]);
    state(sample(vec![hot.clone()]), late(1)).check(&[(TempHigh, Degraded), (GpuSlow, Unknown)]);
    state(sample(vec![hot.clone()]), late(40_000_000)).check(&[(DriverStuck, Unhealthy), (TempHigh, Degraded)]);
    state(sample(vec![hot]), failing(FaultKind::Stuck, 1.0, vec![]))
        .check(&[(DriverStuck, Degraded), (TempHigh, Degraded)]);
}

/// A machine with one GPU, of which the log says this; seconds ago.
fn logged(place: Option<&str>, lines: &[(Said, f64)]) -> Case {
    let mut case = case(vec![amd()]).seen(3);
    for (said, age) in lines {
        case.xids.amd.record(place.and_then(PciId::parse), *said, UP - age);
    }
    case
}

#[test]
fn what_the_drivers_log_says() {
    for place in [Some("0000:03:00.0"), None] {
        let row = |lines: &[(Said, f64)], expect: &[(Code, Verdict)]| {
            let mut case = logged(place, lines);
            check(&case, expect);
            let about = case.reasons(&[], NOW);
            assert!(about.iter().all(|reason| reason.gpu.as_deref() == Some("GPU-a")), "{about:#?}");
            case.xids.settle();
            check(&case, &[]);
        };
        let reset = &[(GpuReset, Degraded)];
        for said in [Said::Hang, Said::FirmwareHung, Said::RingRecovered, Said::Recovered, Said::VramLost] {
            row(&[(said, 599.0)], reset);
            row(&[(said, 600.0)], &[]);
        }
        row(&[(Said::Hang, 9.0), (Said::ResetBegun, 8.0)], reset);
        row(&[(Said::Hang, 70.0), (Said::ResetBegun, 61.0)], &[(ResetRequired, Unhealthy), (GpuReset, Degraded)]);
        row(&[(Said::ResetBegun, 61.0), (Said::Recovered, 58.0)], reset);
        row(&[(Said::ResetFailed, 90_000.0)], &[(ResetRequired, Unhealthy)]);
        row(&[(Said::ResetFailed, 90_000.0), (Said::Recovered, 80_000.0)], &[]);
        row(&[(Said::OffTheBus, 90_000.0)], &[(GpuLost, Unhealthy)]);
        row(&[(Said::InitFailed, 90_000.0)], &[(GpuHandleError, Unhealthy)]);
        row(&[(Said::InitFailed, 90_000.0), (Said::Loaded, 80_000.0)], &[]);
        row(&[(Said::Uncorrectable, 90_000.0)], &[(EccUncorrected, Unhealthy)]);
        row(&[(Said::Unrepairable, 90_000.0)], &[(MemoryUnrepairable, Unhealthy)]);
        row(&[(Said::TooHot, 599.0)], &[(TempCritical, Unhealthy)]);
        row(&[(Said::TooHot, 600.0)], &[]);
    }
    let lines = [(Said::Hang, 9.0), (Said::Hang, 8.0), (Said::Recovered, 7.0), (Said::VramLost, 6.0)];
    let reason = &logged(None, &lines).reasons(&[], NOW)[0];
    assert_eq!(reason.message, "GPU 0: 2 hung jobs, 1 GPU reset, its memory was lost");
    assert!(reason.action.contains("Restart Ollama"), "{reason:?}");
}

#[test]
fn the_same_of_two_gpus_is_two_reasons() {
    let second = Gpu { index: 1, uuid: Some("GPU-b".into()), pci_bus_id: Some("00000000:04:00.0".into()), ..amd() };
    let mut case = case(vec![amd(), second]).seen(3);
    for place in ["0000:03:00.0", "0000:04:00.0"] {
        for said in [Said::OffTheBus, Said::TooHot] {
            case.xids.amd.record(PciId::parse(place), said, UP - 9.0);
        }
    }
    let of_both = [(GpuLost, Unhealthy), (TempCritical, Unhealthy)].repeat(2);
    check(&case, &of_both);
    // Each has its own time.
    let before = case.reasons(&[], NOW - 100.0);
    let first_alone: Vec<Reason> = before.into_iter().filter(|reason| reason.gpu.as_deref() == Some("GPU-a")).collect();
    for reason in case.reasons(&first_alone, NOW) {
        let since = if reason.gpu.as_deref() == Some("GPU-a") { NOW - 100.0 } else { NOW };
        assert!((reason.since - since).abs() < 0.1, "{reason:?}");
    }
}

#[test]
fn one_cause_is_one_reason() {
    let mut case = logged(None, &[(Said::Uncorrectable, 5.0), (Said::OffTheBus, 5.0), (Said::TooHot, 5.0)]);
    let lost = Some(GpuError { kind: GpuErrorKind::Lost, message: "gone".into() });
    case.gpu = sample(vec![Gpu { error: lost, ..amd() }]);
    check(&case, &[(GpuLost, Unhealthy), (EccUncorrected, Unhealthy), (TempCritical, Unhealthy)]);
    // The counter says more than the log.
    case.gpu = sample(vec![Gpu { ecc_uncorrected_volatile: Some(0), ..amd() }]);
    check(&case, &[(GpuLost, Unhealthy), (TempCritical, Unhealthy)]);
}

#[test]
fn whose_a_line_is() {
    let two = || {
        let other = Gpu { index: 1, uuid: Some("GPU-b".into()), pci_bus_id: Some("00000000:43:00.0".into()), ..amd() };
        case(vec![amd(), other]).seen(3)
    };
    let about = |mut case: Case, place: Option<&str>| {
        case.xids.amd.record(place.and_then(PciId::parse), Said::ResetFailed, UP - 5.0);
        let reasons = case.reasons(&[], NOW);
        reasons.first().map(|reason| (reason.gpu.clone(), reason.message.clone()))
    };
    assert_eq!(about(two(), Some("43:00")).unwrap().0.as_deref(), Some("GPU-b"));
    let (gpu, message) = about(two(), None).unwrap();
    assert_eq!((gpu, message.starts_with("An AMD GPU that the kernel's log does not name: ")), (None, true));
    // Another container's, or one that AMD_GPUS leaves out.
    assert_eq!(about(two(), Some("99:00")), None);
    assert_eq!(about(Case::default(), None), None);
    assert_eq!(about(Case::default(), Some("01:00")), None);
    // One that was there, or that did not start.
    let mut gone = two();
    gone.gpu = sample(vec![amd()]);
    let reasons = about(gone, Some("43:00")).unwrap();
    assert!(reasons.0.is_none(), "{reasons:?}");
    let mut unbound = two();
    unbound.host.amd_unbound = vec![PciId::parse("99:00").unwrap()];
    assert!(about(unbound, Some("99:00")).is_some());
}
