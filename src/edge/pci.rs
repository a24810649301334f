//! NVIDIA devices on the PCI bus, seen without any driver.

use std::fs;
use std::path::Path;

/// Display controllers of NVIDIA (vendor 0x10de, class 0x03xxxx) in sysfs; None when nobody can look.
/// A container sees the host's bus, so this tells "no GPU in the machine" from "no GPU given to the container".
/// WSL lends its GPU through /dev/dxg and shows no device on the bus.
pub(crate) fn nvidia_gpus() -> Option<u32> {
    if Path::new("/dev/dxg").exists() {
        return None;
    }
    count(Path::new("/sys/bus/pci/devices"))
}

fn count(devices: &Path) -> Option<u32> {
    let read = |device: &Path, file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
    let mut count = 0;
    for device in fs::read_dir(devices).ok()?.flatten().map(|entry| entry.path()) {
        if read(&device, "vendor").trim() == "0x10de" && read(&device, "class").starts_with("0x03") {
            count += 1;
        }
    }
    Some(count)
}

#[test]
fn only_nvidia_display_controllers_count() {
    let root = std::env::temp_dir().join(format!("agent-net-pci-{}", std::process::id()));
    let devices =
        [("0x10de", "0x030000"), ("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000"), ("", "")];
    for (i, (vendor, class)) in devices.iter().enumerate() {
        let device = root.join(i.to_string());
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(device.join("class"), format!("{class}\n")).unwrap();
    }
    assert_eq!(count(&root), Some(2));
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(count(&root), None);
}
