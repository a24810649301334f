use super::*;
use crate::gpu::failure::GpuFault;
use crate::gpu::sample::{Gpu, XidEvent};
use crate::health::verdict::Code;

fn sample(events: Vec<XidEvent>) -> GpuState {
    let gpu = Gpu { pci_bus_id: Some("00000000:01:00.0".into()), ..Gpu::default() };
    GpuState::Sample(GpuSample { gpus: vec![gpu], events: Some(events), ..GpuSample::default() })
}

fn fault(kind: FaultKind) -> GpuState {
    let fault = GpuFault { kind, detail: String::new() };
    GpuState::Fault { vendor: Vendor::Nvidia, fault, lasting_s: 1.0, gpus: Vec::new() }
}

/// Without the kernel's log a driver that is loaded again settles what the one before has reported. While a package is
/// upgraded, its library does not fit the module that is still loaded.
#[test]
fn errors_of_the_driver_before_are_settled_and_others_are_not() {
    for (kind, settles) in [
        (FaultKind::DriverNotLoaded, true),
        (FaultKind::LibMismatch, true),
        (FaultKind::HelperFailed, false),
        (FaultKind::Stuck, false),
    ] {
        let store = SnapshotStore::new(Limits::default(), Vec::new(), Arc::default());
        store.publish_the_first_anyway();
        let is_fatal = || store.latest().is_some_and(|latest| latest.reasons.iter().any(|r| r.code == Code::XidFatal));
        store.put_gpu(sample(vec![XidEvent { index: 0, xid: 79 }]), 0);
        assert!(is_fatal(), "{kind:?}");
        store.put_gpu(fault(kind), 0);
        store.put_gpu(sample(Vec::new()), 1);
        assert_eq!(is_fatal(), !settles, "{kind:?}");
        store.put_gpu(sample(vec![XidEvent { index: 0, xid: 79 }]), 1);
        assert!(is_fatal(), "{kind:?}: what comes afterwards is new");
    }
}
