//! NVIDIA's GPUs, which are not read while all of them sleep, or are about to.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::client::Gpus;
use super::host;
use super::runtime_power::{SuspendableCard, suspendable_cards};
use super::sample::{Gpu, GpuSample};
use super::sleep::{Sleep, sleeping};
use super::state::GpuState;
use super::wire::ActivityAsk;

/// GPUs that are read through NVML unless they sleep.
#[derive(Debug)]
pub(crate) struct SuspendableGpus {
    gpus: Gpus,
    root: PathBuf,
    /// Empty where they cannot sleep: then nothing is looked at between two calls of [`Self::look`].
    cards: Vec<SuspendableCard>,
    sleep: Sleep,
    time_scale: u32,
    /// The last sample without its GPUs: versions and the library's path.
    read: GpuSample,
}

impl SuspendableGpus {
    /// `root`: HOST_ROOT. `time_scale` divides all times.
    pub(crate) fn new(gpus: Gpus, root: &Path, time_scale: u32) -> Self {
        Self {
            gpus,
            root: root.to_owned(),
            cards: suspendable_cards(root),
            sleep: Sleep::new(time_scale),
            time_scale,
            read: GpuSample::default(),
        }
    }

    /// Looks again which cards can sleep.
    pub(crate) fn look(&mut self) {
        self.cards = suspendable_cards(&self.root);
    }

    pub(crate) fn reinits(&self) -> u64 {
        self.gpus.reinits()
    }

    /// As [`Gpus::sample`], without waking a GPU.
    pub(crate) fn sample(&mut self, events: bool, activity: Option<ActivityAsk>) -> GpuState {
        let Some(asleep) = self.asleep() else {
            self.sleep = Sleep::new(self.time_scale);
            return self.gpus.sample(events, activity);
        };
        if self.sleep.leaves_alone(asleep, activity.is_some(), Instant::now()) {
            return self.left_alone();
        }
        let state = self.gpus.sample(events, activity);
        if let GpuState::Sample(sample) = &state {
            self.read = GpuSample {
                driver_version: sample.driver_version.clone(),
                nvml_version: sample.nvml_version.clone(),
                cuda_version: sample.cuda_version.clone(),
                library: sample.library.clone(),
                ..GpuSample::default()
            };
            if activity.is_none() && self.sleep.releases(sample, Instant::now()) {
                log::debug!("No GPU has work: NVML is released so that they can sleep");
                self.gpus.release();
            }
        }
        state
    }

    /// Whether all GPUs of this process sleep; None: some cannot, or which are its own is unknown.
    fn asleep(&self) -> Option<bool> {
        if self.cards.is_empty() {
            return None;
        }
        let known: Vec<&Gpu> = self.gpus.known().iter().filter(|gpu| gpu.given()).collect();
        // A container sees all cards of the machine.
        let is_ours = |card: &&SuspendableCard| known.is_empty() || known.iter().any(|gpu| gpu.pci() == card.pci());
        let ours: Vec<&SuspendableCard> = self.cards.iter().filter(is_ours).collect();
        let all_found =
            if known.is_empty() { host::has_all_cards(&self.root, ours.len()) } else { ours.len() == known.len() };
        all_found.then(|| ours.iter().all(|card| card.is_asleep()))
    }

    /// The GPUs of the last good sample, or those on the bus. A fault stays until NVML can be tried again.
    fn left_alone(&mut self) -> GpuState {
        self.gpus.release();
        if let Some(fault) = self.gpus.lasting_fault() {
            return fault;
        }
        let known = self.gpus.known();
        let gpus = if known.is_empty() {
            (0..).zip(&self.cards).map(|(index, card)| card.unread(index)).collect()
        } else {
            known.iter().map(sleeping).collect()
        };
        GpuState::Sample(GpuSample { gpus, ..self.read.clone() })
    }
}
