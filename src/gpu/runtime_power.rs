//! Whether NVIDIA's cards can sleep, and do (runtime suspend), by files that wake none. Not `information` below
//! /proc/driver/nvidia, which wakes the card.

use std::fs;
use std::path::{Path, PathBuf};

use super::pci::PciId;
use super::sample::Gpu;
use crate::sys::order;

/// The cards that NVIDIA's driver has.
const CARDS: &str = "sys/bus/pci/drivers/nvidia";

/// A card that can sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuspendableCard {
    /// Its folder on the PCI bus.
    device: PathBuf,
    /// `0000:01:00.0`
    slot: String,
}

/// The cards of NVIDIA's driver, by their place on the bus, if all of them can sleep; else none.
pub(crate) fn suspendable_cards(root: &Path) -> Vec<SuspendableCard> {
    let entries = fs::read_dir(root.join(CARDS)).into_iter().flatten().flatten();
    let mut cards: Vec<SuspendableCard> = entries
        .filter_map(|entry| {
            // Beside the cards there are files of the driver itself.
            let slot = entry.file_name().into_string().ok().filter(|name| name.contains(':'))?;
            let device = entry.path();
            let is_virtual = fs::symlink_metadata(device.join("physfn")).is_ok();
            (!is_virtual).then_some(SuspendableCard { device, slot })
        })
        .collect();
    if !cards.iter().all(|card| card.can_sleep(root)) {
        return Vec::new();
    }
    order::sort_by(&mut cards, |a, b| a.slot.cmp(&b.slot));
    cards
}

impl SuspendableCard {
    /// The kernel may suspend it, and its driver allows that. The driver is asked only while the card is awake.
    fn can_sleep(&self, root: &Path) -> bool {
        if read(&self.device, "power/control") != "auto" {
            return false;
        }
        match read(&self.device, "power/runtime_status").as_str() {
            "active" => {
                let power = root.join("proc/driver/nvidia/gpus").join(&self.slot).join("power");
                // `Runtime D3 status:          Enabled (fine-grained)`. Without the file it is tried.
                fs::read_to_string(power).map_or(true, |text| {
                    let status = text.lines().find_map(|line| line.strip_prefix("Runtime D3 status:"));
                    status.is_some_and(|status| status.trim().starts_with("Enabled"))
                })
            }
            status => matches!(status, "suspended" | "suspending" | "resuming"),
        }
    }

    /// A status that cannot be read is that of a card that is awake.
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(read(&self.device, "power/runtime_status").as_str(), "suspended" | "suspending")
    }

    /// What is known of it where its driver was never asked.
    pub(crate) fn unread(&self, index: u32) -> Gpu {
        let id = read(&self.device, "device");
        Gpu {
            index,
            name: (!id.is_empty()).then(|| format!("NVIDIA GPU (PCI device {id})")),
            // As NVML writes it: a domain of eight digits.
            pci_bus_id: Some(format!("0000{}", self.slot).to_ascii_uppercase()),
            asleep: true,
            ..Gpu::default()
        }
    }

    pub(crate) fn pci(&self) -> Option<PciId> {
        PciId::parse(&self.slot)
    }
}

/// A short file without its end of line; empty where it cannot be read.
fn read(device: &Path, file: &str) -> String {
    fs::read_to_string(device.join(file)).unwrap_or_default().trim().to_owned()
}
