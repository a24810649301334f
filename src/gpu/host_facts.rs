//! What the host shows of its GPUs without NVML.

use std::borrow::Cow;

use super::legacy::Legacy;
use super::pci::PciId;
use super::place::Place;

/// What the host shows of its GPUs without NVML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// NVIDIA display devices on the PCI bus; None where the bus cannot be seen.
    pub(crate) pci_gpus: Option<u32>,
    /// Those with NVIDIA's driver or none: neither a virtual machine nor another driver has them.
    pub(crate) pci_gpus_for_nvidia: Option<u32>,
    /// Those without any driver.
    pub(crate) unbound: Vec<PciId>,
    /// Other drivers that have cards: nouveau, or vfio-pci for a virtual machine.
    pub(crate) other_drivers: Vec<String>,
    /// Cards that the installed driver ignores, as far as the kernel's log can be read.
    pub(crate) legacy: Legacy,
    /// GPUs of the driver amdgpu that AMD_GPUS chooses.
    pub(crate) amd_gpus: u32,
    /// There are more, which AMD_GPUS=off leaves out.
    pub(crate) amd_off: bool,
    /// Cards of AMD without any driver; none with AMD_GPUS=off.
    pub(crate) amd_unbound: Vec<PciId>,
    /// /dev/nvidia0 and so on: the GPUs that were given to this container.
    pub(crate) device_nodes: Option<u32>,
    /// Those beside them that the kernel lets this process not open.
    pub(crate) denied_nodes: u32,
    /// /dev was made for a container. The PCI bus then also shows GPUs of other containers.
    pub(crate) in_container: bool,
    pub(crate) access: Access,
    /// Where this process runs.
    pub(crate) place: Place,
}

impl HostFacts {
    /// GPUs on the PCI bus that NVIDIA's driver should have; None where the bus cannot be seen.
    pub(crate) fn gpus_on_bus(&self) -> Option<u32> {
        let ignored = u32::try_from(self.legacy.ignored(&self.unbound)).unwrap_or(u32::MAX);
        self.pci_gpus_for_nvidia.map(|gpus| gpus.saturating_sub(ignored))
    }

    /// All GPUs on the PCI bus that a driver should have.
    pub(crate) fn all_gpus_on_bus(&self) -> Option<u32> {
        let unbound = u32::try_from(self.amd_unbound.len()).unwrap_or(u32::MAX);
        Some(self.gpus_on_bus()?.saturating_add(self.amd_gpus).saturating_add(unbound))
    }

    /// Why the drivers have no card: begins with a semicolon, or is empty.
    pub(crate) fn without_driver(&self) -> String {
        let mut why = self.legacy.because();
        if why.is_empty() && !self.other_drivers.is_empty() {
            why = format!("; other drivers have NVIDIA's cards: {}", self.other_drivers.join(", "));
        }
        if self.amd_off && self.pci_gpus == Some(0) {
            why.push_str("; AMD_GPUS=off leaves out the AMD GPUs");
        }
        if let Some(place) = self.amd_unbound.first() {
            why.push_str(&format!("; no driver has the AMD GPU at {place}"));
        }
        why
    }

    /// What to do when no driver has the GPU.
    pub(crate) fn load_driver(&self) -> Cow<'static, str> {
        let on_the_host = self.place.on_the_host();
        if self.pci_gpus == Some(0) && self.amd_off {
            "Set AMD_GPUS=auto to have them read. No GPU expected? Set EXPECTED_GPUS=0.".into()
        } else if self.pci_gpus == Some(0) && !self.amd_unbound.is_empty() {
            format!("Load the driver{on_the_host} (`modprobe amdgpu`). If that fails, `dmesg`{on_the_host} says why.")
                .into()
        } else if !self.legacy.sentences().is_empty() {
            format!("Install the driver that the card needs{on_the_host}: the installed one ignores it.").into()
        } else if self.pci_gpus_for_nvidia == Some(0) && !self.other_drivers.is_empty() {
            "Give the card to NVIDIA's driver on the host: blacklist nouveau or nvidiafb and reboot, or take it back from \
             the virtual machine (vfio-pci). Then run `modprobe nvidia`."
                .into()
        } else {
            format!("Load the driver{on_the_host} (`modprobe nvidia`), or install it.").into()
        }
    }

    /// What to do where no GPU can be used.
    pub(crate) fn give_a_gpu(&self) -> Cow<'static, str> {
        if !self.without_driver().is_empty() {
            self.load_driver()
        } else if self.denied_nodes > 0 && self.place == Place::Host {
            "Let the worker open /dev/nvidia0 and so on: `DeviceAllow=char-nvidia rw` and `DeviceAllow=char-nvidia-frontend rw` \
             in systemd, for newer and older drivers. Then restart agent-net, and Ollama if it has the same setting."
                .into()
        } else {
            self.place.give_a_gpu().into()
        }
    }
}

/// Whether the driver's device node can be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// It does not exist, or was not tried.
    #[default]
    Untested,
    Open,
    /// It exists, and this user may not open it; the system's message.
    Refused(String),
    /// It cannot be opened for another reason, such as a driver that is not there; the system's message.
    Failed(String),
    /// The container's access was revoked (EPERM).
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
