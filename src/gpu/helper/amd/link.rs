//! The PCIe link of a card with its slot. Cards since Vega carry a switch: their own function always has a full link to
//! it, and only the switch's upstream port shows the slot. The files wake a card that sleeps.

use std::path::Path;

use super::files::{self, Files, Missing};
use crate::gpu::sample::Gpu;

/// Upstream and downstream ports of the switches on cards, by vendor and device.
const SWITCH: [(&str, &str); 4] =
    [("0x1002", "0x1478"), ("0x1002", "0x1479"), ("0x1022", "0x1470"), ("0x1022", "0x1471")];

/// Gigatransfers a second, by PCIe generation from 1.
const SPEEDS: [&str; 7] = ["2.5", "5.0", "8.0", "16.0", "32.0", "64.0", "128.0"];

pub(super) fn now(device: &Path, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
    let port = slot_port(device);
    gpu.pcie_generation = files.take("pcie_generation", generation(&port.join("current_link_speed")));
    gpu.pcie_width = files.take("pcie_width", width(&port.join("current_link_width")));
}

/// The slot may have less than the card: what both have is the most.
pub(super) fn most(device: &Path, gpu: &mut Gpu, files: &mut Files<'_, '_>) {
    let port = slot_port(device);
    let other = port.parent().filter(|parent| is_bridge(parent));
    let most = |file: &str, read: fn(&Path) -> Result<u32, Missing>| {
        let own = read(&port.join(file))?;
        Ok(other.and_then(|other| read(&other.join(file)).ok()).map_or(own, |other| own.min(other)))
    };
    gpu.pcie_generation_max = files.take("pcie_generation_max", most("max_link_speed", generation));
    gpu.pcie_width_max = files.take("pcie_width_max", most("max_link_width", width));
}

/// The upstream port of the card's switch, else the card itself.
fn slot_port(device: &Path) -> &Path {
    let upstream = device.parent().filter(|port| is_switch(port)).and_then(Path::parent).filter(|port| is_switch(port));
    upstream.unwrap_or(device)
}

fn is_switch(port: &Path) -> bool {
    let of = |file: &str| files::text(&port.join(file)).unwrap_or_default();
    is_bridge(port) && SWITCH.contains(&(of("vendor").as_str(), of("device").as_str()))
}

fn is_bridge(device: &Path) -> bool {
    files::text(&device.join("class")).is_ok_and(|class| class.starts_with("0x0604"))
}

/// `16.0 GT/s PCIe`, or `Unknown`.
fn generation(path: &Path) -> Result<u32, Missing> {
    let text = files::text(path)?;
    let speed = text.split(' ').next().unwrap_or_default();
    let at = SPEEDS.iter().position(|known| *known == speed);
    at.and_then(|at| u32::try_from(at + 1).ok()).ok_or_else(|| Missing::value(path, &text))
}

/// The kernel writes 0 or 255 for what it does not know.
fn width(path: &Path) -> Result<u32, Missing> {
    let lanes = files::number(path)?;
    let known = u32::try_from(lanes).ok().filter(|lanes| (1..=32).contains(lanes));
    known.ok_or_else(|| Missing::value(path, &lanes.to_string()))
}
