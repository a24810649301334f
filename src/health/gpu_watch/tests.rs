//! The GPUs for a probe, without a driver.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::gpu::activity::Activity;
use crate::gpu::sample::{GpuError, GpuErrorKind, GpuFault};
use crate::gpu::vendor::Vendor;
use crate::health::sampler::watch_gpus;
use crate::health::verdict::Code;

fn gpu(index: u32) -> Gpu {
    Gpu { index, uuid: Some(format!("GPU-{index}")), utilization_percent: Some(3), ..Gpu::default() }
}

fn sample(gpus: &[Gpu]) -> GpuState {
    let driver_version = Some("570.86".into());
    GpuState::Sample(GpuSample { driver_version, gpus: gpus.to_vec(), ..GpuSample::default() })
}

fn fault(kind: FaultKind, gpus: Vec<Gpu>) -> GpuState {
    GpuState::Fault { vendor: Vendor::Nvidia, fault: GpuFault { kind, detail: String::new() }, lasting_s: 1.0, gpus }
}

fn store() -> Arc<SnapshotStore> {
    let store = SnapshotStore::new(crate::config::limits::Limits::default(), Vec::new(), Arc::default());
    store.publish_the_first_anyway();
    Arc::new(store)
}

#[test]
fn work_of_others_and_a_driver_that_does_not_respond_keep_a_probe_away() {
    let (store, at) = (store(), |percent| Gpu { utilization_percent: percent, ..gpu(0) });
    let (watch, _asked) = SampledGpus::new(&store);
    let busy = |gpu: GpuState| {
        store.put_gpu(gpu, 0);
        watch.busy()
    };
    assert_eq!(watch.busy().as_deref(), Some("the GPUs have not been read yet"));
    assert_eq!(busy(sample(&[at(Some(19))])), None);
    assert_eq!(busy(sample(&[at(Some(20))])).as_deref(), Some("GPU 0 is in use: 20 %"));
    assert_eq!(busy(sample(&[at(Some(87)), gpu(1)])).as_deref(), Some("GPU 0 is in use: 87 %"));
    // One sample later it may only rest between two requests.
    assert_eq!(busy(sample(&[at(Some(0))])).as_deref(), Some("GPU 0 is in use: 87 %"));
    assert_eq!(busy(sample(&[at(None)])), None);
    let lost = GpuError { kind: GpuErrorKind::Lost, message: String::new() };
    let slow = GpuError { kind: GpuErrorKind::Slow, message: String::new() };
    assert_eq!(busy(sample(&[Gpu { error: Some(lost), ..at(Some(99)) }])), None);
    assert_eq!(busy(sample(&[Gpu { error: Some(slow), ..gpu(2) }])).as_deref(), Some("GPU 2 does not respond"));
    assert_eq!(busy(sample(&[])), None);
    let starting = GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 1.0, gpus: Vec::new() };
    assert_eq!(busy(starting).as_deref(), Some("the driver is starting"));
    assert_eq!(busy(fault(FaultKind::Stuck, Vec::new())).as_deref(), Some("the driver does not respond"));
    assert_eq!(busy(fault(FaultKind::HelperFailed, Vec::new())).as_deref(), Some("the GPUs cannot be read"));
    assert_eq!(busy(fault(FaultKind::LibMissing, Vec::new())), None);
    let known = fault(FaultKind::LibMissing, vec![gpu(0).silent("x")]);
    assert_eq!(busy(known).as_deref(), Some("the GPUs cannot be read"));
    // Another driver's GPUs are read all the same.
    assert_eq!(busy(fault(FaultKind::LibMissing, vec![at(Some(19))])), None);
    let works = fault(FaultKind::LibMissing, vec![at(Some(20))]);
    assert_eq!(busy(works).as_deref(), Some("GPU 0 is in use: 20 %"));
}

#[test]
fn room_is_on_one_healthy_gpu_with_memory_of_its_own() {
    let store = store();
    let (watch, _asked) = SampledGpus::new(&store);
    let free = |index, bytes| Gpu { vram_free_bytes: Some(bytes), ..gpu(index) };
    let room = |gpus: &[Gpu]| {
        store.put_gpu(sample(gpus), 0);
        watch.has_room(1000)
    };
    assert!(!watch.has_room(0));
    assert!(room(&[free(0, 999), free(1, 1000)]));
    assert!(!room(&[free(0, 999), free(1, 999)]));
    assert!(!room(&[Gpu { vram_free_bytes: None, ..gpu(0) }]));
    assert!(!room(&[Gpu { unified_memory: true, ..free(0, 9000) }]));
    // In MIG mode the memory of the whole GPU says nothing, and any instance may be the one that Ollama uses.
    let instance = |used: Option<u64>| MigInstance {
        uuid: used.map(|used| format!("MIG-{used}")),
        vram_total_bytes: Some(2000),
        vram_used_bytes: used,
        ..MigInstance::default()
    };
    let mig = |all: &[Option<u64>]| Gpu {
        mig_mode: Some(true),
        mig: Some(all.iter().copied().map(instance).collect()),
        ..free(0, 9000)
    };
    assert!(!room(&[Gpu { mig: None, ..mig(&[]) }]) && !room(&[mig(&[])]));
    assert!(room(&[mig(&[Some(1000)])]) && room(&[mig(&[Some(1000), Some(0)])]));
    assert!(!room(&[mig(&[Some(1000), Some(1001)])]) && !room(&[mig(&[Some(1000), None])]));
    let lost = GpuError { kind: GpuErrorKind::Lost, message: String::new() };
    assert!(!room(&[Gpu { error: Some(lost), ..free(0, 9000) }]));
    // An unhealthy reason of its own: a remapped row that failed.
    let broken = crate::gpu::value::RemappedRows { failed: true, ..Default::default() };
    let broken = Gpu { remapped_rows: Some(broken), ..free(0, 9000) };
    assert!(!room(std::slice::from_ref(&broken)));
    assert!(store.latest().unwrap().reasons.iter().any(|r| r.gpu.as_deref() == Some("GPU-0")));
    assert!(room(&[broken, free(1, 9000)]));
}

#[test]
fn a_usual_speed_belongs_to_gpus_driver_and_ollama_in_any_order() {
    let up = OllamaState { reach: Reach::Up { version: "0.12.3".into() }, ..OllamaState::PENDING };
    let store = store();
    let (watch, _asked) = SampledGpus::new(&store);
    assert_eq!(watch.identity(), "");
    store.put_gpu(sample(&[gpu(0), gpu(1)]), 0);
    assert_eq!(watch.identity(), "", "Ollama's version is unknown");
    store.put_ollama(up.clone());
    let expect = "GPU-0,GPU-1 driver 570.86 ollama 0.12.3";
    let of = |gpus: GpuState| {
        store.put_gpu(gpus, 0);
        watch.identity()
    };
    assert_eq!(of(sample(&[gpu(0), gpu(1)])), expect);
    assert_eq!(of(sample(&[gpu(1), gpu(0)])), expect);
    // What is unknown for a moment stays as it was.
    store.put_ollama(OllamaState { reach: Reach::Down("x".to_owned().into()), ..up.clone() });
    assert_eq!(watch.identity(), expect);
    assert_eq!(of(fault(FaultKind::Stuck, vec![gpu(0).silent("x"), gpu(1).silent("x")])), expect);
    assert_eq!(of(GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 1.0, gpus: Vec::new() }), expect);
    let failed = |kind| GpuError { kind, message: String::new() };
    let second = |kind| Gpu { error: Some(failed(kind)), ..gpu(1) };
    assert_eq!(of(sample(&[gpu(0), second(GpuErrorKind::Slow)])), expect);
    let GpuState::Sample(silent) = sample(&[gpu(0), gpu(1)]) else { unreachable!() };
    assert_eq!(of(GpuState::Sample(GpuSample { driver_version: None, ..silent })), expect);
    // Another MIG instance. A list that fails for a moment does not change it.
    let mig = |uuid: &str| {
        let mig = Some(vec![MigInstance { uuid: Some(uuid.into()), ..MigInstance::default() }]);
        Gpu { mig_mode: Some(true), mig, ..gpu(1) }
    };
    let sliced = "GPU-0,GPU-1,MIG-1 driver 570.86 ollama 0.12.3";
    assert_eq!(of(sample(&[gpu(0), mig("MIG-1")])), sliced);
    let mut failing = Gpu { mig: None, ..mig("") };
    failing.slow_gaps.failed.insert("mig".into(), crate::gpu::sample::Failure::default());
    assert_eq!(of(sample(&[gpu(0), failing])), sliced);
    assert_eq!(of(sample(&[gpu(0), second(GpuErrorKind::Slow)])), sliced);
    assert_eq!(of(sample(&[gpu(0), mig("MIG-2")])), sliced.replace("MIG-1", "MIG-2"));
    // A GPU less, and another Ollama.
    assert_eq!(of(sample(&[gpu(0), second(GpuErrorKind::Lost)])), "GPU-0 driver 570.86 ollama 0.12.3");
    store.put_ollama(OllamaState { reach: Reach::Up { version: "0.13".into() }, ..up });
    assert_eq!(watch.identity(), "GPU-0 driver 570.86 ollama 0.13");
}

const HOUR: Duration = Duration::from_secs(3600);

/// A sampler whose driver answers as `sample` does, and what it was asked.
fn sampler(
    store: &Arc<SnapshotStore>,
    interval: Duration,
    mut sample: impl FnMut(Option<ActivityAsk>) -> GpuState + Send + 'static,
) -> (SampledGpus, Receiver<Option<ActivityAsk>>) {
    let ((watch, asks), (seen, sent)) = (SampledGpus::new(store), mpsc::channel());
    let store = Arc::clone(store);
    let take = move |activity| {
        let state = (sample(activity), 0);
        seen.send(activity).map(|()| state).expect("the test runs")
    };
    // It lives as long as the tests.
    thread::spawn(move || watch_gpus(&store, take, interval, &asks));
    (watch, sent)
}

fn at_work(activity: Option<ActivityAsk>) -> GpuState {
    let used = Activity { utilization_percent: Some(87), ..Activity::default() };
    sample(&[Gpu { activity: (activity == Some(ActivityAsk::SinceMark)).then_some(used), ..gpu(0) }])
}

#[test]
fn an_ask_is_answered_between_two_samples() {
    let (watch, sent) = sampler(&store(), HOUR, at_work);
    assert_eq!(sent.recv(), Ok(None));
    watch.mark();
    let gpus = watch.since_mark().expect("a sample").gpus;
    assert_eq!(gpus[0].activity.unwrap().utilization_percent, Some(87));
    assert_eq!(sent.iter().take(2).collect::<Vec<_>>(), [Some(ActivityAsk::Mark), Some(ActivityAsk::SinceMark)]);
}

#[test]
fn a_flood_of_asks_delays_no_ordinary_sample() {
    let (watch, sent) = sampler(&store(), Duration::from_millis(500), at_work);
    assert_eq!(sent.recv(), Ok(None));
    // Each takes far less time than the interval.
    let end = Instant::now() + Duration::from_secs(30);
    while sent.try_iter().all(|activity| activity.is_some()) {
        watch.mark();
        assert!(Instant::now() < end);
    }
}

#[test]
fn a_mark_that_came_too_late_gives_no_activity() {
    let ((release, wait), (begin, begun)) = (mpsc::channel(), mpsc::channel());
    let (mut watch, sent) = sampler(&store(), HOUR, move |activity| {
        if activity == Some(ActivityAsk::Mark) {
            begin.send(()).expect("the test runs");
            let _ = wait.recv();
        }
        at_work(activity)
    });
    assert_eq!(sent.recv(), Ok(None));
    watch.deadline = Duration::from_millis(20);
    // On a busy machine an ask may be over before it is taken.
    while begun.try_recv().is_err() {
        watch.mark();
    }
    // This one waits behind the first, and its probe does not.
    assert_eq!(watch.since_mark(), None);
    watch.deadline = DEADLINE;
    release.send(()).unwrap();
    assert_eq!(sent.recv(), Ok(Some(ActivityAsk::Mark)));
    let gpus = watch.since_mark().expect("a sample").gpus;
    assert_eq!(gpus[0].activity, None);
    // An ask that has expired is not put to the driver.
    assert_eq!(sent.recv(), Ok(Some(ActivityAsk::SinceMark)));
    assert!(sent.try_recv().is_err());
}

#[test]
fn a_driver_at_fault_answers_no_ask() {
    let (watch, sent) = sampler(&store(), HOUR, |_| fault(FaultKind::Stuck, Vec::new()));
    assert_eq!(sent.recv(), Ok(None));
    watch.mark();
    assert_eq!(watch.since_mark(), None);
}

#[test]
fn extra_samples_do_not_count_in_a_row() {
    let store = store();
    let hot = sample(&[Gpu { temperature_c: Some(99), temperature_max_c: Some(90), ..gpu(0) }]);
    let raised = || store.latest().unwrap().reasons.iter().any(|reason| reason.code == Code::TempHigh);
    store.put_gpu(hot.clone(), 0);
    store.put_gpu(hot.clone(), 0);
    for _ in 0..9 {
        store.put_extra_gpu(hot.clone(), 0);
    }
    assert!(!raised());
    store.put_gpu(hot.clone(), 0);
    assert!(raised());
    // Nor does it hide what the last ordinary samples showed.
    let busy = sample(&[Gpu { utilization_percent: Some(70), ..gpu(0) }]);
    store.put_gpu(busy, 0);
    (0..3).for_each(|_| store.put_extra_gpu(sample(&[gpu(0)]), 0));
    assert_eq!(store.busiest_gpu(), Some((0, 70)));
}
