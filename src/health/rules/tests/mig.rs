//! Rows about GPUs in MIG mode.

use super::*;
use crate::gpu::mig_instance::MigInstance;

const GIB: u64 = 1 << 30;

fn instance(gpu_instance: u32, total: u64, used: u64) -> MigInstance {
    MigInstance {
        uuid: Some(format!("MIG-{gpu_instance}")),
        gpu_instance: Some(gpu_instance),
        vram_total_bytes: Some(total * GIB),
        vram_used_bytes: Some(used * GIB),
        ..MigInstance::default()
    }
}

/// Without what a GPU in MIG mode does not report, as a container sees it.
fn mig(instances: Vec<MigInstance>) -> Gpu {
    Gpu { mig_mode: Some(true), mig: Some(instances), ..gpu() }
}

fn row(gpus: Vec<Gpu>, ollama: OllamaState, min_vram: Option<u64>, expect: &[(Code, Verdict)]) {
    let limits = Limits { min_vram_bytes: min_vram.map(|gib| gib * GIB), ..Case::default().limits };
    Case { gpu: sample(gpus), ollama, limits, ..Case::default() }.seen(3).check(expect);
}

#[test]
fn a_gpu_without_an_instance_is_known_to_be_of_no_use_where_all_are_seen() {
    row(vec![mig(vec![])], up(), None, &[(MigNoInstance, Unhealthy)]);
    row(vec![mig(vec![instance(1, 10, 0)])], up(), None, &[]);
    // Its instances are unknown.
    row(vec![Gpu { mig: None, ..mig(vec![]) }], up(), Some(80), &[]);
    let case = Case { gpu: sample(vec![mig(vec![])]), ..Case::default() }.seen(1);
    for place in [Place::Container, Place::Kubernetes] {
        let host = HostFacts { place, ..case.host.clone() };
        let reasons = case.reasons_with(&host, &[], NOW);
        let [reason] = &reasons[..] else { panic!("{reasons:#?}") };
        assert_eq!((reason.code, reason.severity), (MigNoInstance, Degraded));
        assert!(reason.action.contains("give") || reason.action.contains("Request") || reason.action.contains("Give"));
    }
}

#[test]
fn an_instance_is_what_a_health_can_be_known_of() {
    let blind = |instances| Gpu { temperature_c: None, ..mig(instances) };
    row(vec![blind(vec![instance(1, 10, 0)])], up(), None, &[]);
    let unread = MigInstance { vram_used_bytes: None, ..instance(1, 10, 0) };
    row(vec![blind(vec![unread])], up(), None, &[(GpuNoReadings, Unknown)]);
}

#[test]
fn the_largest_instance_is_what_a_model_can_have() {
    let of = |totals: &[u64]| mig((1..).zip(totals).map(|(id, total)| instance(id, *total, 0)).collect());
    let whole = |gpu: Gpu| Gpu { vram_total_bytes: Some(80 * GIB), ..gpu };
    row(vec![whole(of(&[10, 40, 20]))], up(), Some(40), &[]);
    row(vec![whole(of(&[10, 40, 20]))], up(), Some(41), &[(VramBelowMin, Unhealthy)]);
    // It has a reason of its own.
    row(vec![whole(of(&[]))], up(), Some(41), &[(MigNoInstance, Unhealthy)]);
}

#[test]
fn what_ollama_reports_is_compared_with_the_instances() {
    let whole = |used: u64, instances| Gpu { vram_used_bytes: Some(used * GIB), ..mig(instances) };
    let bad: &[_] = &[(ModelVramMismatch, Degraded)];
    row(vec![mig(vec![instance(1, 40, 9)])], holding(10 * GIB), None, &[]);
    row(vec![mig(vec![instance(1, 40, 1)])], holding(10 * GIB), None, bad);
    row(vec![whole(60, vec![instance(1, 40, 1)])], holding(10 * GIB), None, bad);
    row(vec![whole(60, vec![instance(1, 40, 1), instance(2, 40, 9)])], holding(10 * GIB), None, &[]);
    // Unknown memory could hold it all.
    let unread = MigInstance { vram_used_bytes: None, ..instance(1, 40, 0) };
    row(vec![mig(vec![unread])], holding(10 * GIB), None, &[]);
    // With the names of processes others no longer hide it.
    let process = |name: &str, id: u32| crate::gpu::value::Process {
        pid: id,
        name: Some(name.into()),
        vram_bytes: Some(GIB),
        mig_uuid: Some(format!("MIG-{id}")),
        ..Default::default()
    };
    let crowded = |name| Gpu {
        processes: Some(vec![process(name, 1), process("python3", 2)]),
        ..mig(vec![instance(1, 40, 1), instance(2, 40, 39)])
    };
    row(vec![crowded("java")], holding(10 * GIB), None, &[]);
    row(vec![crowded("ollama")], holding(10 * GIB), None, bad);
}

#[test]
fn a_model_on_the_cpu_has_a_gpu_only_where_there_is_an_instance() {
    row(vec![mig(vec![])], holding(0), None, &[(MigNoInstance, Unhealthy)]);
    row(vec![mig(vec![instance(1, 10, 0)])], holding(0), None, &[(ModelOnCpu, Degraded)]);
    row(
        vec![mig(vec![]), Gpu { uuid: None, ..gpu() }],
        holding(0),
        None,
        &[(MigNoInstance, Unhealthy), (ModelOnCpu, Degraded)],
    );
}
