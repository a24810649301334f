//! What a model can have of a GPU in MIG mode: one instance, and never the whole GPU.

use super::mig_instance::MigInstance;
use super::readings::Gpu;
use super::value::Process;

impl Gpu {
    /// MIG is on, and no instance of the GPU is here: nothing can compute on it.
    pub(crate) fn lacks_instance(&self) -> bool {
        self.mig.as_ref().is_some_and(Vec::is_empty)
    }

    /// The instances, one for each memory: compute instances that share it are there once.
    pub(crate) fn memories(&self) -> impl Iterator<Item = &MigInstance> {
        let all = self.mig.as_deref().unwrap_or_default();
        let is_first = move |at: usize, one: &MigInstance| {
            one.gpu_instance.is_none() || !all[..at].iter().any(|other| other.gpu_instance == one.gpu_instance)
        };
        all.iter().enumerate().filter(move |(at, one)| is_first(*at, one)).map(|(_, one)| one)
    }

    /// The instance with the most memory.
    pub(crate) fn largest_instance(&self) -> Option<&MigInstance> {
        self.memories().max_by_key(|one| one.vram_total_bytes)
    }

    /// Whether a process has its memory in that of this instance.
    pub(crate) fn holds(&self, memory: &MigInstance, process: &Process) -> bool {
        let own = self.mig.iter().flatten().find(|one| one.uuid.is_some() && one.uuid == process.mig_uuid);
        own.is_some_and(|own| {
            own.uuid == memory.uuid || (own.gpu_instance.is_some() && own.gpu_instance == memory.gpu_instance)
        })
    }

    /// The most memory that a model can have.
    pub(crate) fn model_memory(&self) -> Option<u64> {
        match self.largest_instance() {
            Some(largest) => largest.vram_total_bytes,
            None if self.lacks_instance() => Some(0),
            None => self.vram_total_bytes.filter(|_| self.mig_mode != Some(true)),
        }
    }

    /// The most free memory that a model can have.
    pub(crate) fn model_free(&self) -> Option<u64> {
        match self.mig.as_deref() {
            Some([]) => Some(0),
            Some(_) => self.memories().filter_map(MigInstance::free_bytes).max(),
            None => self.vram_free_bytes.filter(|_| self.mig_mode != Some(true)),
        }
    }

    /// As CUDA names what a model gets: in MIG mode with the largest instance's profile.
    pub(crate) fn model_gpu(&self) -> Option<String> {
        let name = self.name.clone()?;
        match self.largest_instance().and_then(|largest| largest.profile.as_ref()) {
            Some(profile) => Some(format!("{name} MIG {profile}")),
            None => Some(name),
        }
    }
}

impl MigInstance {
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.vram_total_bytes?.checked_sub(self.vram_used_bytes?)
    }
}

#[test]
fn a_model_gets_one_instance() {
    let instance = |gpu_instance, total, used| MigInstance {
        profile: Some(format!("{total}gb")),
        gpu_instance,
        vram_total_bytes: Some(total),
        vram_used_bytes: used,
        ..MigInstance::default()
    };
    let whole = Gpu { name: Some("A".into()), vram_total_bytes: Some(80), vram_free_bytes: Some(70), ..Gpu::default() };
    let of = |mig: Option<Vec<MigInstance>>| {
        let gpu = Gpu { mig, ..whole.clone() };
        (gpu.model_memory(), gpu.model_free(), gpu.model_gpu().unwrap(), gpu.memories().count())
    };
    assert_eq!(of(None), (Some(80), Some(70), "A".into(), 0));
    assert_eq!(of(Some(Vec::new())), (Some(0), Some(0), "A".into(), 0));
    let all = vec![
        instance(Some(2), 10, Some(1)),
        // Two compute instances of one GPU instance.
        instance(Some(1), 40, Some(38)),
        instance(Some(1), 40, Some(38)),
        instance(None, 20, None),
        instance(None, 20, None),
    ];
    assert_eq!(of(Some(all)), (Some(40), Some(9), "A MIG 40gb".into(), 4));
    let unknown = MigInstance::default();
    assert_eq!(of(Some(vec![unknown])), (None, None, "A".into(), 1));
    let unlisted = Gpu { mig_mode: Some(true), ..whole };
    assert_eq!((unlisted.model_memory(), unlisted.model_free()), (None, None));
}
