//! What a row of the table holds.

use serde::{Serialize, Serializer};

use crate::gpu::vendor::Vendor;
use crate::health::severity::Verdict;

/// One reason code.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CodeEntry"))]
pub(crate) struct Entry {
    #[serde(rename = "code")]
    pub(crate) name: &'static str,
    #[serde(skip)]
    pub(super) help: &'static str,
    /// The usual one first.
    pub(super) severities: &'static [Verdict],
    pub(super) group: Group,
    /// Whose GPUs it is about.
    pub(super) vendors: &'static [Vendor],
    /// What the code means.
    pub(crate) meaning: &'static str,
    /// When the reason is gone.
    pub(crate) clears: &'static str,
    /// What to do in general; a reason's own action fits its GPU and machine.
    pub(crate) action: &'static str,
}

impl Entry {
    /// `degraded, unhealthy`
    pub(crate) fn severities(&self) -> String {
        self.severities.iter().map(|severity| severity.name()).collect::<Vec<_>>().join(", ")
    }

    /// `nvidia, amd`
    pub(crate) fn vendors(&self) -> String {
        self.vendors.iter().map(|vendor| vendor.name()).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn is_of(&self, group: Group) -> bool {
        self.group == group
    }

    pub(crate) fn group_name(&self) -> &'static str {
        self.group.name()
    }
}

/// What codes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CodeGroup", with = "String"))]
pub(crate) enum Group {
    Driver,
    Gpu,
    Xid,
    Memory,
    Heat,
    Pcie,
    Ollama,
    Uptime,
}

impl Group {
    pub(crate) const ALL: [Self; 8] =
        [Self::Driver, Self::Gpu, Self::Xid, Self::Memory, Self::Heat, Self::Pcie, Self::Ollama, Self::Uptime];

    /// As headings name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Driver => "Driver and library",
            Self::Gpu => "GPU",
            Self::Xid => "XID",
            Self::Memory => "Memory errors",
            Self::Heat => "Heat and power",
            Self::Pcie => "PCIe",
            Self::Ollama => "Ollama and models",
            Self::Uptime => "Uptime",
        }
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How severities are ordered; it stands above each list of the codes.
pub(crate) const ORDER: &str = "Severities from best to worst: ok, unknown, degraded, unhealthy. The verdict is the \
                                worst severity of all reasons, and ok without any.";

/// What N is in the commands of actions; it stands below [`ORDER`].
pub(crate) const N: &str = "N in a command is the GPU's index on the host, or its PCI bus ID: a container counts only its \
                            own GPUs. Commands of nvidia-smi are for NVIDIA's GPUs: an AMD GPU is reset by a reboot.";
