//! Rows about the machine: its driver, how many GPUs it has, Ollama and the uptime.

use super::*;
use crate::gpu::host_facts::Access;
use crate::gpu::legacy::Legacy;
use crate::gpu::legacy::LegacyLog;
use crate::ollama::keeper::row::Stuck;

#[test]
fn the_number_of_gpus() {
    let bad: &[_] = &[(GpuCountLow, Unhealthy)];
    let host = |pci: u32, nodes: u32, in_container| HostFacts {
        pci_gpus: Some(pci),
        pci_gpus_for_nvidia: Some(pci),
        device_nodes: Some(nodes),
        in_container,
        access: Access::Open,
        ..HostFacts::default()
    };
    let row = |host, expected, expect: &[_]| {
        let limits = Limits { expected_gpus: expected, ..Limits::default() };
        Case { host, limits, ..Case::default() }.seen(1).check(expect);
    };
    row(host(1, 1, false), None, &[]);
    row(host(2, 1, false), None, bad);
    // A container sees the bus of the host, but only what it was given counts.
    row(host(8, 1, true), None, &[]);
    row(host(8, 2, true), None, bad);
    // The operator knows better.
    row(host(2, 2, false), Some(1), &[]);
    row(host(1, 1, false), Some(2), bad);
    let mut fewer =
        Case { gpu: sample(vec![gpu(), Gpu { uuid: Some("GPU-2".into()), ..gpu() }]), ..Case::default() }.seen(1);
    fewer.gpu = sample(vec![gpu()]);
    fewer.check(bad);
    fewer.history.forget_missing(1);
    fewer.check(&[]);
    let none = Limits { expected_gpus: Some(0), ..Limits::default() };
    Case { gpu: sample(vec![]), limits: none, ..Case::default() }.check(&[]);
}

fn refused(index: u32, kind: GpuErrorKind) -> Gpu {
    Gpu { index, error: Some(GpuError { kind, message: "refused".into() }), ..Gpu::default() }
}

#[test]
fn gpus_that_this_container_was_not_given() {
    let not_given = |index| refused(index, GpuErrorKind::NotGiven);
    let bus = |pci: u32, nodes: u32, in_container| HostFacts {
        pci_gpus: Some(pci),
        pci_gpus_for_nvidia: Some(pci),
        device_nodes: Some(nodes),
        in_container,
        ..HostFacts::default()
    };
    let row = |gpus: Vec<Gpu>, host, expected, expect: &[_]| {
        let limits = Limits { expected_gpus: expected, ..Limits::default() };
        Case { gpu: sample(gpus), host, limits, ..Case::default() }.seen(1).check(expect);
    };
    let one = || vec![gpu(), not_given(1)];
    let refused_one = (NvmlNoPermission, Degraded);
    let low = (GpuCountLow, Unhealthy);
    row(one(), bus(2, 1, true), None, &[refused_one]);
    row(one(), HostFacts::default(), None, &[refused_one]);
    // Nothing is missing on the bus.
    row(one(), bus(2, 2, false), None, &[refused_one]);
    row(one(), bus(3, 3, false), None, &[low, refused_one]);
    // It has the device, and may not use it.
    row(one(), bus(2, 2, true), None, &[low, refused_one]);
    // The operator says how many there are to be.
    row(one(), bus(2, 1, true), Some(1), &[]);
    row(one(), bus(2, 1, true), Some(2), &[low, refused_one]);
    // None can be used.
    let none = || vec![not_given(0), not_given(1)];
    row(none(), bus(2, 0, true), None, &[(NvmlNoPermission, Unhealthy)]);
    row(none(), bus(2, 0, true), Some(2), &[(NvmlNoPermission, Unhealthy), low]);
    row(none(), bus(2, 0, true), Some(0), &[]);
    // One that could be used before.
    let mut taken =
        Case { gpu: sample(vec![gpu(), Gpu { uuid: Some("b".into()), ..gpu() }]), ..Case::default() }.seen(1);
    taken.gpu = sample(one());
    taken.check(&[low, refused_one]);
    // The others are faults of the GPU.
    for kind in [GpuErrorKind::NoPower, GpuErrorKind::NotReady, GpuErrorKind::Stale, GpuErrorKind::Other] {
        row(vec![gpu(), refused(1, kind)], bus(2, 2, true), None, &[(GpuHandleError, Unhealthy)]);
    }
}

#[test]
fn cards_that_the_driver_ignores_are_not_missing() {
    let mut log = LegacyLog::default();
    log.read("NVRM: The NVIDIA GTX 680 GPU installed in this system is\\x0aNVRM:  supported through the NVIDIA 470.xx Legacy drivers.", 1);
    let legacy = log.found().clone();
    let host = |unbound: &[&str], legacy: &Legacy| HostFacts {
        pci_gpus: Some(2),
        pci_gpus_for_nvidia: Some(2),
        unbound: unbound.iter().map(|at| PciId::parse(at).unwrap()).collect(),
        legacy: legacy.clone(),
        ..HostFacts::default()
    };
    let row = |host, expect: &[_]| Case { host, ..Case::default() }.seen(1).check(expect);
    row(host(&["0000:02:00.0"], &legacy), &[]);
    row(host(&["0000:02:00.0"], &Legacy::default()), &[(GpuCountLow, Unhealthy)]);
    // By now it has a driver, and is missing in the list.
    row(host(&[], &legacy), &[(GpuCountLow, Unhealthy)]);
    // Alone in the machine it is the cause.
    for (gpu, code) in [(fault(FaultKind::DriverNotLoaded, 0.0), DriverNotLoaded), (sample(vec![]), NoGpu)] {
        let case = Case { gpu, host: host(&["0000:02:00.0"], &legacy), ..Case::default() };
        case.check(&[(code, Unhealthy)]);
        let reason = &case.reasons(&[], NOW)[0];
        assert!(reason.message.contains("470.xx") && reason.action.contains("Install the driver"), "{reason:?}");
    }
    let lent = HostFacts {
        pci_gpus_for_nvidia: Some(0),
        other_drivers: vec!["vfio-pci".into()],
        ..host(&[], &Legacy::default())
    };
    let case = Case { gpu: fault(FaultKind::DriverNotLoaded, 0.0), host: lent, ..Case::default() };
    let reason = &case.reasons(&[], NOW)[0];
    assert!(reason.message.contains("vfio-pci") && reason.action.contains("vfio-pci"), "{reason:?}");
}

#[test]
fn a_device_that_cannot_be_opened_any_more() {
    let row = |access, expect: &[_]| {
        let host = HostFacts { access, ..Case::default().host };
        Case { host, ..Case::default() }.check(expect);
    };
    row(Access::Untested, &[]);
    row(Access::Open, &[]);
    row(Access::Revoked, &[(GpuAccessLost, Unhealthy)]);
    row(Access::Refused("no such device".into()), &[(GpuAccessLost, Unhealthy)]);
}

#[test]
fn faults_of_driver_and_library() {
    let here = Case::default().host;
    let row = |kind, lasting, host: &HostFacts, expected, expect: &[_]| {
        let limits = Limits { expected_gpus: expected, ..Limits::default() };
        Case { gpu: fault(kind, lasting), host: host.clone(), limits, ..Case::default() }.check(expect);
    };
    let blind = HostFacts { pci_gpus: None, ..here.clone() };
    let empty = HostFacts { pci_gpus: Some(0), ..here.clone() };
    row(FaultKind::LibMissing, 0.0, &here, None, &[(NvmlLibMissing, Unhealthy)]);
    row(FaultKind::LibMissing, 0.0, &blind, None, &[(NvmlLibMissing, Unknown)]);
    row(FaultKind::LibMissing, 0.0, &empty, None, &[(NoGpu, Unhealthy)]);
    row(FaultKind::LibMissing, 0.0, &empty, Some(0), &[]);
    let other_maker =
        Case { gpu: fault(FaultKind::LibMissing, 0.0), ollama: holding(5), host: empty, ..Case::default() };
    other_maker.check(&[(NvmlLibMissing, Unknown)]);
    row(FaultKind::DriverNotLoaded, 0.0, &here, None, &[(DriverNotLoaded, Unhealthy)]);
    row(FaultKind::LibMismatch, 0.0, &here, None, &[(DriverLibMismatch, Unhealthy)]);
    row(FaultKind::NoPermission, 0.0, &here, None, &[(NvmlNoPermission, Unhealthy)]);
    row(FaultKind::InitUnknown, 0.0, &here, None, &[(NvmlInitUnknown, Unhealthy)]);
    row(FaultKind::InitFailed, 0.0, &here, None, &[(NvmlInitFailed, Unhealthy)]);
    row(FaultKind::HelperMissing, 99.0, &here, None, &[(NvmlHelperMissing, Unknown)]);
    row(FaultKind::HelperFailed, 0.0, &here, None, &[(NvmlHelperFailed, Degraded)]);
    row(FaultKind::HelperFailed, 30.0, &here, None, &[(NvmlHelperFailed, Unhealthy)]);
    row(FaultKind::HelperOfOtherBuild, 5.0, &here, None, &[(NvmlHelperFailed, Degraded)]);
    row(FaultKind::HelperOfOtherBuild, 30.0, &here, None, &[(NvmlHelperFailed, Unhealthy)]);
    row(FaultKind::Stuck, 5.0, &here, None, &[(DriverStuck, Degraded)]);
    row(FaultKind::Stuck, 30.0, &here, None, &[(DriverStuck, Unhealthy)]);
}

#[test]
fn ollama_is_judged_with_the_gpu() {
    let row = |ollama: OllamaState, expect: &[_]| Case { ollama, ..Case::default() }.seen(3).check(expect);
    let down = OllamaState { reach: Reach::Down("refused".to_owned().into()), ..OllamaState::PENDING };
    row(OllamaState::PENDING, &[(OllamaNoAnswer, Unknown)]);
    row(down.clone(), &[(OllamaDown, Unhealthy)]);
    row(OllamaState { list_error: Some("500".to_owned().into()), ..up() }, &[(OllamaListFailed, Unknown)]);
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
    let recovered = Case::default().reasons(&second, 30.0);
    assert_eq!(empty.reasons(&recovered, 40.0)[0].since, 40.0);
}

#[test]
fn wanted_models_are_missed_once_their_list_is_known() {
    let row = |ollama: OllamaState, expect: &[_]| {
        let host = HostFacts { pci_gpus: Some(1), ..HostFacts::default() };
        let wanted = vec!["M:latest".into()];
        Case { gpu: sample(vec![gpu()]), ollama, host, wanted, ..Case::default() }.seen(1).check(expect);
    };
    let missed = &[(ModelNotLoaded, Degraded)];
    row(up(), missed);
    row(holding(5), &[]);
    let pulled =
        Model { name: "m".into(), size_bytes: None, pulled: true, loaded: None, digest: None, remote_host: None };
    row(OllamaState { models: vec![pulled], ..up() }, missed);
    let unlisted = OllamaState { lists_known: false, list_error: Some("500".to_owned().into()), ..up() };
    row(unlisted, &[(OllamaListFailed, Unknown)]);
    row(OllamaState { reach: Reach::Down("x".to_owned().into()), ..up() }, &[(OllamaDown, Unhealthy)]);
}

#[test]
fn actions_fit_where_the_worker_runs() {
    let action = |place: Place, gpu: GpuState, access: Access| {
        let host = HostFacts { place, access, ..Case::default().host };
        Case { gpu, host, ..Case::default() }.reasons(&[], NOW)[0].action.clone()
    };
    let [host, container, pod] = [Place::Host, Place::Container, Place::Kubernetes]
        .map(|place| action(place, fault(FaultKind::LibMissing, 0.0), Access::Untested));
    assert!(host.starts_with("Install the NVIDIA driver's libnvidia-ml.so.1"), "{host}");
    assert!(container.contains("compose/gpu.yaml") && pod.contains("runtimeClassName"), "{container} {pod}");
    let [host, container, pod] = [Place::Host, Place::Container, Place::Kubernetes]
        .map(|place| action(place, sample(vec![gpu()]), Access::Revoked));
    assert!(host.contains("DeviceAllow") && !host.contains("daemon-reload"), "{host}");
    // A service that may open /dev/nvidiactl alone.
    let denied = HostFacts { denied_nodes: 8, ..Case::default().host };
    let reason = &Case { gpu: sample(vec![]), host: denied, ..Case::default() }.reasons(&[], NOW)[0];
    assert!(reason.code == NoGpu && reason.message.contains("may not open their device nodes"), "{reason:?}");
    assert!(reason.action.contains("`DeviceAllow=char-nvidia rw`"), "{reason:?}");
    // The cause is a sentence of its own, so that it is not read as the fix.
    let cure =
        "Restart the worker and Ollama containers. Usual cause: `systemctl daemon-reload` on the host. Permanent";
    assert!(container.starts_with(cure) && pod.starts_with("Restart the pods"), "{container} {pod}");
    // Of several GPUs only the one is reset, and where its driver is. A container's index is another GPU's there.
    let reset = |place| {
        let lost = Gpu { index: 3, ..lost(GpuErrorKind::ResetRequired) };
        action(place, sample(vec![lost]), Access::Open)
    };
    assert_eq!(reset(Place::Host), "Stop all processes using this GPU, then run `nvidia-smi -i 3 -r` or reboot.");
    assert_eq!(
        reset(Place::Container),
        "Stop all processes using this GPU, then run `nvidia-smi -i 00000000:01:00.0 -r` on the host or reboot."
    );
    let unnamed = |pci: Option<&str>| {
        let gpu = Gpu { index: 3, pci_bus_id: pci.map(Into::into), uuid: None, ..gpu() };
        Place::Kubernetes.reset(&gpu)
    };
    assert_eq!(unnamed(Some("00000000:41:00.0")), "`nvidia-smi -i 00000000:41:00.0 -r` on the host");
    assert_eq!(unnamed(None), "`nvidia-smi -i UUID -r` on the host");
}

/// A restart does not help, nor does another driver: neither the worker nor a command that asks once may say so.
#[test]
fn a_helper_of_another_build_is_replaced() {
    let case = Case { gpu: fault(FaultKind::HelperOfOtherBuild, 0.0), ..Case::default() };
    let mut reasons = case.reasons(&[], NOW);
    assert!(reasons[0].action.starts_with("Install agent-net and agent-net-nvml from one build."), "{reasons:?}");
    settle(&mut reasons, &case.gpu, Place::Host);
    assert!(reasons[0].action.starts_with("Install agent-net and agent-net-nvml from one build."), "{reasons:?}");
    assert_eq!(reasons[0].severity, Unhealthy);
}

#[test]
fn what_keepers_find_is_a_reason() {
    let row = |model: &str, stuck: Option<Stuck>, by: Option<&str>| {
        let mut row = KeeperRow::new(model);
        (row.stuck, row.displaced_by) = (stuck, by.map(str::to_owned));
        row
    };
    let case = |keepers: Vec<KeeperRow>, ollama: OllamaState| Case { keepers, ollama, ..Case::default() };
    case(vec![row("a:1", None, None)], up()).check(&[]);
    case(vec![row("a:1", Some(Stuck::Perhaps), None)], up()).check(&[(ModelStuck, Degraded)]);
    let both = case(vec![row("a:1", Some(Stuck::Perhaps), None), row("b:1", Some(Stuck::Certainly), None)], up());
    both.check(&[(ModelStuck, Unhealthy)]);
    assert!(both.reasons(&[], NOW)[0].message.starts_with("Ollama lists b:1 as loaded past its expiry, and two"));
    let quarrel = vec![row("b:1", None, Some("a:1")), row("a:1", None, Some("b:1"))];
    let displaced = case(quarrel.clone(), up());
    displaced.check(&[(ModelsDisplaced, Degraded)]);
    assert!(displaced.reasons(&[], NOW)[0].message.starts_with("Models a:1 and b:1 displace each other"));
    let away = OllamaState { reach: Reach::Down("x".to_owned().into()), ..up() };
    case([quarrel, vec![row("c", Some(Stuck::Certainly), None)]].concat(), away).check(&[(OllamaDown, Unhealthy)]);
}

#[test]
fn a_cloud_model_is_named_as_that() {
    let remote_host = Some("https://ollama.com:443".to_owned());
    let far = Model { name: "m".into(), size_bytes: Some(380), pulled: true, loaded: None, digest: None, remote_host };
    let case = Case { ollama: OllamaState { models: vec![far], ..up() }, wanted: vec!["m".into()], ..Case::default() };
    case.check(&[(ModelNotLoaded, Degraded)]);
    let reason = &case.reasons(&[], NOW)[0];
    assert!(reason.message.contains("in Ollama's cloud") && reason.action.starts_with("Remove cloud models"));
}
