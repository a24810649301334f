//! What the machine shows of its GPUs without NVML: the PCI bus, the device nodes, and whether they can be opened.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::legacy::Legacy;
use super::pci::PciId;
use crate::gpu::surroundings::Node;
use crate::gpu::surroundings::{Access, Surroundings};

/// Looks around below `root`, which is `/` or where the machine's own /dev, /proc and /sys are mounted.
pub(crate) fn look(root: &Path) -> Surroundings {
    let wsl = is_wsl(root);
    let cards = cards(root).filter(|_| !wsl);
    let count = |wanted: fn(&Card) -> bool| {
        let counted = cards.as_ref()?.iter().filter(|card| wanted(card)).count();
        u32::try_from(counted).ok()
    };
    let all = || cards.iter().flatten();
    let mut other_drivers: Vec<String> =
        all().filter(|card| !card.for_nvidia()).filter_map(|c| c.driver.clone()).collect();
    other_drivers.sort();
    other_drivers.dedup();
    Surroundings {
        pci_gpus: count(|_| true),
        pci_gpus_for_nvidia: count(Card::for_nvidia),
        unbound: all().filter(|card| card.driver.is_none()).filter_map(|card| card.place).collect(),
        other_drivers,
        legacy: Legacy::default(),
        device_nodes: device_nodes(&root.join("dev")),
        in_container: in_container(&fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default()),
        access: if wsl { Access::Untested } else { access(&root.join("dev/nvidiactl")) },
    }
}

/// The number of NVIDIA's display devices on the PCI bus; None where the bus cannot be seen.
pub(crate) fn count_cards(root: &Path) -> Option<u32> {
    u32::try_from(cards(root)?.len()).ok()
}

const DEVICES: &str = "sys/bus/pci/devices";

/// WSL lends its GPU through /dev/dxg; it shows no device on the bus and has no NVIDIA nodes.
pub(crate) fn is_wsl(root: &Path) -> bool {
    root.join("dev/dxg").exists()
}

/// The kernel module's own words, where it is loaded.
pub(crate) fn driver(root: &Path) -> Option<String> {
    fs::read_to_string(root.join("proc/driver/nvidia/version")).ok()
}

/// All of NVIDIA's device nodes, by name.
pub(crate) fn nodes(root: &Path) -> Vec<Node> {
    let entries = fs::read_dir(root.join("dev")).into_iter().flatten().flatten();
    let mut all: Vec<Node> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("nvidia"))?;
            let meta = entry.metadata().ok().filter(|meta| !meta.is_dir())?;
            let access = access(&entry.path());
            Some(Node { name, mode: meta.mode(), uid: meta.uid(), gid: meta.gid(), access })
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// A display controller of NVIDIA on the PCI bus.
#[derive(Debug)]
struct Card {
    place: Option<PciId>,
    /// The driver that has it, or the one that it is reserved for.
    driver: Option<String>,
}

impl Card {
    /// It has NVIDIA's driver or none: one that was lent to a virtual machine (vfio-pci, pci-stub, xen-pciback) or runs
    /// on another driver (nouveau, nvidiafb) is not missing.
    fn for_nvidia(&self) -> bool {
        self.driver.as_deref().is_none_or(|driver| driver == "nvidia")
    }
}

/// Display controllers of NVIDIA (vendor 0x10de, class 0x03xxxx) in sysfs; None where the bus cannot be seen.
/// Virtual functions (SR-IOV) are parts of another one, meant for virtual machines.
/// A container sees the host's bus, so this tells "no GPU in the machine" from "no GPU given to the container".
fn cards(root: &Path) -> Option<Vec<Card>> {
    let read = |device: &Path, file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
    let devices = fs::read_dir(root.join(DEVICES)).ok()?.flatten().map(|entry| entry.path());
    let display = devices.filter(|device| {
        let ours = read(device, "vendor").trim() == "0x10de" && read(device, "class").starts_with("0x03");
        ours && fs::symlink_metadata(device.join("physfn")).is_err()
    });
    Some(display.map(|device| Card { place: place(&device), driver: driver_of(&device) }).collect())
}

fn place(device: &Path) -> Option<PciId> {
    PciId::parse(device.file_name()?.to_str()?)
}

/// The name of the driver that has the device, else of the one that it is reserved for.
fn driver_of(device: &Path) -> Option<String> {
    let bound = fs::read_link(device.join("driver")).ok();
    if let Some(name) = bound.as_deref().and_then(Path::file_name) {
        return Some(name.to_string_lossy().into_owned());
    }
    let reserved = fs::read_to_string(device.join("driver_override")).ok()?;
    Some(reserved.trim().to_owned()).filter(|name| !name.is_empty() && name != "(null)")
}

/// `nvidia0`, `nvidia1` and so on; None where /dev cannot be read.
fn device_nodes(dev: &Path) -> Option<u32> {
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let nodes = fs::read_dir(dev).ok()?.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_gpu));
    u32::try_from(nodes.count()).ok()
}

/// Only the kernel's own device folder is of the type devtmpfs; containers get one that was made for them.
fn in_container(mountinfo: &str) -> bool {
    let on_dev = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/dev"));
    let kind = on_dev.filter_map(|line| line.split(" - ").nth(1)?.split(' ').next()).next_back();
    kind != Some("devtmpfs")
}

/// The right to a device is checked when it is opened: a library that has it open already notices nothing.
fn access(node: &Path) -> Access {
    // What is no device but a pipe must not be waited for.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(node) {
        Ok(_) => Access::Open,
        Err(why) => judge(&why),
    }
}

fn judge(why: &io::Error) -> Access {
    match why.raw_os_error() {
        Some(code) if code == rustix::io::Errno::PERM.raw_os_error() => Access::Revoked,
        _ if why.kind() == io::ErrorKind::NotFound => Access::Untested,
        _ => Access::Refused(why.to_string()),
    }
}

#[cfg(test)]
fn tree(name: &str) -> std::path::PathBuf {
    let root = std::env::temp_dir().join(format!("agent-net-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).unwrap();
    root
}

#[test]
fn only_nvidia_display_controllers_count() {
    let root = tree("pci");
    /// Vendor, class, driver, the driver that it is reserved for, and whether it is a virtual function.
    type Row = (&'static str, &'static str, Option<&'static str>, &'static str, bool);
    let devices: &[Row] = &[
        ("0x10de", "0x030000", Some("nvidia"), "(null)", false),
        ("0x10de", "0x030200", Some("vfio-pci"), "vfio-pci", false),
        ("0x10de", "0x030000", Some("nouveau"), "", false),
        ("0x10de", "0x030000", Some("nvidiafb"), "", false),
        ("0x10de", "0x030200", Some("pci-stub"), "", false),
        ("0x10de", "0x030200", Some("xen-pciback"), "", false),
        ("0x10de", "0x030200", None, "vfio-pci", false),
        ("0x10de", "0x030200", None, "(null)", false),
        ("0x10de", "0x030200", Some("nvidia"), "", true),
        ("0x10de", "0x030200", None, "", true),
        ("0x10de", "0x040300", None, "", false),
        ("0x8086", "0x030000", None, "", false),
        ("", "", None, "", false),
    ];
    for (i, (vendor, class, driver, reserved, virtual_function)) in devices.iter().enumerate() {
        let device = root.join(DEVICES).join(format!("0000:{i:02x}:00.0"));
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(device.join("class"), format!("{class}\n")).unwrap();
        fs::write(device.join("driver_override"), format!("{reserved}\n")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, device.join(name)).unwrap();
        if let Some(driver) = driver {
            link(&format!("../../../bus/pci/drivers/{driver}"), "driver");
        }
        if *virtual_function {
            // It may point to nothing where only a part of /sys is to be seen.
            link("../0000:00:00.0", "physfn");
        }
    }
    let around = look(&root);
    assert_eq!((count_cards(&root), around.pci_gpus, around.pci_gpus_for_nvidia), (Some(8), Some(8), Some(2)));
    assert_eq!(around.unbound, [PciId::parse("0000:07:00.0").unwrap()]);
    assert_eq!(around.other_drivers, ["nouveau", "nvidiafb", "pci-stub", "vfio-pci", "xen-pciback"]);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!((count_cards(&root), look(&root).pci_gpus_for_nvidia), (None, None));
}

#[test]
fn device_nodes_are_counted_by_their_numbers() {
    let root = tree("nodes");
    for name in ["nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia", "null"] {
        fs::write(root.join(name), "").unwrap();
    }
    assert_eq!(device_nodes(&root), Some(2));
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_container_has_a_device_folder_of_its_own() {
    let host =
        "22 1 0:5 / /dev rw,nosuid shared:8 - devtmpfs udev rw,size=1k\n30 22 0:9 / /dev/pts rw - devpts devpts rw";
    assert!(!in_container(host));
    assert!(in_container("700 699 0:55 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755"));
    assert!(in_container(""));
}

#[test]
fn why_a_node_cannot_be_opened() {
    let os = |code: rustix::io::Errno| judge(&io::Error::from_raw_os_error(code.raw_os_error()));
    assert_eq!(os(rustix::io::Errno::PERM), Access::Revoked);
    assert_eq!(os(rustix::io::Errno::NOENT), Access::Untested);
    assert!(matches!(os(rustix::io::Errno::ACCESS), Access::Refused(_)));
    assert!(matches!(os(rustix::io::Errno::NXIO), Access::Refused(_)));
}
