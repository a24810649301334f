//! What the machine shows of its GPUs without NVML.

use super::legacy::Legacy;
use super::pci::PciId;

/// What the machine shows of its GPUs without NVML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// NVIDIA display devices on the PCI bus; None where the bus cannot be seen.
    pub(crate) pci_gpus: Option<u32>,
    /// Those of them that run NVIDIA's driver, or none: no other machine and no other driver has them.
    pub(crate) pci_gpus_for_nvidia: Option<u32>,
    /// Those of them that have no driver at all.
    pub(crate) unbound: Vec<PciId>,
    /// Drivers of other makers that have cards: nouveau, or vfio-pci for a virtual machine.
    pub(crate) other_drivers: Vec<String>,
    /// Cards that the installed driver ignores, as far as the kernel's log can be read.
    pub(crate) legacy: Legacy,
    /// /dev/nvidia0 and so on: the GPUs that were given to this container.
    pub(crate) device_nodes: Option<u32>,
    /// The PCI bus then also shows GPUs that are none of ours.
    pub(crate) in_container: bool,
    pub(crate) access: Access,
}

impl Surroundings {
    /// GPUs on the PCI bus that NVIDIA's driver should have; None where the bus cannot be seen.
    pub(crate) fn gpus_on_bus(&self) -> Option<u32> {
        let ignored = u32::try_from(self.legacy.ignored(&self.unbound)).unwrap_or(u32::MAX);
        self.pci_gpus_for_nvidia.map(|gpus| gpus.saturating_sub(ignored))
    }

    /// What there is to say of cards that NVIDIA's driver does not have: begins with a semicolon, or is empty.
    pub(crate) fn without_driver(&self) -> String {
        let legacy = self.legacy.because();
        match (legacy.is_empty(), self.other_drivers.is_empty()) {
            (true, false) => format!("; other drivers have NVIDIA's cards: {}", self.other_drivers.join(", ")),
            _ => legacy,
        }
    }

    /// What to do when NVIDIA's driver is not loaded.
    pub(crate) fn load_driver(&self) -> &'static str {
        if !self.legacy.sentences().is_empty() {
            "install the driver that the card needs: the one that is installed ignores it"
        } else if self.pci_gpus_for_nvidia == Some(0) && !self.other_drivers.is_empty() {
            "give the card to NVIDIA's driver: blacklist nouveau or nvidiafb and reboot, or take the card back from the virtual machine (vfio-pci); then modprobe nvidia"
        } else {
            "load the driver on the host (modprobe nvidia) or install it"
        }
    }
}

/// Whether the driver's device node can be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// There is none, or it was not tried.
    #[default]
    Untested,
    Open,
    /// It is there and cannot be opened; the system's words.
    Refused(String),
    /// The same because the container's right was taken away (EPERM).
    Revoked,
}

/// A file below /dev through which the GPU is reached.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Permission bits, owner and group.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: Access,
}
