//! The identity of a GPU that no longer reports it, or that has that of another one.

use std::collections::BTreeSet;

use super::{Gpu, GpuSample};
#[cfg(test)]
use super::{GpuError, GpuErrorKind};

impl GpuSample {
    /// Boards that were made with one UUID would be one GPU in the history, in reasons and in metrics: all but the first are
    /// named by their place on the bus.
    pub(crate) fn tell_apart(&mut self) {
        let mut seen = BTreeSet::new();
        for gpu in &mut self.gpus {
            if gpu.uuid.as_ref().is_some_and(|uuid| !seen.insert(uuid.clone())) {
                let by_place = gpu.pci_bus_id.as_ref().map(|place| format!("PCI-{place}"));
                gpu.uuid = by_place.filter(|name| seen.insert(name.clone()));
            }
        }
    }

    /// A GPU that is about to be lost may not report its identity any more: what is missing is taken from `before`. It is
    /// recognized by its UUID, or by its index if it has no UUID and no other GPU has that one now.
    pub(crate) fn remember(&mut self, before: &[Gpu]) {
        for at in 0..self.gpus.len() {
            let gpu = &self.gpus[at];
            let is_it = |known: &&Gpu| match &gpu.uuid {
                Some(uuid) => known.uuid.as_ref() == Some(uuid),
                None => {
                    let elsewhere = |uuid| self.gpus.iter().any(|other| other.uuid.as_ref() == Some(uuid));
                    known.index == gpu.index && known.uuid.as_ref().is_some_and(|uuid| !elsewhere(uuid))
                }
            };
            // What it does say must fit: the index alone may be another's by now.
            let fits = |known: &&Gpu| {
                gpu.uuid.is_some()
                    || gpu.pci().is_none_or(|place| known.pci().is_none_or(|was| was == place))
                        && gpu.name.as_ref().is_none_or(|name| known.name.as_ref().is_none_or(|was| was == name))
            };
            let Some(known) = before.iter().find(is_it).filter(fits) else { continue };
            let gpu = &mut self.gpus[at];
            let keep = |now: &mut Option<String>, was: &Option<String>| *now = now.take().or_else(|| was.clone());
            keep(&mut gpu.uuid, &known.uuid);
            keep(&mut gpu.name, &known.name);
            keep(&mut gpu.pci_bus_id, &known.pci_bus_id);
            gpu.unified_memory |= !gpu.usable() && known.unified_memory;
        }
    }

    /// GPUs that this process was given: those that it may not use are another's business.
    pub(crate) fn given(&self) -> usize {
        self.gpus.iter().filter(|gpu| gpu.given()).count()
    }
}

#[test]
fn a_lost_gpu_keeps_its_name_unless_another_has_it() {
    let gpu = |index, uuid: Option<&str>| Gpu { index, uuid: uuid.map(str::to_owned), ..Gpu::default() };
    let lost = |index| {
        let error = Some(GpuError { kind: GpuErrorKind::Lost, message: "gone".into() });
        Gpu { error, ..gpu(index, None) }
    };
    let before = [gpu(0, Some("a")), gpu(1, Some("b"))];
    let uuids = |gpus: Vec<Gpu>| {
        let mut sample = GpuSample { gpus, ..GpuSample::default() };
        sample.remember(&before);
        assert!(sample.gpus.iter().all(|g| g.error.as_ref().is_none_or(|e| e.message == "gone")));
        sample.gpus.into_iter().map(|gpu| gpu.uuid).collect::<Vec<_>>()
    };
    let some = |uuid: &str| Some(uuid.to_owned());
    assert_eq!(uuids(vec![gpu(0, Some("a")), lost(1)]), [some("a"), some("b")]);
    // The indices have moved: it cannot be determined which one it is.
    assert_eq!(uuids(vec![gpu(0, Some("b")), lost(1)]), [some("b"), None]);
    assert_eq!(uuids(vec![lost(0), lost(1), lost(2)]), [some("a"), some("b"), None]);
}

#[test]
fn what_a_gpu_does_not_say_of_itself_now_is_kept() {
    let gpu = |index, uuid: Option<&str>, name: Option<&str>, pci: Option<&str>| Gpu {
        index,
        uuid: uuid.map(str::to_owned),
        name: name.map(str::to_owned),
        pci_bus_id: pci.map(str::to_owned),
        ..Gpu::default()
    };
    let (one, two) = (Some("00000000:01:00.0"), Some("00000000:02:00.0"));
    let before = [gpu(0, Some("a"), Some("A"), one), gpu(1, Some("b"), Some("B"), two)];
    #[track_caller]
    fn check(before: &[Gpu], now: Vec<Gpu>, expect: &[Gpu]) {
        let mut sample = GpuSample { gpus: now, ..GpuSample::default() };
        sample.remember(before);
        assert_eq!(sample.gpus, expect);
    }
    // The UUID is still answered, at whatever index.
    check(&before, vec![gpu(1, Some("a"), None, None)], &[gpu(1, Some("a"), Some("A"), one)]);
    // It is not, but the name is, or the place.
    check(&before, vec![gpu(1, None, Some("B"), None)], &[gpu(1, Some("b"), Some("B"), two)]);
    check(&before, vec![gpu(1, None, None, two)], &[gpu(1, Some("b"), Some("B"), two)]);
    // Another GPU, or another place: nothing is taken over.
    check(&before, vec![gpu(1, Some("c"), None, None)], &[gpu(1, Some("c"), None, None)]);
    check(&before, vec![gpu(1, None, None, one)], &[gpu(1, None, None, one)]);
    check(&before, vec![gpu(1, None, Some("A"), None)], &[gpu(1, None, Some("A"), None)]);
    let now = vec![gpu(0, Some("b"), None, None), gpu(1, None, None, None)];
    check(&before, now, &[gpu(0, Some("b"), Some("B"), two), gpu(1, None, None, None)]);
    // Never known: what it says is all there is.
    check(&[], vec![gpu(0, Some("a"), None, one)], &[gpu(0, Some("a"), None, one)]);
    check(&[gpu(0, Some("a"), None, one)], vec![gpu(0, Some("a"), None, None)], &[gpu(0, Some("a"), None, one)]);
}

#[test]
fn two_gpus_with_one_uuid_have_a_name_each() {
    let gpu = |index, uuid: &str, pci: Option<&str>| Gpu {
        index,
        uuid: Some(uuid.into()),
        pci_bus_id: pci.map(str::to_owned),
        ..Gpu::default()
    };
    let gpus = vec![gpu(0, "a", Some("1")), gpu(1, "a", Some("2")), gpu(2, "a", Some("2")), gpu(3, "a", None)];
    let mut sample = GpuSample { gpus, ..GpuSample::default() };
    sample.tell_apart();
    let ids: Vec<String> = sample.gpus.iter().map(Gpu::id).collect();
    assert_eq!(ids, ["a", "PCI-2", "gpu2", "gpu3"]);
    // Each keeps its name, also when it has nothing else to say.
    let before = sample.gpus.clone();
    let mut sample = GpuSample { gpus: vec![gpu(0, "a", None), gpu(1, "a", Some("2"))], ..GpuSample::default() };
    sample.tell_apart();
    sample.remember(&before);
    assert_eq!(sample.gpus, before[..2]);
}
