//! Who made a GPU.

use serde::{Deserialize, Serialize};

/// Who made a GPU; decides where its readings come from, and which rules concern it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum Vendor {
    /// Through NVML, or a Tegra board's sysfs.
    #[default]
    Nvidia,
    /// Through the files of the kernel's driver amdgpu.
    Amd,
}

impl Vendor {
    /// What the labels of metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
        }
    }

    pub(crate) fn is_amd(self) -> bool {
        self == Self::Amd
    }

    /// The text for one of NVIDIA's GPUs, or for one of AMD's.
    pub(crate) fn pick<T>(self, nvidia: T, amd: T) -> T {
        if self.is_amd() { amd } else { nvidia }
    }

    /// What does not respond when its GPUs do not.
    pub(crate) fn driver(self) -> &'static str {
        self.pick("NVML", "the driver amdgpu")
    }
}
