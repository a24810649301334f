//! What the host shows of its GPUs without NVML: the PCI bus, the device nodes, and whether they can be opened. And
//! where this process runs.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;

use super::amd_cards::{self, AmdGpus};
use super::bus;
use super::legacy::Legacy;
use super::pci::PciId;
use super::place::Place;
use super::runtime_power::{SuspendableCard, suspendable_cards};
use crate::gpu::host_facts::Node;
use crate::gpu::host_facts::{Access, HostFacts};
use crate::sys::{files, order};

/// Where this process runs; it does not change.
pub(crate) static PLACE: LazyLock<Place> = LazyLock::new(|| {
    // WSL is a host for its programs.
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "wsl");
    place_of(Path::new("/"), set("KUBERNETES_SERVICE_HOST"), set("container") || std::process::id() == 1)
});

/// `kubernetes`: its variable is set. `contained`: an environment variable says so (podman, LXC, systemd-nspawn), or
/// this is process 1, as in an image without an init.
fn place_of(root: &Path, kubernetes: bool, contained: bool) -> Place {
    const RUNTIMES: [&str; 6] = ["docker", "containerd", "kubepods", "libpod", "lxc", "machine.slice"];
    if kubernetes {
        return Place::Kubernetes;
    }
    let marked = || [".dockerenv", "run/.containerenv"].iter().any(|file| root.join(file).exists());
    let text = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let names_a_runtime = |text: &str| RUNTIMES.iter().any(|runtime| text.contains(runtime));
    let by_cgroup = || names_a_runtime(&text("proc/self/cgroup"));
    // The layers of the root file system lie in a directory of the runtime.
    let by_root = || {
        let mounts = text("proc/self/mountinfo");
        mounts.lines().any(|line| line.split(' ').nth(4) == Some("/") && names_a_runtime(line))
    };
    // Written by a systemd that runs in a container.
    let by_systemd = || !matches!(text("run/systemd/container").trim(), "" | "wsl");
    let contained = contained || marked() || by_cgroup() || by_root() || by_systemd();
    if contained { Place::Container } else { Place::Host }
}

/// Looks at the host below `root`, which is `/` or where the host's own /dev, /proc and /sys are mounted.
/// `amd`: AMD_GPUS.
pub(crate) fn look(root: &Path, amd: AmdGpus) -> HostFacts {
    let wsl = is_wsl(root);
    let cards = cards(root).filter(|_| !wsl);
    let count = |wanted: fn(&Card) -> bool| {
        let counted = cards.as_ref()?.iter().filter(|card| wanted(card)).count();
        u32::try_from(counted).ok()
    };
    let all = || cards.iter().flatten();
    let mut other_drivers: Vec<String> =
        all().filter(|card| !card.for_nvidia()).filter_map(|c| c.driver.clone()).collect();
    order::sort(&mut other_drivers);
    other_drivers.dedup();
    let (device_nodes, denied_nodes) = device_nodes(&root.join("dev")).unzip();
    HostFacts {
        pci_gpus: count(|_| true),
        pci_gpus_for_nvidia: count(Card::for_nvidia),
        unbound: all().filter(|card| card.driver.is_none()).filter_map(|card| card.place).collect(),
        other_drivers,
        legacy: Legacy::default(),
        amd_gpus: u32::try_from(amd_cards::cards(root, amd).len()).unwrap_or(u32::MAX),
        amd_off: amd == AmdGpus::Off && !amd_cards::cards(root, AmdGpus::Auto).is_empty(),
        amd_unbound: if amd == AmdGpus::Off { Vec::new() } else { amd_unbound(root) },
        device_nodes,
        denied_nodes: denied_nodes.unwrap_or(0),
        in_container: in_container(&fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default()),
        place: *PLACE,
        access: if wsl { Access::Untested } else { access(&root.join("dev/nvidiactl")) },
    }
}

/// The number of NVIDIA's display devices on the PCI bus; None where the bus cannot be seen.
pub(crate) fn count_cards(root: &Path) -> Option<u32> {
    u32::try_from(cards(root)?.len()).ok()
}

/// Whether this process was given all of the machine's cards of NVIDIA's driver: a container sees the others on the bus.
pub(crate) fn has_all_cards(root: &Path, cards: usize) -> bool {
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    !in_container(&mounts) || device_nodes(&root.join("dev")).is_some_and(|(nodes, _)| nodes as usize == cards)
}

/// There is a card for NVIDIA's driver, or the bus cannot be seen.
pub(crate) fn has_cards_for_nvidia(root: &Path) -> bool {
    cards(root).is_none_or(|cards| cards.iter().any(Card::for_nvidia))
}

#[cfg(test)]
const DEVICES: &str = "sys/bus/pci/devices";

/// WSL passes its GPU through /dev/dxg; it has no device on the bus and no NVIDIA nodes.
pub(crate) fn is_wsl(root: &Path) -> bool {
    root.join("dev/dxg").exists()
}

/// The kernel module's version text, where it is loaded.
pub(crate) fn driver(root: &Path) -> Option<String> {
    fs::read_to_string(root.join("proc/driver/nvidia/version")).ok()
}

/// NVIDIA's device nodes, by name. Those of GPUs are left out while one sleeps: opening one would wake it.
pub(crate) fn nodes(root: &Path) -> Vec<Node> {
    let asleep = suspendable_cards(root).iter().any(SuspendableCard::is_asleep);
    let entries = fs::read_dir(root.join("dev")).into_iter().flatten().flatten();
    let mut all: Vec<Node> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("nvidia"))?;
            if asleep && is_gpu_node(&name) {
                return None;
            }
            let meta = entry.metadata().ok().filter(|meta| !meta.is_dir())?;
            let access = access(&entry.path());
            Some(Node { name, mode: meta.mode(), uid: meta.uid(), gid: meta.gid(), access })
        })
        .collect();
    order::sort_by(&mut all, |a, b| a.name.cmp(&b.name));
    all
}

/// A display controller of NVIDIA on the PCI bus.
#[derive(Debug)]
struct Card {
    place: Option<PciId>,
    /// The driver that has it, or that it is reserved for.
    driver: Option<String>,
}

impl Card {
    fn for_nvidia(&self) -> bool {
        bus::is_for_nvidia(self.driver.as_deref())
    }
}

/// Display controllers of NVIDIA; None where the bus cannot be seen. Their number separates "no GPU in the machine" from "no
/// GPU given to the container".
fn cards(root: &Path) -> Option<Vec<Card>> {
    let devices = bus::devices(root, bus::NVIDIA, &["0x03"])?;
    Some(devices.iter().map(|device| card(device)).collect())
}

fn card(device: &Path) -> Card {
    Card { place: place(device), driver: bus::driver_of(device) }
}

/// A short file without the line's end; empty where it cannot be read.
fn read(device: &Path, file: &str) -> String {
    fs::read_to_string(device.join(file)).unwrap_or_default().trim().to_owned()
}

/// Cards of AMD that no driver has, and that are reserved for none. A GPU in the processor does not count: operators who do
/// not want it leave it without a driver. Accelerators (class 0x12) are cards, and so is what is behind the switch that AMD
/// builds into its cards since Vega.
fn amd_unbound(root: &Path) -> Vec<PciId> {
    const SWITCHES: [(&str, &str); 2] = [("0x1002", "0x1478"), ("0x1022", "0x1470")];
    let is_card = |device: &Path| {
        let upstream = || {
            let device = fs::canonicalize(device).ok()?;
            let bridge = device.parent()?.parent()?;
            Some((read(bridge, "vendor"), read(bridge, "device")))
        };
        let in_switch = |(vendor, id): (String, String)| SWITCHES.contains(&(vendor.as_str(), id.as_str()));
        read(device, "class").starts_with("0x12") || upstream().is_some_and(in_switch)
    };
    let mut unbound: Vec<PciId> = bus::devices(root, bus::AMD, &["0x03", "0x12"])
        .unwrap_or_default()
        .iter()
        .filter(|device| bus::driver_of(device).is_none() && is_card(device))
        .filter_map(|device| place(device))
        .collect();
    order::sort(&mut unbound);
    unbound
}

fn place(device: &Path) -> Option<PciId> {
    PciId::parse(device.file_name()?.to_str()?)
}

/// `nvidia0`, `nvidia1` and so on, and how many of these the kernel denies; None where /dev cannot be read. Some containers
/// have the nodes of all GPUs, and may open their own.
fn device_nodes(dev: &Path) -> Option<(u32, u32)> {
    let nodes = fs::read_dir(dev).ok()?.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_gpu_node));
    let (denied, given): (Vec<_>, Vec<_>) = nodes.partition(|node| files::is_denied(&node.path()));
    u32::try_from(given.len()).ok().zip(u32::try_from(denied.len()).ok())
}

fn is_gpu_node(name: &str) -> bool {
    name.strip_prefix("nvidia").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// Only the kernel's own /dev is a devtmpfs; a container gets one that was made for it.
fn in_container(mountinfo: &str) -> bool {
    let on_dev = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/dev"));
    let kind = on_dev.filter_map(|line| line.split(" - ").nth(1)?.split(' ').next()).next_back();
    kind != Some("devtmpfs")
}

/// Access to a device is checked when it is opened: a library that has it open does not notice.
fn access(node: &Path) -> Access {
    // A pipe in the place of a device must not be waited for.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(node) {
        Ok(_) => Access::Open,
        Err(why) => access_error(&why),
    }
}

fn access_error(why: &io::Error) -> Access {
    match why.raw_os_error() {
        Some(code) if code == rustix::io::Errno::PERM.raw_os_error() => Access::Revoked,
        _ if why.kind() == io::ErrorKind::NotFound => Access::Untested,
        _ if why.kind() == io::ErrorKind::PermissionDenied => Access::Refused(why.to_string()),
        _ => Access::Failed(why.to_string()),
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
    let host = look(&root, AmdGpus::Auto);
    assert_eq!((count_cards(&root), host.pci_gpus, host.pci_gpus_for_nvidia), (Some(8), Some(8), Some(2)));
    assert_eq!(host.unbound, [PciId::parse("0000:07:00.0").unwrap()]);
    assert_eq!(host.other_drivers, ["nouveau", "nvidiafb", "pci-stub", "vfio-pci", "xen-pciback"]);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!((count_cards(&root), look(&root, AmdGpus::Auto).pci_gpus_for_nvidia), (None, None));
}

#[test]
fn cards_of_amd_count_when_they_have_no_driver() {
    let root = tree("amd-pci");
    let bus = root.join(DEVICES);
    fs::create_dir_all(&bus).unwrap();
    // Vendor, device, class and driver; empty: none.
    let device = |path: &str, [vendor, id, class, driver]: [&str; 4]| {
        let device = root.join("sys/devices/pci0000:00").join(path);
        fs::create_dir_all(&device).unwrap();
        for (file, text) in [("vendor", vendor), ("device", id), ("class", class)] {
            fs::write(device.join(file), format!("{text}\n")).unwrap();
        }
        if !driver.is_empty() {
            std::os::unix::fs::symlink(format!("../drivers/{driver}"), device.join("driver")).unwrap();
        }
        std::os::unix::fs::symlink(&device, bus.join(device.file_name().unwrap())).unwrap();
    };
    // Behind the switch in the card, bound and unbound; of a virtual machine; in the processor; an accelerator.
    for (root_port, driver) in [(1, ""), (2, "amdgpu"), (3, "vfio-pci")] {
        let port = format!("0000:00:0{root_port}.0");
        let upstream = format!("{port}/0000:{root_port}1:00.0");
        device(&port, ["0x1022", "0x1634", "0x060400", "pcieport"]);
        device(&upstream, ["0x1002", "0x1478", "0x060400", "pcieport"]);
        let downstream = format!("{upstream}/0000:{root_port}2:00.0");
        device(&downstream, ["0x1002", "0x1479", "0x060400", "pcieport"]);
        device(&format!("{downstream}/0000:{root_port}3:00.0"), ["0x1002", "0x73bf", "0x030000", driver]);
        device(&format!("{downstream}/0000:{root_port}3:00.1"), ["0x1002", "0xab28", "0x040300", ""]);
    }
    device("0000:00:08.1", ["0x1022", "0x14eb", "0x060400", "pcieport"]);
    device("0000:00:08.1/0000:c4:00.0", ["0x1002", "0x15bf", "0x030000", ""]);
    device("0000:00:09.0", ["0x1022", "0x1634", "0x060400", "pcieport"]);
    device("0000:00:09.0/0000:05:00.0", ["0x1002", "0x74a1", "0x120000", ""]);
    let places = ["0000:05:00.0", "0000:13:00.0"].map(|place| PciId::parse(place).unwrap());
    let host = look(&root, AmdGpus::Auto);
    assert_eq!((host.amd_unbound.as_slice(), host.pci_gpus), (&places[..], Some(0)));
    assert_eq!(look(&root, AmdGpus::Off).amd_unbound, []);
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn device_nodes_are_counted_by_their_numbers() {
    let root = tree("nodes");
    for name in ["nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia", "null"] {
        fs::write(root.join(name), "").unwrap();
    }
    assert_eq!(device_nodes(&root), Some((2, 0)));
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
    let os = |code: rustix::io::Errno| access_error(&io::Error::from_raw_os_error(code.raw_os_error()));
    assert_eq!(os(rustix::io::Errno::PERM), Access::Revoked);
    assert_eq!(os(rustix::io::Errno::NOENT), Access::Untested);
    assert!(matches!(os(rustix::io::Errno::ACCESS), Access::Refused(_)));
    assert!(matches!(os(rustix::io::Errno::NXIO), Access::Failed(_)));
}

#[test]
fn a_container_is_recognized_by_what_its_runtime_leaves() {
    let root = tree("place");
    let check = |kubernetes, contained, expect| assert_eq!(place_of(&root, kubernetes, contained), expect);
    check(false, false, Place::Host);
    check(true, false, Place::Kubernetes);
    check(false, true, Place::Container);
    for mark in [".dockerenv", "run/.containerenv"] {
        fs::create_dir_all(root.join("run")).unwrap();
        fs::write(root.join(mark), "").unwrap();
        check(false, false, Place::Container);
        fs::remove_file(root.join(mark)).unwrap();
    }
    fs::create_dir_all(root.join("proc/self")).unwrap();
    for (cgroup, expect) in [
        ("0::/system.slice/agent-net.service\n", Place::Host),
        ("0::/user.slice/user-1000.slice/session-1.scope\n", Place::Host),
        ("0::/\n", Place::Host),
        ("4:memory:/docker/0123abcd\n", Place::Container),
        ("0::/kubepods.slice/kubepods-pod1.slice\n", Place::Container),
    ] {
        fs::write(root.join("proc/self/cgroup"), cgroup).unwrap();
        check(false, false, expect);
    }
    fs::write(root.join("proc/self/cgroup"), "0::/\n").unwrap();
    // With an init the worker is not process 1.
    let layers = "lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs";
    for (mounts, expect) in [
        (format!("700 699 0:55 / / rw,relatime - overlay overlay rw,{layers}\n"), Place::Container),
        ("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n".into(), Place::Host),
        (format!("30 22 0:55 / /run/containerd/7/rootfs rw - overlay overlay rw,{layers}\n"), Place::Host),
    ] {
        fs::write(root.join("proc/self/mountinfo"), mounts).unwrap();
        check(false, false, expect);
    }
    // A service of an LXC or nspawn container has none of these; its systemd says where it runs.
    fs::create_dir_all(root.join("run/systemd")).unwrap();
    for (name, expect) in [("lxc\n", Place::Container), ("systemd-nspawn", Place::Container), ("wsl", Place::Host)] {
        fs::write(root.join("run/systemd/container"), name).unwrap();
        check(false, false, expect);
    }
    fs::remove_dir_all(&root).unwrap();
}
