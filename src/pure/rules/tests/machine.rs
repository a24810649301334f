//! Rows about the machine: its driver, how many GPUs it has, Ollama and the uptime.

use super::*;

#[test]
fn the_number_of_gpus() {
    let bad: &[_] = &[(GpuCountLow, Unhealthy)];
    let around = |pci: u32, nodes: u32, in_container| Surroundings {
        pci_gpus: Some(pci),
        pci_gpus_for_nvidia: Some(pci),
        device_nodes: Some(nodes),
        in_container,
        access: Access::Open,
    };
    let row = |around, expected, expect: &[_]| {
        let limits = Limits { expected_gpus: expected, ..Limits::default() };
        Case { around, limits, ..Case::default() }.seen(1).check(expect);
    };
    row(around(1, 1, false), None, &[]);
    row(around(2, 1, false), None, bad);
    // A container sees the bus of the host, but only what it was given counts.
    row(around(8, 1, true), None, &[]);
    row(around(8, 2, true), None, bad);
    // The operator knows better.
    row(around(2, 2, false), Some(1), &[]);
    row(around(1, 1, false), Some(2), bad);
    let mut fewer =
        Case { gpu: sample(vec![gpu(), Gpu { uuid: Some("GPU-2".into()), ..gpu() }]), ..Case::default() }.seen(1);
    fewer.gpu = sample(vec![gpu()]);
    fewer.check(bad);
    fewer.history.forget_missing(1);
    fewer.check(&[]);
    let none = Limits { expected_gpus: Some(0), ..Limits::default() };
    Case { gpu: sample(vec![]), limits: none, ..Case::default() }.check(&[]);
}

#[test]
fn a_device_that_cannot_be_opened_any_more() {
    let row = |access, expect: &[_]| {
        let around = Surroundings { access, ..Case::default().around };
        Case { around, ..Case::default() }.check(expect);
    };
    row(Access::Untested, &[]);
    row(Access::Open, &[]);
    row(Access::Revoked, &[(GpuAccessLost, Unhealthy)]);
    row(Access::Refused("no such device".into()), &[(GpuAccessLost, Unhealthy)]);
}

#[test]
fn faults_of_driver_and_library() {
    let here = Case::default().around;
    let row = |kind, lasting, around: &Surroundings, expected, expect: &[_]| {
        let limits = Limits { expected_gpus: expected, ..Limits::default() };
        Case { gpu: fault(kind, lasting), around: around.clone(), limits, ..Case::default() }.check(expect);
    };
    let blind = Surroundings { pci_gpus: None, ..here.clone() };
    let empty = Surroundings { pci_gpus: Some(0), ..here.clone() };
    row(FaultKind::LibMissing, 0.0, &here, None, &[(NvmlLibMissing, Unhealthy)]);
    row(FaultKind::LibMissing, 0.0, &blind, None, &[(NvmlLibMissing, Unknown)]);
    row(FaultKind::LibMissing, 0.0, &empty, None, &[(NoGpu, Unhealthy)]);
    row(FaultKind::LibMissing, 0.0, &empty, Some(0), &[]);
    let other_maker =
        Case { gpu: fault(FaultKind::LibMissing, 0.0), ollama: holding(5), around: empty, ..Case::default() };
    other_maker.check(&[(NvmlLibMissing, Unknown)]);
    row(FaultKind::DriverNotLoaded, 0.0, &here, None, &[(DriverNotLoaded, Unhealthy)]);
    row(FaultKind::LibMismatch, 0.0, &here, None, &[(DriverLibMismatch, Unhealthy)]);
    row(FaultKind::NoPermission, 0.0, &here, None, &[(NvmlNoPermission, Unhealthy)]);
    row(FaultKind::InitUnknown, 0.0, &here, None, &[(NvmlInitUnknown, Unhealthy)]);
    row(FaultKind::InitFailed, 0.0, &here, None, &[(NvmlInitFailed, Unhealthy)]);
    row(FaultKind::HelperMissing, 99.0, &here, None, &[(NvmlHelperMissing, Unknown)]);
    row(FaultKind::HelperFailed, 0.0, &here, None, &[(NvmlHelperFailed, Degraded)]);
    row(FaultKind::HelperFailed, 30.0, &here, None, &[(NvmlHelperFailed, Unhealthy)]);
    row(FaultKind::Stuck, 5.0, &here, None, &[(DriverStuck, Degraded)]);
    row(FaultKind::Stuck, 30.0, &here, None, &[(DriverStuck, Unhealthy)]);
}

#[test]
fn ollama_is_judged_with_the_gpu() {
    let row = |ollama: OllamaState, expect: &[_]| Case { ollama, ..Case::default() }.seen(3).check(expect);
    let down = OllamaState { reach: Reach::Down("refused".into()), ..OllamaState::PENDING };
    row(OllamaState::PENDING, &[(OllamaNoAnswer, Unknown)]);
    row(down.clone(), &[(OllamaDown, Unhealthy)]);
    row(OllamaState { list_error: Some("500".into()), ..up() }, &[(OllamaListFailed, Unknown)]);
    row(holding(9), &[]);
    row(holding(0), &[(ModelOnCpu, Degraded)]);
    Case { gpu: GpuState::Pending, ollama: down, ..Case::default() }
        .check(&[(OllamaDown, Unhealthy), (NoSample, Unknown)]);
    // The models claim more than the GPUs have in use.
    let used = |bytes: u64| {
        let gpu = sample(vec![Gpu { vram_used_bytes: Some(bytes), ..gpu() }]);
        Case { gpu, ollama: holding(4 << 30), ..Case::default() }.seen(3)
    };
    used(1 << 30).check(&[(ModelVramMismatch, Degraded)]);
    used(3 << 30).check(&[]);
}

#[test]
fn too_little_uptime() {
    let row = |uptime, expect: &[_]| Case { uptime, ..Case::default() }.check(expect);
    let of = |up, span| Window { span, up, down: span - up };
    let good = of(3600, 3600);
    row([good; 3], &[]);
    row([of(3563, 3600), good, good], &[(UptimeLowShort, Degraded)]);
    row([good, of(3563, 3600), good], &[(UptimeLowMedium, Degraded)]);
    row([good, good, of(3563, 3600)], &[(UptimeLowLong, Degraded)]);
    row([of(3564, 3600), good, good], &[]);
    // Time when nothing ran counts as well, but not in the first minutes.
    row([Window { span: 3600, up: 3000, down: 0 }, good, good], &[(UptimeLowShort, Degraded)]);
    row([of(0, 599), of(0, 599), of(0, 599)], &[]);
    row(Windows::default(), &[]);
}

#[test]
fn a_lasting_reason_keeps_its_beginning() {
    let empty = Case { gpu: sample(vec![]), ..Case::default() };
    let first = empty.reasons(&[], 10.0);
    let second = empty.reasons(&first, 20.0);
    assert_eq!(second[0].since, 10.0);
    let mended = Case::default().reasons(&second, 30.0);
    assert_eq!(empty.reasons(&mended, 40.0)[0].since, 40.0);
}

#[test]
fn wanted_models_are_missed_once_their_list_is_known() {
    let row = |ollama: OllamaState, expect: &[_]| {
        let around = Surroundings { pci_gpus: Some(1), ..Surroundings::default() };
        let wanted = vec!["M:latest".into()];
        Case { gpu: sample(vec![gpu()]), ollama, around, wanted, ..Case::default() }.seen(1).check(expect);
    };
    let missed = &[(ModelNotLoaded, Degraded)];
    row(up(), missed);
    row(holding(5), &[]);
    let pulled = Model { name: "m".into(), size_bytes: None, pulled: true, loaded: None, digest: None };
    row(OllamaState { models: vec![pulled], ..up() }, missed);
    let unlisted = OllamaState { lists_known: false, list_error: Some("500".into()), ..up() };
    row(unlisted, &[(OllamaListFailed, Unknown)]);
    row(OllamaState { reach: Reach::Down("x".into()), ..up() }, &[(OllamaDown, Unhealthy)]);
}
