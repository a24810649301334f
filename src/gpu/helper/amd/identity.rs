//! Which card it is: an id that stays with it, and a name.

use std::path::Path;

use super::files::{self, Missing};
use crate::gpu::amd_cards::AmdCard;
use crate::gpu::sample::Gpu;

/// Where distributions keep AMD's list of product names.
const NAMES: &str = "usr/share/libdrm/amdgpu.ids";

pub(super) fn read(card: &AmdCard, root: &Path, gpu: &mut Gpu) {
    let text = |file: &str| files::text(&card.device.join(file)).ok();
    let is_id = |id: &String| {
        let hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex && id.len() <= 32 && id.bytes().any(|byte| byte != b'0')
    };
    gpu.uuid = match files::text(&card.device.join("unique_id")) {
        // As ROCm spells it in ROCR_VISIBLE_DEVICES.
        Ok(id) if is_id(&id) => Some(format!("GPU-{id}")),
        // It has one, which is read with the next slow readings.
        Err(Missing::Failed { .. }) => None,
        _ => Some(format!("PCI-{}", card.slot)),
    };
    let id = |file| text(file).and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let (device, revision) = (id("device"), id("revision"));
    let listed = || {
        let list = files::text(&root.join(NAMES)).ok()?;
        name(&list, device?, revision?)
    };
    let number = || device.map(|device| format!("AMD GPU 1002:{device:04x}"));
    let product = || files::words(&card.device.join("product_name")).ok();
    gpu.name = product().or_else(listed).or_else(number);
}

/// From lines such as `73BF,\tC0,\tAMD Radeon RX 6900 XT`.
fn name(list: &str, device: u32, revision: u32) -> Option<String> {
    list.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut columns = line.splitn(3, ',').map(str::trim);
        let mut is = |number| columns.next().is_some_and(|text| u32::from_str_radix(text, 16) == Ok(number));
        let is_it = is(device) && is(revision);
        columns.next().filter(|name| is_it && !name.is_empty()).map(str::to_owned)
    })
}

#[test]
fn the_name_is_that_of_device_and_revision() {
    let list = "# List of AMDGPU IDs\n1.0.0\n73BF,\tC0,\tAMD Radeon RX 6900 XT\n73BF,\tC3,\tAMD Radeon RX 6800\n744C,\tC8,\t\n";
    assert_eq!(name(list, 0x73bf, 0xc3).as_deref(), Some("AMD Radeon RX 6800"));
    assert_eq!(name(list, 0x73bf, 0xc0).as_deref(), Some("AMD Radeon RX 6900 XT"));
    for (device, revision) in [(0x73bf, 0xc1), (0x744c, 0xc8), (1, 0)] {
        assert_eq!(name(list, device, revision), None);
    }
}
