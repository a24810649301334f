//! The cards of the kernel's driver amdgpu, in sysfs: which there are, and which of them are this worker's.

use std::fs;
use std::path::{Path, PathBuf};

use super::bus;
pub(crate) use crate::config::amd_gpus::AmdGpus;
use crate::sys::{files, order};

/// A card of the driver amdgpu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AmdCard {
    /// Its folder on the PCI bus, below the root: `/sys/devices/pci0000:00/…/0000:03:00.0`.
    pub(crate) device: PathBuf,
    /// `0000:03:00.0`
    pub(crate) slot: String,
    /// It is a part of the processor, and uses the machine's memory.
    pub(crate) integrated: bool,
}

impl AmdCard {
    /// False where it is off the bus, or its driver has let go of it.
    #[cfg(feature = "nvml")]
    pub(crate) fn has_driver(&self) -> bool {
        fs::symlink_metadata(self.device.join("driver")).is_ok()
    }
}

/// The cards that `wanted` chooses, by their place on the bus. In a container that may use some of the render nodes only
/// their cards count.
pub(crate) fn cards(root: &Path, wanted: AmdGpus) -> Vec<AmdCard> {
    if wanted == AmdGpus::Off {
        return Vec::new();
    }
    let nodes = root.join("dev/dri");
    let mut given = names(&nodes, "renderD");
    given.retain(|node| !files::is_denied(&nodes.join(node)));
    let ours = |card: &AmdCard| {
        let own = names(&card.device.join("drm"), "renderD");
        given.is_empty() || own.iter().any(|node| given.contains(node))
    };
    let drm = root.join("sys/class/drm");
    let found = names(&drm, "card").into_iter().filter_map(|name| card(&drm.join(name).join("device")));
    let mut found: Vec<AmdCard> = found.filter(ours).collect();
    order::sort_by(&mut found, |a, b| a.slot.cmp(&b.slot));
    if wanted == AmdGpus::Auto && found.iter().any(|card| card.integrated) {
        // Most processors of a desktop have one, and models run on the card.
        let is_ours = |device: &PathBuf| bus::is_for_nvidia(bus::driver_of(device).as_deref());
        let nvidia = || bus::devices(root, bus::NVIDIA, &["0x03"]).is_some_and(|all| all.iter().any(is_ours));
        if found.iter().any(|card| !card.integrated) || nvidia() {
            found.retain(|card| !card.integrated);
        }
    }
    found
}

/// Entries that are `prefix` and a number: `card0`, not `card0-DP-1`.
fn names(folder: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = |name: &String| {
        name.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(numbered).collect()
}

fn card(link: &Path) -> Option<AmdCard> {
    let device = fs::canonicalize(link).ok()?;
    let is_amd = fs::read_to_string(device.join("vendor")).ok()?.trim() == bus::AMD;
    let by_amdgpu = fs::read_link(device.join("driver")).ok()?.file_name()? == "amdgpu";
    let slot = device.file_name()?.to_str()?.to_owned();
    let integrated = is_integrated(&device);
    (is_amd && by_amdgpu && !bus::is_virtual(&device)).then_some(AmdCard { device, slot, integrated })
}

/// Whether it is a part of the processor, which the kernel does not say. Each of these files exists only for cards, but none
/// for all of them. Older kernels make the first two for all GPUs, and leave them empty. Reading them never asks the chip,
/// which could wake it, or hang.
fn is_integrated(device: &Path) -> bool {
    let says = |file: &str| {
        let text = fs::read_to_string(device.join(file)).unwrap_or_default();
        !matches!(text.trim(), "" | "unknown")
    };
    let has = |folder: &Path, files: &[&str]| files.iter().any(|file| folder.join(file).exists());
    let of_card = says("product_name")
        || says("mem_info_vram_vendor")
        || has(device, &["board_info", "mem_busy_percent"])
        || hwmon(device).is_some_and(|hwmon| has(&hwmon, &["temp2_input", "fan1_input"]));
    !of_card && has(device, &["mem_info_gtt_total"])
}

/// The folder of its sensors.
pub(crate) fn hwmon(device: &Path) -> Option<PathBuf> {
    let folder = device.join("hwmon");
    let mut found = names(&folder, "hwmon").into_iter().map(|name| folder.join(name));
    found.find(|hwmon| fs::read_to_string(hwmon.join("name")).is_ok_and(|name| name.trim() == "amdgpu"))
}
