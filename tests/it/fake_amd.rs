//! A machine with AMD GPUs: a tree of files laid out like the kernel's, for HOST_ROOT. Cards can be pulled and plugged in,
//! put to sleep, and their files can fail, hang or change.

pub mod boards;
pub mod more_boards;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, folder};

pub use boards::{Board, Link, NOTHING};

pub const EPERM: i32 = 1;
pub const EIO: i32 = 5;
pub const EBUSY: i32 = 16;
pub const ENODEV: i32 = 19;
pub const EINVAL: i32 = 22;
pub const EOPNOTSUPP: i32 = 95;

/// A link of Gen 4 with all lanes.
const FULL: [&str; 4] = ["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"];

/// An Ollama that runs no model: what the GPUs report is all there is to judge.
pub fn idle_ollama() -> FakeOllama {
    let ollama = FakeOllama::new();
    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    ollama
}

/// preload.rs, compiled once a run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = folder("amd-preload").join("libamd.so");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
        rustc.arg(&library).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_amd/preload.rs"));
        let output = rustc.output().expect("rustc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        library
    })
}

/// One machine.
pub struct FakeAmd {
    root: PathBuf,
    boards: Vec<Board>,
    /// The file of the orders.
    control: String,
    /// What happens at reads: path and order, see preload.rs.
    orders: RefCell<Vec<(PathBuf, String)>>,
}

/// A card of the machine.
#[derive(Clone, Copy)]
pub struct Card<'a> {
    machine: &'a FakeAmd,
    number: usize,
}

impl FakeAmd {
    /// A machine with these cards, by their place on the bus.
    pub fn new(boards: &[Board]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = folder(&format!("amd-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let root = fs::canonicalize(root).unwrap();
        let control = format!("{}/control", root.display());
        let machine = Self { root, boards: boards.to_vec(), control, orders: RefCell::default() };
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.11.0-29-generic"),
            ("proc/self/mountinfo", "22 1 0:5 / /dev rw - devtmpfs udev rw"),
            ("proc/meminfo", "MemTotal:       32781248 kB\nMemFree:  1000000 kB\nMemAvailable:   20281248 kB"),
            ("dev/kfd", ""),
            ("sys/class/drm/version", "drm 1.1.0 20060810"),
        ] {
            machine.write(path, text);
        }
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers/amdgpu", "dev/dri"] {
            fs::create_dir_all(machine.root.join(folder)).unwrap();
        }
        machine.cards().for_each(Card::build);
        machine
    }

    pub fn root(&self) -> &str {
        self.root.to_str().unwrap()
    }

    pub fn card(&self, number: usize) -> Card<'_> {
        Card { machine: self, number }
    }

    fn cards(&self) -> impl Iterator<Item = Card<'_>> {
        (0..self.boards.len()).map(|number| self.card(number))
    }

    /// A file of the machine, at once: a reader sees the old text or the new one. The kernel ends it with a line feed.
    pub fn write(&self, path: &str, text: &str) {
        let (path, new) = (self.root.join(path), self.root.join("new"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&new, if text == NOTHING { String::new() } else { format!("{text}\n") }).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// A link from one path of the machine to another one, as the kernel writes it: relative.
    pub fn link(&self, from: &str, to: &str) {
        let at = self.root.join(from);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let up = "../".repeat(from.matches('/').count());
        std::os::unix::fs::symlink(format!("{up}{to}"), at).unwrap();
    }

    /// A card of NVIDIA on the bus, with its driver and its device node.
    pub fn add_nvidia(&self) {
        let device = "sys/devices/pci0000:00/0000:00:1b.0/0000:41:00.0";
        let files = [("vendor", "0x10de"), ("device", "0x2684"), ("class", "0x030000")];
        files.iter().for_each(|(name, text)| self.write(&format!("{device}/{name}"), text));
        self.link(&format!("{device}/driver"), "sys/bus/pci/drivers/nvidia");
        self.link("sys/bus/pci/devices/0000:41:00.0", device);
        self.write("dev/nvidia0", "");
        self.write("dev/nvidiactl", "");
    }

    /// The worker's settings for this machine. NVML is not named: it is asked where the bus shows a card of NVIDIA.
    pub fn settings(&self) -> [(&'static str, &str); 4] {
        let library = library().to_str().unwrap();
        [("HOST_ROOT", self.root()), ("NVML_LIB", ""), ("LD_PRELOAD", library), ("FAKE_AMD", &self.control)]
    }

    /// A worker on this machine.
    pub fn start(&self, ollama: &FakeOllama, more: &[(&str, &str)]) -> Worker {
        let url = ollama.url();
        Worker::start(&[&self.settings()[..], &[("OLLAMA_URL", &url)], more].concat())
    }

    /// All files of sysfs that the helper opened so far, oldest first, below the root.
    pub fn opened(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("control.opened")).unwrap_or_default();
        let below = |line: &str| line.strip_prefix(self.root()).unwrap().trim_start_matches('/').to_owned();
        // The end of the last line may not be there yet.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(below).collect()
    }

    fn order(&self, path: PathBuf, order: Option<String>) {
        let mut orders = self.orders.borrow_mut();
        orders.retain(|(other, _)| *other != path);
        orders.extend(order.map(|order| (path, order)));
        let text: Vec<String> = orders.iter().map(|(path, order)| format!("{} {order}", path.display())).collect();
        drop(orders);
        self.write("control", &text.join("\n"));
    }
}

impl Card<'_> {
    fn board(self) -> Board {
        self.machine.boards[self.number]
    }

    /// `0000:03:00.0`
    pub fn slot(self) -> String {
        let bus = if self.board().link == Link::Inside { 0xc3 + self.number } else { 3 + 4 * self.number };
        format!("0000:{bus:02x}:00.0")
    }

    /// The port that the processor gives, below the root.
    fn root_port(self) -> String {
        match self.board().link {
            Link::Inside => "sys/devices/pci0000:00/0000:00:08.1".into(),
            _ => format!("sys/devices/pci0000:00/0000:00:{:02x}.1", self.number + 1),
        }
    }

    /// The folders of the two ports of its switch.
    fn ports(self) -> [String; 2] {
        let outer = format!("{}/0000:{:02x}:00.0", self.root_port(), 1 + 4 * self.number);
        let inner = format!("{outer}/0000:{:02x}:00.0", 2 + 4 * self.number);
        [outer, inner]
    }

    /// Its folder, below the root.
    pub fn folder(self) -> String {
        let above = match self.board().link {
            Link::Switch(_) => self.ports()[1].clone(),
            Link::Direct | Link::Inside => self.root_port(),
        };
        format!("{above}/{}", self.slot())
    }

    fn sensors(self) -> String {
        format!("hwmon/hwmon{}", 3 + self.number)
    }

    /// `H/` is the folder of its sensors, `S/` that of its switch's outer port, `R/` that of the processor's port.
    pub fn path(self, file: &str) -> String {
        match file.split_once('/') {
            Some(("H", name)) => format!("{}/{}/{name}", self.folder(), self.sensors()),
            Some(("S", name)) => format!("{}/{name}", self.ports()[0]),
            Some(("R", name)) => format!("{}/{name}", self.root_port()),
            _ => format!("{}/{file}", self.folder()),
        }
    }

    pub fn set(self, file: &str, text: &str) {
        self.machine.write(&self.path(file), text);
    }

    pub fn remove(self, file: &str) {
        fs::remove_file(self.machine.root.join(self.path(file))).unwrap();
    }

    fn order(self, file: &str, order: Option<String>) {
        self.machine.order(self.machine.root.join(self.path(file)), order);
    }

    /// Reads of the file fail with this error.
    pub fn fail(self, file: &str, errno: i32) {
        self.order(file, Some(format!("errno {errno}")));
    }

    /// Reads of the file do not return until [`Card::heal`].
    pub fn hang(self, file: &str) {
        self.order(file, Some("hang".into()));
    }

    /// Reads of the file work again.
    pub fn heal(self, file: &str) {
        self.order(file, None);
    }

    /// It is suspended: its sensors are not there, as on the newest kernels, and its memory is.
    pub fn sleep(self) {
        for (file, _) in self.board().files.iter().filter(|(file, _)| wakes(file)) {
            self.fail(file, EBUSY);
        }
        self.set("power_state", "D3cold");
        self.set("power/runtime_status", "suspended");
    }

    pub fn wake(self) {
        self.set("power/runtime_status", "active");
        self.set("power_state", "D0");
        self.board().files.iter().filter(|(file, _)| wakes(file)).for_each(|(file, _)| self.heal(file));
    }

    /// Which of its files the helper opened, of those that `opened` of the machine lists; sensors begin with `H/`, and
    /// files of the ports with `S/`.
    pub fn opened(self, of: &[String]) -> Vec<String> {
        let (folder, port, sensors) = (self.folder(), self.root_port(), self.sensors());
        let name = |path: &String| match path.strip_prefix(&format!("{folder}/")) {
            Some(file) => Some(match file.strip_prefix(&format!("{sensors}/")) {
                Some(sensor) => format!("H/{sensor}"),
                None => file.to_owned(),
            }),
            None => path.starts_with(&port).then(|| format!("S/{}", path.rsplit('/').next().unwrap())),
        };
        of.iter().filter_map(name).collect()
    }

    /// The links by which the kernel shows it: where, and to which of its files.
    fn links(self) -> Vec<(String, String)> {
        let (n, slot, folder) = (self.number, self.slot(), self.folder());
        let drm = |name: &str| (format!("sys/class/drm/{}", name.rsplit('/').next().unwrap()), format!("drm/{name}"));
        let mut links = vec![drm(&format!("renderD{}", 128 + n)), drm(&format!("card{}", n + 1))];
        links.extend(["DP-1", "HDMI-A-1"].map(|name| drm(&format!("card{0}/card{0}-{name}", n + 1))));
        links.push((format!("sys/class/hwmon/hwmon{}", 3 + n), self.sensors()));
        let mut all: Vec<_> = links.into_iter().map(|(at, file)| (at, format!("{folder}/{file}"))).collect();
        all.push((format!("sys/bus/pci/devices/{slot}"), folder));
        all
    }

    /// It is off the bus.
    pub fn unplug(self) {
        let root = &self.machine.root;
        self.links().iter().for_each(|(at, _)| fs::remove_file(root.join(at)).unwrap());
        fs::rename(root.join(self.folder()), root.join(format!("unplugged-{}", self.number))).unwrap();
        for node in self.nodes() {
            fs::remove_file(root.join(node)).unwrap();
        }
    }

    /// It is back in its place.
    pub fn replug(self) {
        let root = &self.machine.root;
        fs::rename(root.join(format!("unplugged-{}", self.number)), root.join(self.folder())).unwrap();
        self.show();
    }

    /// `dev/dri/card1` and `dev/dri/renderD128`.
    pub fn nodes(self) -> [String; 2] {
        [format!("dev/dri/card{}", self.number + 1), format!("dev/dri/renderD{}", 128 + self.number)]
    }

    fn show(self) {
        self.links().iter().for_each(|(at, to)| self.machine.link(at, to));
        self.nodes().iter().for_each(|node| self.machine.write(node, ""));
    }

    fn build(self) {
        let Board { device, revision, link, files } = self.board();
        let (slot, number) = (self.slot(), self.number);
        self.bridge(&self.root_port(), "0x1022", "0x1483", FULL.to_vec());
        if let Link::Switch(slot) = link {
            let [outer, inner] = self.ports();
            self.bridge(&outer, "0x1002", "0x1478", slot.to_vec());
            self.bridge(&inner, "0x1002", "0x1479", FULL.to_vec());
        }
        let class = match device {
            "74a0" => "120000",
            "7408" => "038000",
            _ => "030000",
        };
        self.set("vendor", "0x1002");
        self.set("device", &format!("0x{device}"));
        self.set("revision", &format!("0x{revision}"));
        self.set("class", &format!("0x{class}"));
        let (class, id) = (class.trim_start_matches('0'), device.to_uppercase());
        self.set("uevent", &format!("DRIVER=amdgpu\nPCI_CLASS={class}\nPCI_ID=1002:{id}\nPCI_SLOT_NAME={slot}"));
        self.set("power_state", "D0");
        self.set("power/runtime_status", "active");
        self.set("power/control", if link == Link::Inside { "on" } else { "auto" });
        self.set("power/autosuspend_delay_ms", "5000");
        self.set("H/name", "amdgpu");
        files.iter().for_each(|(file, text)| self.set(file, text));
        let folder = self.folder();
        let link = |from: String, to: &str| self.machine.link(&format!("{folder}/{from}"), to);
        link("driver".into(), "sys/bus/pci/drivers/amdgpu");
        link(format!("{}/device", self.sensors()), &folder);
        for (name, minor) in
            [(format!("card{}", number + 1), number + 1), (format!("renderD{}", 128 + number), 128 + number)]
        {
            self.set(&format!("drm/{name}/dev"), &format!("226:{minor}"));
            link(format!("drm/{name}/device"), &folder);
        }
        for name in ["DP-1", "HDMI-A-1"] {
            let (card, connector) = (format!("drm/card{}", number + 1), format!("card{}-{name}", number + 1));
            self.set(&format!("{card}/{connector}/status"), "disconnected");
            link(format!("{card}/{connector}/device"), &format!("{folder}/{card}"));
        }
        self.show();
    }

    /// `link`: speed and width, now and at most.
    fn bridge(self, folder: &str, vendor: &str, device: &str, link: Vec<&str>) {
        let names = ["current_link_speed", "current_link_width", "max_link_speed", "max_link_width"];
        let files = [("vendor", vendor), ("device", device), ("class", "0x060400")];
        for (name, text) in files.into_iter().chain(names.into_iter().zip(link)) {
            self.machine.write(&format!("{folder}/{name}"), text);
        }
        let at = format!("sys/bus/pci/devices/{}", folder.rsplit('/').next().unwrap());
        if fs::symlink_metadata(self.machine.root.join(&at)).is_err() {
            self.machine.link(&at, folder);
        }
    }
}

/// A read of it wakes a sleeping card, or fails: all that is asked of the chip, and its link.
pub fn wakes(file: &str) -> bool {
    let ends = ["_busy_percent", "_input", "_average", "_link_speed", "_link_width", "_err_count", "_bad_pages"];
    let parts = ["power1_cap", "pp_dpm_", "pwm1", "fan1_max", "pcie_replay_count", "pcie_bw", "gpu_metrics"];
    ends.iter().any(|end| file.ends_with(end)) || parts.iter().any(|part| file.contains(part))
}
