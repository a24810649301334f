use super::merge;
use crate::gpu::failure::{FaultKind, GpuFault};
use crate::gpu::sample::{Gpu, GpuSample};
use crate::gpu::state::GpuState;
use crate::gpu::vendor::Vendor;

fn gpus(names: &[&str]) -> Vec<Gpu> {
    (0..).zip(names).map(|(index, name)| Gpu { index, name: Some((*name).to_owned()), ..Gpu::default() }).collect()
}

fn sample(names: &[&str]) -> GpuState {
    GpuState::Sample(GpuSample { gpus: gpus(names), read_us: 5, ..GpuSample::default() })
}

fn fault(names: &[&str]) -> GpuState {
    let fault = GpuFault { kind: FaultKind::Stuck, detail: "x".into() };
    let gpus = gpus(names).iter().map(|gpu| gpu.silent("x")).collect();
    GpuState::Fault { vendor: Vendor::Nvidia, fault, lasting_s: 1.0, gpus }
}

fn starting(names: &[&str]) -> GpuState {
    GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 1.0, gpus: gpus(names) }
}

#[test]
fn two_readers_make_one_list() {
    #[track_caller]
    fn check(first: GpuState, second: GpuState, expect: &str) {
        let state = merge(first, second);
        let kind = match &state {
            GpuState::Pending => "pending",
            GpuState::Starting { .. } => "starting",
            GpuState::Sample(_) => "sample",
            GpuState::Fault { .. } => "fault",
        };
        let gpus = state.gpus().iter().map(|gpu| {
            let name = gpu.name.as_deref().unwrap_or("?");
            format!(" {}{name}{}", gpu.index, if gpu.usable() { "" } else { "!" })
        });
        assert_eq!(format!("{kind}{}", gpus.collect::<String>()), expect);
    }
    check(sample(&["a", "b"]), sample(&["c"]), "sample 0a 1b 2c");
    check(sample(&["a"]), sample(&[]), "sample 0a");
    check(sample(&[]), sample(&["c"]), "sample 0c");
    check(sample(&["a"]), fault(&["c"]), "sample 0a 1c!");
    check(sample(&["a"]), fault(&[]), "fault 0a");
    check(sample(&["a"]), starting(&[]), "starting 0a");
    check(sample(&["a"]), GpuState::Pending, "pending");
    check(fault(&["a"]), sample(&["c", "d"]), "fault 0a! 1c 2d");
    check(starting(&["a"]), sample(&["c"]), "starting 0a 1c");
    check(fault(&["a"]), fault(&["c"]), "fault 0a! 1c!");
    let GpuState::Sample(both) = merge(sample(&["a"]), sample(&["c"])) else { unreachable!() };
    assert_eq!(both.read_us, 10);
    // NVIDIA's version where there are both.
    for (first, second, expect) in [(None, Some("6.8"), "6.8"), (Some("570"), Some("6.8"), "570")] {
        let with = |version: Option<&str>| {
            GpuState::Sample(GpuSample { driver_version: version.map(str::to_owned), ..GpuSample::default() })
        };
        let GpuState::Sample(both) = merge(with(first), with(second)) else { unreachable!() };
        assert_eq!(both.driver_version.as_deref(), Some(expect));
    }
    // What is new of either is new.
    for (first, second) in [(true, false), (false, true), (false, false)] {
        let with = |slow_fresh| GpuState::Sample(GpuSample { slow_fresh, ..GpuSample::default() });
        let GpuState::Sample(both) = merge(with(first), with(second)) else { unreachable!() };
        assert_eq!(both.slow_fresh, first || second);
    }
}
