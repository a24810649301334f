//! Where readings come from: a helper for each driver or a Tegra board, and what the host shows without them.

use crate::config::Config;
use crate::gpu::amd_cards::{self, AmdGpus};
use crate::gpu::client::{Gpus, Reads};
use crate::gpu::host;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::kmsg::Kmsg;
use crate::gpu::merge::merge;
use crate::gpu::process_names::{ProcessNames, boot_seconds};
use crate::gpu::state::GpuState;
use crate::gpu::suspendable::SuspendableGpus;
use crate::gpu::tegra::Tegra;
use crate::gpu::wire::ActivityAsk;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often new cards are looked for: an external one can be plugged in at any time.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Where GPU readings come from.
#[derive(Debug)]
pub(super) enum Source {
    Helpers(Box<Helpers>),
    Tegra(Tegra),
}

/// A helper for each driver that there is.
#[derive(Debug)]
pub(super) struct Helpers {
    config: Config,
    root: PathBuf,
    nvidia: Option<SuspendableGpus>,
    amd: Option<Gpus>,
    names: ProcessNames,
    amd_names: ProcessNames,
    looked: Instant,
}

impl Source {
    /// A Tegra board has its own GPU only, unless it has cards.
    pub(super) fn find(config: &Config) -> Self {
        let root = Path::new(&config.host_root);
        let cards = host::count_cards(root).unwrap_or(0);
        match Tegra::detect(root).filter(|board| board.is_alone(cards)) {
            Some(board) => Self::Tegra(board),
            None => Self::Helpers(Box::new(Helpers::new(config, root))),
        }
    }

    /// `activity`: for a probe. A Tegra board does not have it.
    pub(super) fn sample(&mut self, events: bool, activity: Option<ActivityAsk>) -> (GpuState, u64) {
        match self {
            Self::Helpers(helpers) => helpers.sample(events, activity),
            Self::Tegra(board) => (GpuState::Sample(board.sample()), 0),
        }
    }
}

impl Helpers {
    fn new(config: &Config, root: &Path) -> Self {
        let mut helpers = Self {
            config: config.clone(),
            root: root.to_owned(),
            nvidia: None,
            amd: None,
            names: ProcessNames::new(root),
            amd_names: ProcessNames::new(root),
            looked: Instant::now(),
        };
        helpers.look();
        helpers
    }

    /// Without a card of AMD, NVML says what is wrong. Beside one it is asked where there is a card for NVIDIA's driver, or
    /// where it was named.
    fn look(&mut self) {
        let config = &self.config;
        let new = |reads| Gpus::new(reads, config.nvml_helper.clone(), config.slow_interval, config.faults.time_scale);
        let is_amd = !amd_cards::cards(&self.root, config.amd_gpus).is_empty();
        if is_amd && self.amd.is_none() {
            self.amd = Some(new(Reads::Amd { root: config.host_root.clone(), wanted: config.amd_gpus }));
        }
        let is_nvidia = || config.nvml_lib.is_some() || host::has_cards_for_nvidia(&self.root);
        if self.nvidia.is_none() && (self.amd.is_none() || is_nvidia()) {
            let gpus = new(Reads::Nvml { library: config.nvml_lib.clone() });
            self.nvidia = Some(SuspendableGpus::new(gpus, &self.root, config.faults.time_scale));
        }
        self.looked = Instant::now();
    }

    fn sample(&mut self, events: bool, activity: Option<ActivityAsk>) -> (GpuState, u64) {
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.look();
            self.nvidia.iter_mut().for_each(SuspendableGpus::look);
        }
        let nvidia = self.nvidia.as_mut().map(|gpus| named(&mut self.names, || gpus.sample(events, activity)));
        let amd = self.amd.as_mut().map(|gpus| named(&mut self.amd_names, || gpus.sample(false, activity)));
        let reinits =
            self.nvidia.as_ref().map_or(0, SuspendableGpus::reinits) + self.amd.as_ref().map_or(0, Gpus::reinits);
        let state = match (nvidia, amd) {
            (Some(nvidia), Some(amd)) => merge(nvidia, amd),
            (one, other) => one.or(other).unwrap_or(GpuState::Pending),
        };
        (state, reinits)
    }
}

/// A sample whose processes have names.
fn named(names: &mut ProcessNames, sample: impl FnOnce() -> GpuState) -> GpuState {
    let asked = boot_seconds();
    let mut state = sample();
    if let GpuState::Sample(sample) = &mut state {
        names.put_into(sample, asked);
    }
    state
}

/// What the host shows without NVML, the kernel's log included.
/// `amd`: AMD_GPUS.
pub(crate) fn host_facts(root: &Path, amd: AmdGpus, log: Option<&Kmsg>) -> HostFacts {
    HostFacts { legacy: log.map(|log| log.legacy().clone()).unwrap_or_default(), ..host::look(root, amd) }
}
