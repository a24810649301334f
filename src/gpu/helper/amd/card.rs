//! One card: when it sleeps it is not woken, else its readings by how often they change.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::device::clear;
use super::super::reading_log::{ReadingLog, Times, micros};
use super::super::threads::{Device, Reading};
use super::autosuspend::Autosuspend;
use super::files::{self, Files};
use super::{identity, link, processes, ras, sensors};
use crate::gpu::amd_cards::AmdCard;
use crate::gpu::reading::Kind;
use crate::gpu::sample::{Gaps, Gpu, GpuError, GpuErrorKind};
use crate::gpu::vendor::Vendor;
use crate::gpu::wire::Wanted;

/// One card, with its earlier readings.
pub(super) struct Card {
    card: AmdCard,
    root: PathBuf,
    /// As it was last read.
    gpu: Gpu,
    sensors: Option<sensors::Sensors>,
    autosuspend: Autosuspend,
    /// Slow and fixed readings were read at least once.
    complete: bool,
}

impl Card {
    pub(super) fn new(card: AmdCard, root: PathBuf) -> Self {
        let pci_bus_id = Some(card.slot.clone());
        let gpu = Gpu { vendor: Vendor::Amd, pci_bus_id, unified_memory: card.integrated, ..Gpu::default() };
        let mut new = Self { card, root, gpu, sensors: None, autosuspend: Autosuspend::default(), complete: false };
        identity::read(&new.card, &new.root, &mut new.gpu);
        new
    }

    /// A status that cannot be read counts as awake. Reading it never wakes.
    fn sleeps(&self) -> bool {
        files::text(&self.card.device.join("power/runtime_status"))
            .is_ok_and(|status| matches!(status.as_str(), "suspended" | "suspending"))
    }

    fn readings(&mut self, wanted: Wanted, times: &mut Times) {
        if !self.card.has_driver() {
            // The next sample does not list it any more.
            let message = "it is off the bus, or the driver amdgpu has let go of it".to_owned();
            let error = Some(GpuError { kind: GpuErrorKind::Other, message });
            self.gpu = Gpu { error, ..self.gpu.identity() };
            self.complete = false;
            return;
        }
        self.gpu.error = None;
        self.gpu.asleep = self.sleeps();
        if !self.gpu.asleep && self.complete && self.autosuspend.waits(&self.card.device, Instant::now()) {
            return;
        }
        let mut log = ReadingLog::new(times);
        let mut files = Files { log: &mut log, refused: false };
        clear(&mut self.gpu, Kind::Fast);
        memory(&self.card, &mut self.gpu, &mut files);
        if self.gpu.asleep {
            return self.rest();
        }
        self.fast(&mut files);
        let mut refused = files.refused;
        self.gpu.gaps = log.gaps_of(Kind::Fast, &self.gpu);
        if wanted.slow || !self.complete {
            refused |= self.slower(&mut log);
        }
        self.autosuspend.see(&self.gpu);
        // It fell asleep between two files.
        if refused && self.sleeps() {
            self.gpu.asleep = true;
            clear_but_memory(&mut self.gpu);
            self.rest();
        }
    }

    /// What is not read at every sample; whether the driver refused some of it for now. Fixed readings are read once, and
    /// again as long as one of them fails.
    fn slower(&mut self, log: &mut ReadingLog<'_>) -> bool {
        let mut files = Files { log, refused: false };
        clear(&mut self.gpu, Kind::Slow);
        if self.gpu.uuid.is_none() {
            identity::read(&self.card, &self.root, &mut self.gpu);
        }
        self.slow(&mut files);
        let mut refused = files.refused;
        self.gpu.slow_gaps = log.gaps_of(Kind::Slow, &self.gpu);
        if !self.complete || !self.gpu.fixed_gaps.failed.is_empty() {
            let mut files = Files { log, refused: false };
            self.fixed(&mut files);
            refused |= files.refused;
            self.gpu.fixed_gaps = log.gaps_of(Kind::Fixed, &self.gpu);
        }
        self.complete = true;
        refused
    }

    /// What is known of a card without waking it: its fixed readings and its memory.
    fn rest(&mut self) {
        clear(&mut self.gpu, Kind::Slow);
        self.gpu.gaps = Gaps::default();
        self.gpu.slow_gaps = Gaps::default();
        // What could not be read is read when it wakes.
        self.complete = false;
        self.autosuspend = Autosuspend::default();
    }

    fn fast(&mut self, files: &mut Files<'_, '_>) {
        let device = &self.card.device;
        self.gpu.utilization_percent = files.number("utilization_percent", &device.join("gpu_busy_percent"), 1);
        self.gpu.memory_utilization_percent =
            files.number("memory_utilization_percent", &device.join("mem_busy_percent"), 1);
        if !self.sensors.as_ref().is_some_and(sensors::Sensors::are_there) {
            self.sensors = sensors::Sensors::find(device);
        }
        if let Some(sensors) = &self.sensors {
            sensors.fast(&mut self.gpu, files);
        }
    }

    fn slow(&mut self, files: &mut Files<'_, '_>) {
        let device = &self.card.device;
        if let Some(sensors) = &self.sensors {
            sensors.fans(&mut self.gpu, files);
        }
        if !self.card.integrated {
            link::now(device, &mut self.gpu, files);
            self.gpu.pcie_replays = files.number("pcie_replays", &device.join("pcie_replay_count"), 1);
        }
        ras::read(&device.join("ras"), &mut self.gpu, files);
        self.gpu.processes = processes::read(&self.root, &self.card.slot);
    }

    fn fixed(&mut self, files: &mut Files<'_, '_>) {
        let device = &self.card.device;
        if let Some(sensors) = &self.sensors {
            sensors.limits(&mut self.gpu, files);
        }
        if !self.card.integrated {
            link::most(device, &mut self.gpu, files);
        }
        self.gpu.graphics_clock_max_mhz = fastest(&device.join("pp_dpm_sclk"), "graphics_clock_max_mhz", files);
        self.gpu.memory_clock_max_mhz = fastest(&device.join("pp_dpm_mclk"), "memory_clock_max_mhz", files);
        self.gpu.vbios_version = files.take("vbios_version", files::words(&device.join("vbios_version")));
    }
}

impl Device for Card {
    fn read(&mut self, wanted: Wanted) -> Reading {
        let start = Instant::now();
        let mut times = Times::new();
        self.readings(wanted, &mut times);
        times.insert("sysfs".to_owned(), micros(start));
        let gpu = Gpu { read_us: Some(micros(start)), ..self.gpu.clone() };
        Reading { gpu, xids: Vec::new(), listening: false, times }
    }

    fn identity(&self) -> Gpu {
        self.gpu.identity()
    }
}

/// Models of an integrated GPU are in the memory that it maps (GTT): what it calls its own is a part that the BIOS keeps
/// for it. A card's GTT is main memory, and is not counted. These files never wake a card.
fn memory(card: &AmdCard, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
    let mut bytes = |name: &str, file: &str| -> Option<u64> { files.number(name, &card.device.join(file), 1) };
    let total = bytes("vram_total_mb", "mem_info_vram_total");
    let used = bytes("vram_used_mb", "mem_info_vram_used");
    gpu.gtt_total_bytes = bytes("gtt_total_mb", "mem_info_gtt_total");
    gpu.gtt_used_bytes = bytes("gtt_used_mb", "mem_info_gtt_used");
    let sum = |own: Option<u64>, mapped: Option<u64>| {
        if card.integrated { own.zip(mapped).and_then(|(own, mapped)| own.checked_add(mapped)) } else { own }
    };
    gpu.vram_total_bytes = sum(total, gpu.gtt_total_bytes);
    let used = sum(used, gpu.gtt_used_bytes);
    match gpu.vram_total_bytes.zip(used) {
        Some((total, used)) if used > total => {
            files.log.fail("vram_used_mb", &format!("{used} bytes of {total} is impossible"));
            files.log.fail("vram_free_mb", &format!("{used} bytes in use of {total} is impossible"));
        }
        both => {
            gpu.vram_used_bytes = used;
            gpu.vram_free_bytes = both.map(|(total, used)| total - used);
        }
    }
}

/// Forgets the fast readings, the memory's apart.
fn clear_but_memory(gpu: &mut Gpu) {
    let memory =
        [gpu.vram_total_bytes, gpu.vram_used_bytes, gpu.vram_free_bytes, gpu.gtt_total_bytes, gpu.gtt_used_bytes];
    clear(gpu, Kind::Fast);
    [gpu.vram_total_bytes, gpu.vram_used_bytes, gpu.vram_free_bytes, gpu.gtt_total_bytes, gpu.gtt_used_bytes] = memory;
}

/// The fastest row of a table of clocks: `1: 2575Mhz *`.
fn fastest(path: &Path, name: &str, files: &mut Files<'_, '_>) -> Option<u32> {
    let table = files.take(name, files::text(path))?;
    let clocks = table.lines().filter_map(|row| {
        let digits = row.split_once(": ")?.1.split_once("Mhz")?.0;
        digits.trim().parse::<i64>().ok()
    });
    let fastest = clocks.max().filter(|clock| *clock > 0)?;
    files.plausible(name, fastest)
}
