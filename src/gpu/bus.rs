//! Devices on the PCI bus, in sysfs.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const NVIDIA: &str = "0x10de";
pub(crate) const AMD: &str = "0x1002";

/// The display controllers (class 0x03xxxx) of a vendor; None where the bus cannot be seen. A container sees the host's bus.
/// Virtual functions (SR-IOV) are parts of another device, meant for virtual machines.
pub(crate) fn display_controllers(root: &Path, vendor: &str) -> Option<Vec<PathBuf>> {
    let read = |device: &Path, file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
    let devices = fs::read_dir(root.join("sys/bus/pci/devices")).ok()?.flatten().map(|entry| entry.path());
    let display = devices.filter(|device| {
        let ours = read(device, "vendor").trim() == vendor && read(device, "class").starts_with("0x03");
        ours && !is_virtual(device)
    });
    Some(display.collect())
}

/// It is a virtual function of another device.
pub(crate) fn is_virtual(device: &Path) -> bool {
    fs::symlink_metadata(device.join("physfn")).is_ok()
}
