//! The rules in rows.

use super::Code::*;
use super::Verdict::*;
use super::*;
use crate::pure::gpu::{GpuError, GpuSample};
use crate::pure::models::Loaded;

fn up() -> OllamaState {
    OllamaState { reach: Reach::Up { version: "1".into() }, lists_known: true, ..OllamaState::PENDING }
}

fn holding(vram_bytes: u64) -> OllamaState {
    let loaded = Some(Loaded { size_bytes: Some(9), vram_bytes });
    OllamaState { models: vec![Model { name: "m".into(), size_bytes: None, pulled: true, loaded }], ..up() }
}

fn gpu() -> Gpu {
    Gpu { uuid: Some("GPU-1".into()), temperature_c: Some(40), ..Gpu::default() }
}

fn lost(kind: GpuErrorKind) -> Gpu {
    Gpu { error: Some(GpuError { kind, message: "gone".into() }), ..gpu() }
}

fn sample(gpus: Vec<Gpu>) -> GpuState {
    GpuState::Sample(GpuSample { gpus, ..GpuSample::default() })
}

fn fault(kind: FaultKind, lasting_s: f64) -> GpuState {
    GpuState::Fault { fault: GpuFault { kind, detail: "why".into() }, lasting_s, last_known: Vec::new() }
}

#[track_caller]
fn check(gpu: &GpuState, ollama: &OllamaState, limits: Limits, expect: &[(Code, Verdict)]) {
    let reasons = judge(gpu, ollama, limits, &[], 1.0);
    assert_eq!(reasons.iter().map(|r| (r.code, r.severity)).collect::<Vec<_>>(), expect);
    assert!(reasons.iter().all(|r| !r.message.is_empty() && !r.action.is_empty()));
}

const ANY: Limits = Limits { expected_gpus: None, pci_gpus: Some(1) };

fn expecting(gpus: u32) -> Limits {
    Limits { expected_gpus: Some(gpus), pci_gpus: Some(0) }
}

#[test]
fn gpus_are_judged() {
    check(&sample(vec![gpu()]), &up(), ANY, &[]);
    check(&GpuState::Pending, &up(), ANY, &[(NoSample, Unknown)]);
    check(&sample(vec![]), &up(), ANY, &[(NoGpu, Unhealthy)]);
    check(&sample(vec![]), &up(), expecting(0), &[]);
    check(&sample(vec![gpu()]), &up(), expecting(2), &[(GpuCountLow, Unhealthy)]);
    check(&sample(vec![lost(GpuErrorKind::Lost)]), &up(), ANY, &[(GpuLost, Unhealthy)]);
    check(&sample(vec![lost(GpuErrorKind::ResetRequired)]), &up(), ANY, &[(ResetRequired, Unhealthy)]);
    check(&sample(vec![lost(GpuErrorKind::Other)]), &up(), ANY, &[(GpuHandleError, Unhealthy)]);
    let failed = Gpu { failed: [("power_w".into(), "no".into())].into(), ..gpu() };
    check(&sample(vec![failed]), &up(), ANY, &[(FieldReadError, Degraded)]);
    let lacking = Gpu { unsupported: vec!["power_w".into()], ..gpu() };
    check(&sample(vec![lacking]), &up(), ANY, &[]);
    check(&sample(vec![Gpu::default()]), &up(), ANY, &[(GpuNoReadings, Unknown)]);
}

#[test]
fn faults_are_judged() {
    let row = |kind, lasting, limits, expect| check(&fault(kind, lasting), &up(), limits, &[expect]);
    let blind = Limits { pci_gpus: None, ..ANY };
    row(FaultKind::LibMissing, 0.0, ANY, (NvmlLibMissing, Unhealthy));
    row(FaultKind::LibMissing, 0.0, blind, (NvmlLibMissing, Unknown));
    row(FaultKind::LibMissing, 0.0, expecting(1), (NoGpu, Unhealthy));
    check(&fault(FaultKind::LibMissing, 0.0), &up(), expecting(0), &[]);
    let other_maker = Limits { pci_gpus: Some(0), ..ANY };
    check(&fault(FaultKind::LibMissing, 0.0), &holding(5), other_maker, &[(NvmlLibMissing, Unknown)]);
    row(FaultKind::DriverNotLoaded, 0.0, ANY, (DriverNotLoaded, Unhealthy));
    row(FaultKind::LibMismatch, 0.0, ANY, (DriverLibMismatch, Unhealthy));
    row(FaultKind::NoPermission, 0.0, ANY, (NvmlNoPermission, Unhealthy));
    row(FaultKind::InitUnknown, 0.0, ANY, (NvmlInitUnknown, Unhealthy));
    row(FaultKind::InitFailed, 0.0, ANY, (NvmlInitFailed, Unhealthy));
    row(FaultKind::HelperMissing, 99.0, ANY, (NvmlHelperMissing, Unknown));
    row(FaultKind::HelperFailed, 0.0, ANY, (NvmlHelperFailed, Degraded));
    row(FaultKind::HelperFailed, 30.0, ANY, (NvmlHelperFailed, Unhealthy));
    row(FaultKind::Stuck, 5.0, ANY, (DriverStuck, Degraded));
    row(FaultKind::Stuck, 30.0, ANY, (DriverStuck, Unhealthy));
}

#[test]
fn ollama_is_judged_with_the_gpu() {
    let good = sample(vec![gpu()]);
    let down = OllamaState { reach: Reach::Down("refused".into()), ..OllamaState::PENDING };
    let half = OllamaState { list_error: Some("500".into()), ..up() };
    check(&good, &OllamaState::PENDING, ANY, &[(OllamaNoAnswer, Unknown)]);
    check(&good, &down, ANY, &[(OllamaDown, Unhealthy)]);
    check(&good, &half, ANY, &[(OllamaListFailed, Unknown)]);
    check(&good, &holding(9), ANY, &[]);
    check(&good, &holding(0), ANY, &[(ModelOnCpu, Degraded)]);
    check(&sample(vec![]), &holding(0), expecting(0), &[]);
    check(&GpuState::Pending, &down, ANY, &[(OllamaDown, Unhealthy), (NoSample, Unknown)]);
}

#[test]
fn a_lasting_reason_keeps_its_beginning() {
    let one = |state: &GpuState, before: &[Reason], now| judge(state, &up(), ANY, before, now);
    let first = one(&sample(vec![]), &[], 10.0);
    let second = one(&sample(vec![]), &first, 20.0);
    assert_eq!(second[0].since, 10.0);
    let mended = one(&sample(vec![gpu()]), &second, 30.0);
    assert_eq!(one(&sample(vec![]), &mended, 40.0)[0].since, 40.0);
}

#[test]
fn an_old_sample_is_not_believed() {
    #[track_caller]
    fn check(age_s: u64, interval_ms: u64, expect: Option<Verdict>) {
        let reason = stale(Duration::from_secs(age_s), Duration::from_millis(interval_ms), 1000.0);
        assert_eq!(reason.map(|r| r.severity), expect);
    }
    check(15, 5000, None);
    check(16, 5000, Some(Degraded));
    check(3, 100, None);
    check(4, 100, Some(Degraded));
    check(301, 300_000, Some(Unhealthy));
}

#[test]
fn a_gpu_without_an_answer_is_never_ok() {
    assert_eq!(of_gpu(&gpu(), &[]), Ok);
    assert_eq!(of_gpu(&lost(GpuErrorKind::NoAnswer), &[]), Unknown);
}
