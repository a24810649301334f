//! The GPUs of the kernel's driver amdgpu, through sysfs.

use std::path::PathBuf;
use std::time::Instant;

use super::reader;
use super::reading_log::{Times, micros};
use super::threads::{Answers, Threads};
use crate::gpu::amd_cards::{self, AmdCard, AmdGpus};
use crate::gpu::sample::{GpuFault, GpuSample};
use crate::gpu::wire::{self, Wanted};

/// The GPUs of amdgpu.
pub(super) struct Reader {
    root: PathBuf,
    wanted: AmdGpus,
    cards: Vec<AmdCard>,
    gpus: Threads,
}

impl Reader {
    /// From the arguments [`wire::AMD_GPUS`], the root and AMD_GPUS; None where the program was started for NVML.
    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        let [first, root, wanted] = arguments else { return None };
        let wanted = AmdGpus::parse(wanted).filter(|_| first == wire::AMD_GPUS)?;
        Some(Self { root: root.into(), wanted, cards: Vec::new(), gpus: Threads::default() })
    }
}

impl reader::Reader for Reader {
    fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
        let start = Instant::now();
        let mut times = Times::new();
        let cards = amd_cards::cards(&self.root, self.wanted);
        self.cards = cards;
        let Answers { gpus, slow_fresh, events } = self.gpus.read(wanted, &mut times);
        Ok(GpuSample { gpus, slow_fresh, events, read_us: micros(start), call_us: times, ..GpuSample::default() })
    }
}
