//! AMD GPUs, read from trees of files laid out like those of real cards.

mod files;
mod list;
mod sleep;
mod trouble;

use serde_json::{Value, json};

use crate::fake_amd::boards::{RADEON_780M, RX_6600, RX_6900_XT, RX_7900_XTX, STRIX_HALO, W6600};
use crate::fake_amd::more_boards::{BC_250, MI250X, MI300A, RX_580, RX_7600S, WX_5100};
use crate::fake_amd::{Board, EOPNOTSUPP, FakeAmd, idle_ollama};
use crate::gpus::is_ok;

/// A reading that nothing is known of, and that is not a fault.
pub fn lacks(gpu: &Value, name: &str) -> bool {
    gpu[name].is_null() && gpu["unsupported"].as_array().is_some_and(|all| all.contains(&json!(name)))
}

/// A reading that failed: why.
#[track_caller]
pub fn failure<'a>(gpu: &'a Value, name: &str) -> &'a str {
    assert!(gpu[name].is_null(), "{name} has a value: {gpu:#}");
    gpu["failed"][name].as_str().unwrap_or_else(|| panic!("{name} has not failed: {gpu:#}"))
}

/// GPU 0 has been read.
pub fn read(report: &Value) -> bool {
    let gpu = &report["gpus"][0];
    gpu["vendor"] == "amd" && gpu["error"].is_null() && report["ollama"]["reachable"] == true
}

/// `expect`: the readings that it has; all others are unsupported, and named as such.
#[track_caller]
pub fn check(gpu: &Value, expect: &Value) {
    for (name, value) in expect.as_object().unwrap() {
        assert_eq!(&gpu[name], value, "{name}: {gpu:#}");
    }
    let identity = ["uuid", "name", "pci_bus_id", "error"];
    for (name, value) in gpu.as_object().unwrap() {
        let of_card = value.is_null() && !identity.contains(&name.as_str());
        assert!(!of_card || lacks(gpu, name), "{name} is null and not named: {gpu:#}");
        assert!(expect.get(name).is_none() || !lacks(gpu, name), "{name} is unsupported: {gpu:#}");
    }
    assert_eq!((&gpu["failed"], &gpu["vendor"]), (&json!({}), &json!("amd")), "{gpu:#}");
}

/// The report of a machine with one such card, which is well.
#[track_caller]
fn alone(board: Board) -> Value {
    let (machine, ollama) = (FakeAmd::new(&[board]), idle_ollama());
    let mut report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!((&report["gpu_count"], &report["source"]), (&json!(1), &json!("amdgpu+ollama")), "{report:#}");
    assert_eq!(report["driver_version"], "Linux 6.11.0-29-generic");
    report["gpus"][0].take()
}

#[test]
fn a_desktop_card_has_all_but_ecc() {
    let gpu = alone(RX_6900_XT);
    let expect = json!({
        "index": 0, "uuid": "GPU-5d1a7c0d3b2f4e61", "name": "AMD GPU 1002:73bf", "pci_bus_id": "0000:03:00.0",
        "unified_memory": false, "asleep": false, "verdict": "ok", "vram_total_mb": 16368, "vram_used_mb": 637,
        "vram_free_mb": 15730, "gtt_total_mb": 16008, "gtt_used_mb": 34, "utilization_percent": 3,
        "memory_utilization_percent": 0, "temperature_c": 56, "temperature_slowdown_c": 100,
        "temperature_shutdown_c": 105, "hotspot_temperature_c": 59, "hotspot_temperature_slowdown_c": 110,
        "memory_temperature_c": 54, "memory_temperature_max_c": 100, "power_w": 36.0, "power_limit_w": 289.0,
        "graphics_clock_mhz": 500, "memory_clock_mhz": 1000, "fan_percent": [0], "pcie_generation": 4,
        "pcie_generation_max": 4, "pcie_width": 16, "pcie_width_max": 16, "vbios_version": "113-D4120500-101",
        "error": null,
    });
    check(&gpu, &expect);
    for name in ["power_limit_default_w", "pcie_replays", "ecc_enabled", "ecc_uncorrected_volatile", "retired_pages"] {
        assert!(lacks(&gpu, name), "{name}: {gpu:#}");
    }
}

#[test]
fn a_card_with_a_switch_has_the_link_of_its_slot() {
    let gpu = alone(RX_6600);
    let expect = json!({
        "uuid": "PCI-0000:03:00.0", "name": "AMD GPU 1002:73ff", "vram_total_mb": 8176, "vram_used_mb": 32,
        "utilization_percent": 0, "temperature_c": 28, "hotspot_temperature_c": 28,
        "hotspot_temperature_slowdown_c": 110, "memory_temperature_c": 26, "power_w": 3.0, "power_limit_w": 120.0,
        "power_limit_default_w": 100.0, "graphics_clock_mhz": 20, "memory_clock_mhz": 96, "fan_percent": [45],
        "pcie_generation": 3, "pcie_generation_max": 4, "pcie_width": 8, "pcie_width_max": 8,
        "unified_memory": false,
    });
    check(&gpu, &expect);
    assert!(lacks(&gpu, "temperature_slowdown_c") && lacks(&gpu, "memory_temperature_max_c"), "{gpu:#}");
}

#[test]
fn a_newer_desktop_card() {
    let expect = json!({
        "uuid": "GPU-b5e1f0a92c7d4836", "name": "AMD GPU 1002:744c", "vram_total_mb": 24560, "vram_used_mb": 1024,
        "vram_free_mb": 23536, "gtt_total_mb": 32000, "gtt_used_mb": 50, "utilization_percent": 3,
        "memory_utilization_percent": 1, "temperature_c": 53, "temperature_slowdown_c": 100,
        "temperature_shutdown_c": 105, "hotspot_temperature_c": 61, "hotspot_temperature_slowdown_c": 110,
        "memory_temperature_c": 68, "memory_temperature_max_c": 108, "power_w": 68.0, "power_limit_w": 290.0,
        "power_limit_default_w": 303.0, "graphics_clock_mhz": 73, "memory_clock_mhz": 772, "fan_percent": [0],
        "pcie_generation": 4, "pcie_width": 16, "pcie_replays": 0, "unified_memory": false,
        "vbios_version": "113-D70201XT-041",
    });
    check(&alone(RX_7900_XTX), &expect);
}

#[test]
fn a_gpu_in_the_processor_has_the_memory_of_the_machine() {
    let gpu = alone(RADEON_780M);
    let expect = json!({
        "uuid": "PCI-0000:c3:00.0", "name": "AMD GPU 1002:15bf", "pci_bus_id": "0000:c3:00.0", "unified_memory": true,
        "vram_total_mb": 34073, "vram_used_mb": 1415, "vram_free_mb": 32658, "gtt_total_mb": 29977,
        "gtt_used_mb": 201, "utilization_percent": 0, "temperature_c": 25, "power_w": 3.1, "graphics_clock_mhz": 800,
        "vbios_version": "113-PHXGENERIC-001", "verdict": "ok",
    });
    check(&gpu, &expect);
    for name in [
        "memory_utilization_percent",
        "temperature_slowdown_c",
        "hotspot_temperature_c",
        "memory_temperature_c",
        "power_limit_w",
        "memory_clock_mhz",
        "fan_percent",
        // That link is within the chip.
        "pcie_generation",
        "pcie_width",
        "pcie_width_max",
    ] {
        assert!(lacks(&gpu, name), "{name}: {gpu:#}");
    }
    let gpu = alone(STRIX_HALO);
    let expect = json!({
        "name": "AMD GPU 1002:1586", "unified_memory": true, "vram_total_mb": 127_488, "vram_used_mb": 166,
        "vram_free_mb": 127_322, "gtt_total_mb": 126_976, "gtt_used_mb": 18, "temperature_c": 31, "power_w": 9.0,
    });
    check(&gpu, &expect);
}

#[test]
fn cards_of_the_workstation_series() {
    let expect = json!({
        "uuid": "PCI-0000:03:00.0", "name": "AMD GPU 1002:73e3", "unified_memory": false, "temperature_c": 48,
        "temperature_slowdown_c": 100, "temperature_shutdown_c": 105, "hotspot_temperature_c": 48,
        "hotspot_temperature_slowdown_c": 105, "memory_temperature_c": 40, "memory_temperature_max_c": 100,
        "power_w": 6.0, "power_limit_w": 100.0, "graphics_clock_mhz": 63, "memory_clock_mhz": 541, "fan_percent": [20],
        "pcie_generation": 4, "pcie_width": 8, "pcie_width_max": 8,
    });
    check(&alone(W6600), &expect);
    // In a slot with one lane, which is worth a reason.
    let (machine, ollama) = (FakeAmd::new(&[WX_5100]), idle_ollama());
    let report = machine.start(&ollama, &[]).report_when("a reading", read);
    let expect = json!({
        "uuid": "PCI-0000:03:00.0", "name": "AMD GPU 1002:67c7", "unified_memory": false, "vram_total_mb": 8192,
        "temperature_c": 33, "temperature_slowdown_c": 94, "power_w": 7.0, "power_limit_w": 75.0, "pcie_generation": 3,
        "pcie_generation_max": 3, "pcie_width": 1, "pcie_width_max": 16, "pcie_replays": 0,
    });
    check(&report["gpus"][0], &expect);
    assert!(lacks(&report["gpus"][0], "hotspot_temperature_c"));
}

#[test]
fn an_old_card_has_one_sensor_and_its_own_link() {
    let gpu = alone(RX_580);
    let expect = json!({
        "name": "AMD GPU 1002:67df", "vram_total_mb": 4096, "vram_used_mb": 512, "vram_free_mb": 3584,
        "unified_memory": false, "utilization_percent": 11, "memory_utilization_percent": 2, "temperature_c": 44,
        "temperature_slowdown_c": 94, "power_w": 41.0, "power_limit_w": 155.0, "fan_percent": [40],
        "pcie_generation": 3, "pcie_width": 16, "pcie_replays": 3, "memory_clock_mhz": 1750,
    });
    check(&gpu, &expect);
    assert!(lacks(&gpu, "temperature_shutdown_c") && lacks(&gpu, "memory_temperature_c"), "{gpu:#}");
}

#[test]
fn server_boards() {
    let expect = json!({
        "uuid": "GPU-9f3c51d0e84a7b26", "name": "AMD GPU 1002:74a0", "utilization_percent": 7,
        "memory_utilization_percent": 2, "temperature_c": 43, "hotspot_temperature_c": 43,
        "hotspot_temperature_slowdown_c": 100, "memory_temperature_c": 37, "memory_temperature_max_c": 105,
        "power_w": 112.0, "power_limit_w": 550.0, "graphics_clock_mhz": 132, "memory_clock_mhz": 900,
    });
    check(&alone(MI300A), &expect);
    let gpu = alone(MI250X);
    let expect = json!({
        "uuid": "GPU-e2b70c4f19d8a365", "name": "AMD Instinct MI250X", "unified_memory": false,
        "vram_total_mb": 65520, "vram_used_mb": 2048, "utilization_percent": 100, "memory_utilization_percent": 0,
        "temperature_c": 56, "hotspot_temperature_c": 61, "memory_temperature_c": 65, "memory_temperature_max_c": 99,
        "power_w": 144.0, "power_limit_w": 560.0, "power_limit_default_w": 560.0, "pcie_generation": 4,
        "pcie_width": 16, "pcie_replays": 0, "ecc_enabled": true, "ecc_uncorrected_volatile": 0,
    });
    check(&gpu, &expect);
    assert_eq!(gpu["retired_pages"]["pending"], false, "{gpu:#}");
}

#[test]
fn a_laptops_card() {
    let expect = json!({
        "uuid": "GPU-c81b64a0f75e2d93", "asleep": false, "temperature_c": 53, "hotspot_temperature_c": 54,
        "memory_temperature_c": 60, "power_w": 1.0, "power_limit_w": 95.0, "power_limit_default_w": 95.0,
        "graphics_clock_mhz": 0, "fan_percent": [0], "pcie_width": 8, "pcie_width_max": 8,
    });
    check(&alone(RX_7600S), &expect);
}

#[test]
fn a_utilization_that_the_chip_does_not_have() {
    for errno in [EOPNOTSUPP, crate::fake_amd::EINVAL] {
        let (machine, ollama) = (FakeAmd::new(&[BC_250]), idle_ollama());
        machine.card(0).fail("gpu_busy_percent", errno);
        let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
        let expect = json!({
            "name": "AMD GPU 1002:13fe", "unified_memory": true, "temperature_c": 47, "power_w": 55.0,
            "graphics_clock_mhz": 1500,
        });
        check(&report["gpus"][0], &expect);
        assert!(lacks(&report["gpus"][0], "utilization_percent"), "{report:#}");
    }
}
