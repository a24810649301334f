//! The GPUs of the kernel's driver amdgpu, through sysfs. Files, units and traps follow the kernel's `amdgpu_pm.c`.

mod autosuspend;
mod card;
mod files;
mod identity;
mod link;
mod processes;
mod ras;
mod sensors;

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
    driver_version: Option<String>,
}

impl Reader {
    /// From the arguments [`wire::AMD_GPUS`], the root, AMD_GPUS and perhaps [`wire::HAD_CARD`]; None where the program was
    /// started for NVML.
    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        let [first, root, wanted, more @ ..] = arguments else { return None };
        let wanted = AmdGpus::parse(wanted).filter(|_| first == wire::AMD_GPUS)?;
        Some(Self {
            root: root.into(),
            wanted,
            cards: Vec::new(),
            had_card: more.iter().any(|word| word == wire::HAD_CARD),
            gpus: Threads::default(),
            driver_version: None,
        })
    }

    /// Finds the cards again. One that stays keeps its thread, also where others come and go.
    fn look(&mut self) -> Result<(), GpuFault> {
        let mut cards = amd_cards::cards(&self.root, self.wanted);
        self.had_card |= cards.iter().any(|card| !card.integrated);
        if self.had_card && self.wanted == AmdGpus::Auto {
            cards.retain(|card| !card.integrated);
        }
        for at in (0..self.cards.len()).rev() {
            if !cards.contains(&self.cards[at]) {
                self.cards.remove(at);
                self.gpus.remove(at);
            }
        }
        // Both lists have the same order.
        for (at, card) in cards.into_iter().enumerate() {
            if self.cards.get(at) != Some(&card) {
                self.gpus.insert(at, Card::new(card.clone(), self.root.clone()))?;
                self.cards.insert(at, card);
            }
        }
        self.driver_version = self.find_version();
        Ok(())
    }

    /// The module's own version where it is built apart from the kernel, else the kernel's.
    fn find_version(&self) -> Option<String> {
        let text = |file: &str| files::words(&self.root.join(file)).ok();
        text("sys/module/amdgpu/version")
            .or_else(|| text("proc/sys/kernel/osrelease").map(|kernel| format!("Linux {kernel}")))
    }
}

impl reader::Reader for Reader {
    fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
        let start = Instant::now();
        if wanted.slow || self.cards.is_empty() || !self.cards.iter().all(AmdCard::has_driver) {
            self.look()?;
        }
        let mut times = Times::new();
        let Answers { gpus, slow_fresh, .. } = self.gpus.read(wanted, &mut times);
        Ok(GpuSample {
            driver_version: self.driver_version.clone(),
            gpus,
            slow_fresh,
            read_us: micros(start),
            call_us: times,
            ..GpuSample::default()
        })
    }
}
