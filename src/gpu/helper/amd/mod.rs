//! The GPUs of the kernel's driver amdgpu, through sysfs. Files, units and traps follow the kernel's `amdgpu_pm.c`.

mod card;
mod files;
mod identity;
mod link;
mod processes;
mod ras;
mod sensors;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::reader;
use super::reading_log::{Times, micros};
use super::threads::{Answers, Threads};
use crate::gpu::amd_cards::{self, AmdCard, AmdGpus};
use crate::gpu::sample::{GpuFault, GpuSample};
use crate::gpu::wire::{self, Wanted};
use card::Card;

/// The GPUs of amdgpu.
pub(super) struct Reader {
    root: PathBuf,
    wanted: AmdGpus,
    cards: Vec<AmdCard>,
    /// A card was there: if it is lost, the GPU in the processor does not take its place.
    had_card: bool,
    gpus: Threads,
}

impl Reader {
    /// From the arguments [`wire::AMD_GPUS`], the root and AMD_GPUS; None where the program was started for NVML.
    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        let [first, root, wanted] = arguments else { return None };
        let wanted = AmdGpus::parse(wanted).filter(|_| first == wire::AMD_GPUS)?;
        Some(Self { root: root.into(), wanted, cards: Vec::new(), had_card: false, gpus: Threads::default() })
    }

    /// Finds the cards again. A thread that hangs in the driver stays with the card that it reads.
    fn look(&mut self) -> Result<(), GpuFault> {
        let mut cards = amd_cards::cards(&self.root, self.wanted);
        self.had_card |= cards.iter().any(|card| !card.integrated);
        if self.had_card && self.wanted == AmdGpus::Auto {
            cards.retain(|card| !card.integrated);
        }
        if cards != self.cards {
            self.gpus = Threads::default();
            for (index, card) in (0..).zip(&cards) {
                self.gpus.push(Card::new(index, card.clone(), self.root.clone()))?;
            }
            self.cards = cards;
        }
        Ok(())
    }

    /// The module's own version where it is built apart from the kernel, else the kernel's.
    fn driver_version(&self) -> Option<String> {
        let text = |file: &str| files::text(&self.root.join(file)).ok();
        text("sys/module/amdgpu/version")
            .or_else(|| text("proc/sys/kernel/osrelease").map(|kernel| format!("Linux {kernel}")))
    }
}

impl reader::Reader for Reader {
    fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
        let start = Instant::now();
        let gone = |card: &AmdCard| fs::symlink_metadata(&card.device).is_err();
        if wanted.slow || self.cards.is_empty() || self.cards.iter().any(gone) {
            self.look()?;
        }
        let mut times = Times::new();
        let Answers { gpus, slow_fresh, .. } = self.gpus.read(wanted, &mut times);
        Ok(GpuSample {
            driver_version: self.driver_version(),
            gpus,
            slow_fresh,
            read_us: micros(start),
            call_us: times,
            ..GpuSample::default()
        })
    }
}
