//! Jetson and other Tegra boards: their GPU through sysfs. NVML is absent there, or loads and reads nothing.
//! Paths and units follow jetson_stats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::plausible;
use super::readings::READINGS;
use super::sample::{Failure, Gaps, Gpu, GpuSample};
use crate::sys::meminfo;
use crate::sys::order;

/// What the GPU is called in the device tree, by generation; newer ones have "gpu" in it.
const NAMES: [&str; 5] = ["gpu", "gv11b", "gp10b", "ga10b", "gb10b"];
/// Where the load stands when the GPU has no devfreq entry.
const LOADS: [&str; 3] =
    ["sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load", "sys/devices/platform/bus@0/17000000.gpu/load"];
/// The rail that feeds the whole board.
const BOARD_RAILS: [&str; 2] = ["VDD_IN", "POM_5V_IN"];
/// Its GPU is on a PCI bus within the chip; the other boards' GPUs are not on PCI.
const THOR: &str = "nvidia,tegra264";
/// A board's one GPU.
#[derive(Debug)]
pub(crate) struct Tegra {
    root: PathBuf,
    model: String,
    release: Option<String>,
    own_on_bus: bool,
}

impl Tegra {
    /// The board below `root`; None on any other machine.
    pub(crate) fn detect(root: &Path) -> Option<Self> {
        let tree = ["proc/device-tree", "sys/firmware/devicetree/base"];
        let node = |name: &str| tree.iter().find_map(|tree| text(&root.join(tree).join(name)));
        let release = text(&root.join("etc/nv_tegra_release"));
        let compatible = node("compatible").unwrap_or_default();
        if release.is_none() && !compatible.contains("nvidia,tegra") {
            return None;
        }
        let model = node("model").unwrap_or_else(|| "NVIDIA Tegra".into());
        Some(Self {
            root: root.to_owned(),
            model,
            release: release.as_deref().and_then(l4t),
            own_on_bus: compatible.contains(THOR),
        })
    }

    /// Whether the board's own GPU accounts for this many NVIDIA devices on the PCI bus.
    pub(crate) fn is_alone(&self, pci_gpus: u32) -> bool {
        pci_gpus <= u32::from(self.own_on_bus)
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Reads it again.
    pub(crate) fn sample(&self) -> GpuSample {
        let start = Instant::now();
        let mut gpu = Gpu { name: Some(self.model.clone()), unified_memory: true, ..Gpu::default() };
        self.memory(&mut gpu);
        self.load_and_clock(&mut gpu);
        self.heat(&mut gpu);
        self.power(&mut gpu);
        gpu.fan_percent = self.fans();
        let failed = refuse_impossible(&mut gpu);
        let missing = READINGS.iter().filter(|r| (r.shown)(&gpu).is_none() && !failed.contains_key(r.name));
        let unsupported =
            ["uuid", "pci_bus_id"].into_iter().chain(missing.map(|r| r.name)).map(str::to_owned).collect();
        gpu.gaps = Gaps { unsupported, failed, ..Gaps::default() };
        let read_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        gpu.read_us = Some(read_us);
        GpuSample {
            driver_version: self.release.clone(),
            gpus: vec![gpu],
            slow_fresh: true,
            read_us,
            call_us: order::map([("sysfs".to_owned(), read_us)].into_iter()),
            ..GpuSample::default()
        }
    }

    /// The GPU uses the machine's memory.
    fn memory(&self, gpu: &mut Gpu) {
        let memory = text(&self.root.join("proc/meminfo")).and_then(|text| meminfo::parse(&text));
        if let Some((total, free)) = memory {
            (gpu.vram_total_bytes, gpu.vram_free_bytes) = (Some(total), Some(free));
            gpu.vram_used_bytes = Some(total.saturating_sub(free));
        }
    }

    fn load_and_clock(&self, gpu: &mut Gpu) {
        let entries = entries(&self.root.join("sys/class/devfreq"));
        let known = |name: &str| NAMES.iter().any(|part| name.contains(part));
        let devfreq = entries.iter().find(|entry| {
            let node = text(&entry.join("device/of_node/name")).unwrap_or_default();
            known(&node) || entry.file_name().and_then(|n| n.to_str()).is_some_and(known)
        });
        let loads = devfreq.map(|entry| entry.join("device/load")).into_iter();
        let load = loads.chain(LOADS.iter().map(|path| self.root.join(path))).find_map(|path| number(&path));
        // Per mille.
        gpu.utilization_percent = load.and_then(|mille| u32::try_from(mille / 10).ok());
        let mhz = |name: &str| {
            let hertz = number(&devfreq?.join(name))?;
            u32::try_from(hertz / 1_000_000).ok()
        };
        gpu.graphics_clock_mhz = mhz("cur_freq");
        gpu.graphics_clock_max_mhz = mhz("max_freq");
    }

    /// By the zone's name: the numbers differ from board to board.
    fn heat(&self, gpu: &mut Gpu) {
        let zones = entries(&self.root.join("sys/class/thermal"));
        let named = |wanted: &[&str]| {
            zones.iter().find(|zone| {
                let kind = text(&zone.join("type")).unwrap_or_default().to_ascii_lowercase();
                wanted.contains(&kind.as_str())
            })
        };
        let Some(zone) = named(&["gpu-thermal", "gpu-therm"]).or_else(|| named(&["tj-thermal"])) else { return };
        // −256 °C is a sensor that is off.
        let celsius = |path: &Path| {
            let millis = number(path)?;
            u32::try_from(millis / 1000).ok().filter(|c| (1..=150).contains(c))
        };
        gpu.temperature_c = celsius(&zone.join("temp"));
        for trip in 0..16 {
            let kind = text(&zone.join(format!("trip_point_{trip}_type"))).unwrap_or_default();
            let limit = celsius(&zone.join(format!("trip_point_{trip}_temp")));
            match kind.as_str() {
                "critical" => gpu.temperature_shutdown_c = limit.or(gpu.temperature_shutdown_c),
                "hot" => gpu.temperature_slowdown_c = limit.or(gpu.temperature_slowdown_c),
                // Where the GPU is throttled only slightly; "hot" is more important.
                "passive" => gpu.temperature_slowdown_c = gpu.temperature_slowdown_c.or(limit),
                _ => {}
            }
        }
    }

    /// The whole board's draw: the rail that feeds it, else the sum of all rails.
    fn power(&self, gpu: &mut Gpu) {
        let mut rails: Vec<(String, u64)> = Vec::new();
        let mut alarm = None;
        for chip in entries(&self.root.join("sys/class/hwmon")) {
            if text(&chip.join("name")).as_deref() != Some("ina3221") {
                continue;
            }
            for n in 1..=8 {
                let of = |what: &str| chip.join(what.replace("{}", &n.to_string()));
                let label = text(&of("in{}_label")).unwrap_or_default();
                if label.is_empty() || label == "NC" || label.starts_with("sum of shunt") {
                    continue;
                }
                if let (Some(millivolts), Some(milliamperes)) = (number(&of("in{}_input")), number(&of("curr{}_input")))
                {
                    rails.push((label, millivolts.unsigned_abs().saturating_mul(milliamperes.unsigned_abs()) / 1000));
                }
                for name in ["curr{}_crit_alarm", "curr{}_max_alarm"] {
                    if let Some(on) = number(&of(name)) {
                        alarm = Some(alarm.unwrap_or(false) || on == 1);
                    }
                }
            }
        }
        // Kernels before 5.10.
        for device in entries(&self.root.join("sys/bus/iio/devices")) {
            for n in 0..8 {
                let label = text(&device.join(format!("rail_name_{n}")));
                let milliwatts = number(&device.join(format!("in_power{n}_input")));
                rails.extend(label.zip(milliwatts.map(i64::unsigned_abs)));
            }
        }
        let board = rails.iter().find(|(label, _)| BOARD_RAILS.contains(&label.as_str())).map(|(_, mw)| *mw);
        let sum = || (!rails.is_empty()).then(|| rails.iter().fold(0_u64, |sum, (_, mw)| sum.saturating_add(*mw)));
        gpu.power_mw = board.or_else(sum).and_then(|mw| u32::try_from(mw).ok());
        gpu.power_alarm = alarm;
    }

    /// A pulse width from 0 to 255.
    fn fans(&self) -> Option<Vec<u32>> {
        let chips = entries(&self.root.join("sys/class/hwmon"));
        let is_fan = |chip: &&PathBuf| text(&chip.join("name")).is_some_and(|name| name.contains("pwm"));
        let pwm = chips.iter().filter(is_fan).filter_map(|chip| number(&chip.join("pwm1")));
        let percent: Vec<u32> = pwm.filter_map(|pwm| u32::try_from(pwm.saturating_mul(100) / 255).ok()).collect();
        (!percent.is_empty()).then_some(percent)
    }
}

/// Removes impossible values, and records them as failures.
fn refuse_impossible(gpu: &mut Gpu) -> BTreeMap<String, Failure> {
    let mut failed = BTreeMap::new();
    let mut refuse = |name: &str, value: Option<u32>| {
        let words = plausible::check(name, value?).err();
        let good = words.is_none();
        failed.extend(words.map(|words| (name.to_owned(), Failure { words, of_device: false })));
        value.filter(|_| good)
    };
    gpu.utilization_percent = refuse("utilization_percent", gpu.utilization_percent);
    gpu.power_mw = refuse("power_w", gpu.power_mw);
    gpu.graphics_clock_mhz = refuse("graphics_clock_mhz", gpu.graphics_clock_mhz);
    gpu.graphics_clock_max_mhz = refuse("graphics_clock_max_mhz", gpu.graphics_clock_max_mhz);
    let fans = gpu.fan_percent.take();
    gpu.fan_percent = fans.filter(|fans| fans.iter().all(|fan| refuse("fan_percent", Some(*fan)).is_some()));
    failed
}

/// `# R36 (release), REVISION: 4.7, …` as `L4T 36.4.7`.
fn l4t(text: &str) -> Option<String> {
    let major = text.split("# R").nth(1)?.split(' ').next()?;
    let minor = text.split("REVISION: ").nth(1)?.split(',').next()?;
    Some(format!("L4T {major}.{}", minor.trim()))
}

/// A small file's text without the end of its line; device tree texts end in NUL.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64 * 1024)]);
    Some(text.trim_matches(['\0', '\n', ' ']).replace('\0', " "))
}

fn number(path: &Path) -> Option<i64> {
    text(path)?.parse().ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    order::sort(&mut all);
    all
}
