//! Where readings come from: the helper or a Tegra board, and what the host shows without NVML.

use crate::config::Config;
use crate::gpu::client::Gpus;
use crate::gpu::host;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::kmsg::Kmsg;
use crate::gpu::process_names::{ProcessNames, boot_seconds};
use crate::gpu::state::GpuState;
use crate::gpu::tegra::Tegra;
use crate::gpu::wire::ActivityAsk;
use std::path::Path;

/// Where GPU readings come from.
#[derive(Debug)]
pub(super) enum Source {
    Helper(Box<(Gpus, ProcessNames)>),
    Tegra(Tegra),
}

impl Source {
    /// A Tegra board has its own GPU only, unless it has cards.
    pub(super) fn find(config: &Config) -> Self {
        let root = Path::new(&config.host_root);
        let cards = host::count_cards(root).unwrap_or(0);
        match Tegra::detect(root).filter(|board| board.is_alone(cards)) {
            Some(board) => Self::Tegra(board),
            None => {
                let (helper, library) = (config.nvml_helper.clone(), config.nvml_lib.clone());
                let gpus = Gpus::new(helper, library, config.slow_interval, config.faults.time_scale);
                Self::Helper(Box::new((gpus, ProcessNames::new(root))))
            }
        }
    }

    /// `activity`: for a probe. A Tegra board does not have it.
    pub(super) fn sample(&mut self, events: bool, activity: Option<ActivityAsk>) -> (GpuState, u64) {
        match self {
            Self::Helper(both) => {
                let (gpus, names) = &mut **both;
                let asked = boot_seconds();
                let mut state = gpus.sample(events, activity);
                if let GpuState::Sample(sample) = &mut state {
                    names.put_into(sample, asked);
                }
                (state, gpus.reinits())
            }
            Self::Tegra(board) => (GpuState::Sample(board.sample()), 0),
        }
    }
}

/// What the host shows without NVML, the kernel's log included.
pub(crate) fn host_facts(root: &Path, log: Option<&Kmsg>) -> HostFacts {
    HostFacts { legacy: log.map(|log| log.legacy().clone()).unwrap_or_default(), ..host::look(root) }
}
