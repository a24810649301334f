//! What a helper reads.

use std::process::Command;

use crate::gpu::amd_cards::AmdGpus;
use crate::gpu::vendor::Vendor;
use crate::gpu::wire;

/// What a helper reads, and with what.
#[derive(Debug, Clone)]
pub(crate) enum Reads {
    Nvml {
        /// NVML_LIB.
        library: Option<String>,
    },
    Amd {
        /// HOST_ROOT.
        root: String,
        wanted: AmdGpus,
    },
}

impl Reads {
    pub(super) fn vendor(&self) -> Vendor {
        match self {
            Self::Nvml { .. } => Vendor::Nvidia,
            Self::Amd { .. } => Vendor::Amd,
        }
    }

    /// Puts it into the command that starts the helper. `had_card`: a card of AMD was listed.
    pub(super) fn put_into(&self, command: &mut Command, had_card: bool) {
        match self {
            Self::Nvml { library: None } => {}
            Self::Nvml { library: Some(library) } => {
                command.env("NVML_LIB", library);
            }
            Self::Amd { root, wanted } => {
                command.args([wire::AMD_GPUS, root, wanted.name()]).args(had_card.then_some(wire::HAD_CARD));
            }
        }
    }
}
