//! The sensors of a card (hwmon). Their numbers differ from card to card: temperatures and clocks go by label.

use std::path::{Path, PathBuf};

use super::files::{self, Files, Missing};
use crate::gpu::amd_cards;
use crate::gpu::readings::is_core;
use crate::gpu::sample::Gpu;

/// Sensors of one kind that are looked at.
const MOST: u32 = 4;

pub(super) struct Sensors {
    hwmon: PathBuf,
    edge: Option<u32>,
    /// The chip's hot spot.
    junction: Option<u32>,
    memory: Option<u32>,
    graphics_clock: Option<u32>,
    memory_clock: Option<u32>,
}

impl Sensors {
    pub(super) fn find(device: &Path) -> Option<Self> {
        let hwmon = amd_cards::hwmon(device)?;
        let labeled = |kind: &str, label: &str| {
            (1..=MOST).find(|n| files::text(&hwmon.join(format!("{kind}{n}_label"))).as_deref() == Ok(label))
        };
        Some(Self {
            edge: labeled("temp", "edge").or_else(|| {
                // Old kernels have no labels, and this one alone.
                let bare = !hwmon.join("temp1_label").exists() && hwmon.join("temp1_input").exists();
                bare.then_some(1)
            }),
            junction: labeled("temp", "junction"),
            memory: labeled("temp", "mem"),
            graphics_clock: labeled("freq", "sclk"),
            memory_clock: labeled("freq", "mclk"),
            hwmon,
        })
    }

    pub(super) fn are_there(&self) -> bool {
        self.hwmon.exists()
    }

    pub(super) fn fast(&self, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
        // An accelerator has no edge.
        let main = self.edge.or(self.junction);
        gpu.temperature_c = self.celsius("temperature_c", main, "input", files);
        gpu.hotspot_temperature_c = self.celsius("hotspot_temperature_c", self.junction, "input", files);
        gpu.memory_temperature_c = self.celsius("memory_temperature_c", self.memory, "input", files);
        let power = match files::number(&self.file("power1_average")) {
            Err(Missing::Unsupported) => files::number(&self.file("power1_input")),
            average => average,
        };
        gpu.power_mw = files.take("power_w", power).and_then(|uw| files.plausible("power_w", uw.div_euclid(1000)));
        gpu.power_limit_mw = self.limit("power_limit_w", "power1_cap", files);
        gpu.graphics_clock_mhz = self.megahertz("graphics_clock_mhz", self.graphics_clock, files);
        gpu.memory_clock_mhz = self.megahertz("memory_clock_mhz", self.memory_clock, files);
    }

    /// The share of the full speed by the fan itself, else by what it is given.
    pub(super) fn fans(&self, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
        gpu.fan_rpm = files.number("fan_rpm", &self.file("fan1_input"), 1);
        let most = files::number(&self.file("fan1_max")).ok().filter(|most| *most > 0);
        let share = match (gpu.fan_rpm, most) {
            (Some(rpm), Some(most)) => Some(i64::from(rpm) * 100 / most),
            // A card that drives its fan by itself leaves 0 here.
            (rpm, _) => {
                let pulse = files.take("fan_percent", files::number(&self.file("pwm1")));
                pulse
                    .filter(|pulse| *pulse > 0 || rpm == Some(0))
                    .map(|pulse| pulse.saturating_mul(100).div_euclid(255))
            }
        };
        gpu.fan_percent = share.and_then(|share| files.plausible("fan_percent", share)).map(|percent| vec![percent]);
    }

    /// The card is slowed at `crit` and switched off at `emergency`. The driver has them without asking the card.
    pub(super) fn limits(&self, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
        let main = self.edge.or(self.junction);
        gpu.temperature_slowdown_c = self.celsius("temperature_slowdown_c", main, "crit", files);
        gpu.temperature_shutdown_c = self.celsius("temperature_shutdown_c", main, "emergency", files);
        gpu.hotspot_temperature_slowdown_c =
            self.celsius("hotspot_temperature_slowdown_c", self.junction, "crit", files);
        gpu.memory_temperature_max_c = self.celsius("memory_temperature_max_c", self.memory, "crit", files);
        gpu.power_limit_default_mw = self.limit("power_limit_default_w", "power1_cap_default", files);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.hwmon.join(name)
    }

    /// 0 stands for a sensor or a limit that is not there. Every card has the one for its temperature.
    fn celsius(&self, name: &str, sensor: Option<u32>, what: &str, files: &mut Files<'_, '_>) -> Option<u32> {
        let value = files.take(name, files::number(&self.file(&format!("temp{}_{what}", sensor?))))?;
        if value == 0 && !is_core(name) { None } else { files.plausible(name, value.div_euclid(1000)) }
    }

    /// Milliwatts; 0 where the card has no limit.
    fn limit(&self, name: &str, file: &str, files: &mut Files<'_, '_>) -> Option<u32> {
        let microwatts = files.take(name, files::number(&self.file(file)))?;
        if microwatts == 0 { None } else { files.plausible(name, microwatts.div_euclid(1000)) }
    }

    fn megahertz(&self, name: &str, sensor: Option<u32>, files: &mut Files<'_, '_>) -> Option<u32> {
        files.number(name, &self.file(&format!("freq{}_input", sensor?)), 1_000_000)
    }
}
