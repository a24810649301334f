//! The cards of the kernel's driver amdgpu, in sysfs: which there are, and which of them are this worker's.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use crate::config::amd_gpus::AmdGpus;
use crate::sys::order;

/// A card of the driver amdgpu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AmdCard {
    /// Its folder on the PCI bus, below the root: `/sys/devices/pci0000:00/…/0000:03:00.0`.
    pub(crate) device: PathBuf,
    /// `0000:03:00.0`
    pub(crate) slot: String,
}

/// The cards that `wanted` chooses, by their place on the bus.
pub(crate) fn cards(root: &Path, wanted: AmdGpus) -> Vec<AmdCard> {
    if wanted == AmdGpus::Off {
        return Vec::new();
    }
    let entries = fs::read_dir(root.join("sys/class/drm")).into_iter().flatten().flatten();
    let mut found: Vec<AmdCard> = entries.filter_map(|entry| card(&entry.path())).collect();
    order::sort_by(&mut found, |a, b| a.slot.cmp(&b.slot));
    found
}

/// `card0`, not `card0-DP-1` nor `renderD128`.
fn card(entry: &Path) -> Option<AmdCard> {
    let number = entry.file_name()?.to_str()?.strip_prefix("card")?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let device = fs::canonicalize(entry.join("device")).ok()?;
    let is_ours = fs::read_to_string(device.join("vendor")).ok()?.trim() == "0x1002"
        && fs::read_link(device.join("driver")).ok()?.file_name()? == "amdgpu";
    let slot = device.file_name()?.to_str()?.to_owned();
    is_ours.then_some(AmdCard { device, slot })
}
