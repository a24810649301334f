//! Devices on the PCI bus, in sysfs.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const NVIDIA: &str = "0x10de";
pub(crate) const AMD: &str = "0x1002";

/// Devices of a vendor whose class begins with one of `classes` (0x03: display controllers, 0x12: accelerators); None where
/// the bus cannot be seen. A container sees the host's bus. Virtual functions (SR-IOV) are parts of another device, meant for
/// virtual machines.
pub(crate) fn devices(root: &Path, vendor: &str, classes: &[&str]) -> Option<Vec<PathBuf>> {
    let read = |device: &Path, file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
    let all = fs::read_dir(root.join("sys/bus/pci/devices")).ok()?.flatten().map(|entry| entry.path());
    let wanted = all.filter(|device| {
        let class = read(device, "class");
        let ours = read(device, "vendor").trim() == vendor && classes.iter().any(|start| class.starts_with(start));
        ours && !is_virtual(device)
    });
    Some(wanted.collect())
}

/// It is a virtual function of another device.
pub(crate) fn is_virtual(device: &Path) -> bool {
    fs::symlink_metadata(device.join("physfn")).is_ok()
}

/// The name of the driver that has the device, else of the one that it is reserved for.
pub(crate) fn driver_of(device: &Path) -> Option<String> {
    let bound = fs::read_link(device.join("driver")).ok();
    if let Some(name) = bound.as_deref().and_then(Path::file_name) {
        return Some(name.to_string_lossy().into_owned());
    }
    let reserved = fs::read_to_string(device.join("driver_override")).ok()?;
    Some(reserved.trim().to_owned()).filter(|name| !name.is_empty() && name != "(null)")
}

/// A card of NVIDIA has NVIDIA's driver or none: one that is passed to a virtual machine (vfio-pci, pci-stub, xen-pciback)
/// or runs on another driver (nouveau, nvidiafb) is not missing, and no model runs on it here.
pub(crate) fn is_for_nvidia(driver: Option<&str>) -> bool {
    driver.is_none_or(|driver| driver == "nvidia")
}
