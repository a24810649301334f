//! Which file each reading comes from, and what is made of one that is missing, fails, or holds nonsense.

use std::path::Path;

use serde_json::{Value, json};

use super::{check, failure, lacks, read};
use crate::fake_amd::boards::{RX_6900_XT, RX_7900_XTX};
use crate::fake_amd::more_boards::{MI250X, MI300A};
use crate::fake_amd::{EINVAL, EIO, FakeAmd, NOTHING, idle_ollama};
use crate::gpus::is_ok;
use crate::process_names::{own_proc, process};

/// The readings of a card that has them all: file, text, name, value.
fn all() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("gpu_busy_percent", "81", "utilization_percent", json!(81)),
        ("mem_busy_percent", "72", "memory_utilization_percent", json!(72)),
        ("mem_info_vram_total", "17179869184", "vram_total_mb", json!(16384)),
        ("mem_info_vram_used", "1048576000", "vram_used_mb", json!(1000)),
        ("mem_info_gtt_total", "2097152000", "gtt_total_mb", json!(2000)),
        ("mem_info_gtt_used", "104857600", "gtt_used_mb", json!(100)),
        ("vbios_version", "113-TEST-1", "vbios_version", json!("113-TEST-1")),
        ("pcie_replay_count", "6", "pcie_replays", json!(6)),
        ("S/current_link_speed", "5.0 GT/s PCIe", "pcie_generation", json!(2)),
        ("S/current_link_width", "4", "pcie_width", json!(4)),
        ("H/temp1_input", "41000", "temperature_c", json!(41)),
        ("H/temp1_crit", "97000", "temperature_slowdown_c", json!(97)),
        ("H/temp1_emergency", "103000", "temperature_shutdown_c", json!(103)),
        ("H/temp2_input", "47000", "hotspot_temperature_c", json!(47)),
        ("H/temp2_crit", "107000", "hotspot_temperature_slowdown_c", json!(107)),
        ("H/temp3_input", "52000", "memory_temperature_c", json!(52)),
        ("H/temp3_crit", "104000", "memory_temperature_max_c", json!(104)),
        ("H/power1_average", "123000000", "power_w", json!(123.0)),
        ("H/power1_cap", "250000000", "power_limit_w", json!(250.0)),
        ("H/power1_cap_default", "260000000", "power_limit_default_w", json!(260.0)),
        ("H/fan1_input", "1600", "fan_percent", json!([50])),
        ("H/freq1_input", "2100000000", "graphics_clock_mhz", json!(2100)),
        ("H/freq2_input", "1250000000", "memory_clock_mhz", json!(1250)),
        ("pp_dpm_sclk", "0: 500Mhz *\n1: 2105Mhz \n2: 2575Mhz ", "graphics_clock_max_mhz", json!(2575)),
        // No row has to be the current one.
        ("pp_dpm_mclk", "0: 96Mhz \n1: 1249Mhz ", "memory_clock_max_mhz", json!(1249)),
        ("ras/umc_err_count", "ue: 0\nce: 7\nde: 3", "ecc_uncorrected_volatile", json!(0)),
    ]
}

/// With every one of those files.
fn rich() -> FakeAmd {
    let machine = FakeAmd::new(&[RX_7900_XTX]);
    all().iter().for_each(|(file, text, ..)| machine.card(0).set(file, text));
    machine
}

#[test]
fn each_reading_has_its_file() {
    let (machine, ollama) = (rich(), idle_ollama());
    let report = machine.start(&ollama, &[]).report_when("a reading", read);
    let expect: serde_json::Map<_, _> = all().into_iter().map(|(_, _, name, value)| (name.to_owned(), value)).collect();
    check(&report["gpus"][0], &Value::Object(expect));
    assert_eq!(report["gpus"][0]["fan_rpm"], 1600);
}

#[test]
fn a_file_that_is_missing_is_unsupported() {
    let (machine, ollama) = (rich(), idle_ollama());
    all().iter().for_each(|(file, ..)| machine.card(0).remove(file));
    machine.card(0).remove("H/fan1_max");
    machine.card(0).remove("H/pwm1");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    for (file, _, name, _) in all() {
        assert!(lacks(&report["gpus"][0], name), "{file}, {name}: {report:#}");
    }
    assert_eq!(report["gpus"][0]["failed"], json!({}));
}

#[test]
fn a_file_that_fails_is_a_failed_reading() {
    let (machine, ollama) = (rich(), idle_ollama());
    all().iter().for_each(|(file, ..)| machine.card(0).fail(file, EIO));
    machine.card(0).fail("H/pwm1", EIO);
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    for (_, _, name, _) in all() {
        assert!(!failure(&report["gpus"][0], name).is_empty());
    }
}

/// Each row is a file, its text, and the reading that fails then.
#[test]
fn nonsense_is_never_a_number() {
    let rows = [
        ("gpu_busy_percent", "65535", "utilization_percent"),
        ("mem_busy_percent", "4294967295", "memory_utilization_percent"),
        ("mem_info_vram_total", "18446744073709551615", "vram_total_mb"),
        ("mem_info_vram_used", "lots", "vram_used_mb"),
        ("mem_info_gtt_used", "-1", "gtt_used_mb"),
        ("pcie_replay_count", "18446744073709551615", "pcie_replays"),
        ("H/temp1_input", "4294967295", "temperature_c"),
        ("H/temp2_input", "65535000", "hotspot_temperature_c"),
        ("H/temp3_input", "512 degrees", "memory_temperature_c"),
        ("H/power1_average", "4294967295", "power_w"),
        ("H/pwm1", "9223372036854775807", "fan_percent"),
        ("H/power1_cap", "garbage", "power_limit_w"),
        ("H/freq1_input", "65535000000", "graphics_clock_mhz"),
        ("H/freq2_input", "0x10", "memory_clock_mhz"),
        ("ras/umc_err_count", "Query currently inaccessible", "ecc_uncorrected_volatile"),
    ];
    let (machine, ollama) = (rich(), idle_ollama());
    rows.iter().for_each(|(file, text, _)| machine.card(0).set(file, text));
    // The share of the speed comes before that of the pulse.
    machine.card(0).remove("H/fan1_max");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    for (file, text, name) in rows {
        let why = failure(&report["gpus"][0], name);
        assert!(!why.is_empty(), "{file}={text}");
    }
    // A name and a version are one short line.
    machine.card(0).set("product_name", &format!("A\n{}", "x".repeat(100_000)));
    machine.card(0).set("vbios_version", &"9".repeat(100_000));
    // Neither are bytes that do not make a text, nor a file that is too long.
    machine.card(0).set("gpu_busy_percent", &"9".repeat(100_000));
    machine.card(0).set("H/power1_average", "12\u{fffd}");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    for name in ["utilization_percent", "power_w"] {
        let why = failure(&report["gpus"][0], name);
        assert!(why.len() < 300, "{why}");
    }
    for name in ["name", "vbios_version"] {
        let text = report["gpus"][0][name].as_str().unwrap_or_default();
        assert!(text.len() == 96 && !text.contains('\n'), "{name}: {text}");
    }
}

/// Just below 0 is not 0, and a card that runs is not at 0 degrees.
#[test]
fn numbers_just_outside_their_range_fail() {
    let rows = [
        ("gpu_busy_percent", "101", "utilization_percent"),
        ("mem_busy_percent", "-1", "memory_utilization_percent"),
        ("H/temp1_input", "0", "temperature_c"),
        ("H/temp2_input", "-1", "hotspot_temperature_c"),
        ("H/temp3_input", "999", "memory_temperature_c"),
        ("H/power1_average", "-1", "power_w"),
        ("H/power1_cap", "-1", "power_limit_w"),
        ("H/freq1_input", "-1", "graphics_clock_mhz"),
        ("H/freq2_input", "-1", "memory_clock_mhz"),
        ("H/fan1_input", "-1", "fan_rpm"),
        ("S/current_link_width", "0", "pcie_width"),
        ("S/current_link_speed", "Unknown", "pcie_generation"),
    ];
    let (machine, ollama) = (rich(), idle_ollama());
    rows.iter().for_each(|(file, text, _)| machine.card(0).set(file, text));
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    for (file, text, name) in rows {
        assert!(!failure(&report["gpus"][0], name).is_empty(), "{file}={text}");
    }
}

/// Neither a value nor a fault of the card.
#[test]
fn a_sensor_that_is_not_there_is_not_zero() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let card = machine.card(0);
    card.set("H/temp3_input", "0");
    // nvtop#489.
    card.set("H/power1_cap", "0");
    card.set("H/power1_cap_default", "");
    card.set("unique_id", NOTHING);
    card.set("vbios_version", "");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let gpu = &report["gpus"][0];
    assert_eq!(gpu["uuid"], "PCI-0000:03:00.0");
    for name in ["memory_temperature_c", "power_limit_w", "power_limit_default_w", "vbios_version"] {
        assert!(lacks(gpu, name), "{name}: {gpu:#}");
    }
}

#[test]
fn power_is_in_one_of_two_files() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let (card, worker) = (machine.card(0), machine.start(&ollama, &[]));
    let is = |watts: f64| move |r: &Value| r["gpus"][0]["power_w"] == watts;
    worker.report_when("the average", is(68.0));
    card.set("H/power1_input", "99000000");
    card.set("H/power1_average", "70000000");
    worker.report_when("the average, not the moment", is(70.0));
    card.remove("H/power1_average");
    worker.report_when("the moment", is(99.0));
    card.set("H/power1_input", "0");
    worker.report_when("a card that takes nothing", is(0.0));
    card.fail("H/power1_input", EINVAL);
    worker.report_when("no power", |r| r["gpus"][0]["power_w"].is_null());
}

#[test]
fn fans_are_measured_or_set() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let (card, worker) = (machine.card(0), machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]));
    let is = |percent: u32| move |r: &Value| r["gpus"][0]["fan_percent"] == json!([percent]);
    card.set("H/fan1_input", "800");
    card.set("H/pwm1", "255");
    worker.report_when("the speed", is(25));
    card.remove("H/fan1_max");
    worker.report_when("what was set", is(100));
    // A card that drives its fan by itself says 0 here, whatever the fan does.
    card.set("H/pwm1", "0");
    worker.report_when("no share", |r| lacks(&r["gpus"][0], "fan_percent"));
    card.set("H/fan1_input", "0");
    worker.report_when("a fan that stands", is(0));
    card.remove("H/fan1_input");
    card.set("H/pwm1", "51");
    worker.report_when("what was set", is(20));
    card.remove("H/pwm1");
    worker.report_when("no fan", |r| lacks(&r["gpus"][0], "fan_percent"));
}

#[test]
fn sensors_are_known_by_their_labels() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let card = machine.card(0);
    for (number, label) in [("1", "mem"), ("2", "edge"), ("3", "junction")] {
        card.set(&format!("H/temp{number}_label"), label);
    }
    card.set("H/freq1_label", "mclk");
    card.set("H/freq2_label", "sclk");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let gpu = &report["gpus"][0];
    for (name, value) in [
        ("temperature_c", 61),
        ("temperature_slowdown_c", 110),
        ("hotspot_temperature_c", 68),
        ("memory_temperature_c", 53),
        ("memory_temperature_max_c", 100),
        ("graphics_clock_mhz", 772),
        ("memory_clock_mhz", 73),
    ] {
        assert_eq!(gpu[name], value, "{name}: {gpu:#}");
    }
    // Without an edge sensor the hottest spot is the temperature, and its limits are the limits.
    let machine = FakeAmd::new(&[MI300A]);
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let gpu = &report["gpus"][0];
    assert_eq!((&gpu["temperature_c"], &gpu["temperature_slowdown_c"]), (&json!(43), &json!(100)), "{gpu:#}");
}

#[test]
fn the_sensors_of_others_are_not_the_cards() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let card = machine.card(0);
    for (folder, name) in [("hwmon0", "ucsi_source_psy"), ("hwmon1", "amdgpu_other"), ("hwmon9", "nvme")] {
        for (file, text) in [("name", name), ("temp1_label", "edge"), ("temp1_input", "99000")] {
            card.set(&format!("hwmon/{folder}/{file}"), text);
        }
        card.set(&format!("hwmon/{folder}/power1_average"), "999000000");
    }
    let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["gpus"][0]["power_w"]), (&json!(53), &json!(68.0)));
}

#[test]
fn names_come_from_the_card_or_from_the_list_of_libdrm() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_7900_XTX, MI250X]), idle_ollama());
    let list = "# List of AMDGPU IDs\n1.0.0\n73BF,\tC1,\tAMD Radeon RX 6800 XT\n73BF,\tC0,\tAMD Radeon RX 6900 XT\n\
        744C,\tCC,\tAMD Radeon RX 7900 GRE\n7408,\t01,\tAMD Instinct of the list";
    machine.write("usr/share/libdrm/amdgpu.ids", list);
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let names: Vec<_> = report["gpus"].as_array().unwrap().iter().map(|gpu| gpu["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["AMD Radeon RX 6900 XT", "AMD GPU 1002:744c", "AMD Instinct MI250X"]);
}

#[test]
fn the_version_is_that_of_the_driver_or_of_the_kernel() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama());
    machine.write("sys/module/amdgpu/version", "6.8.5");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    assert_eq!(report["driver_version"], "6.8.5");
}

#[test]
fn errors_of_memory_are_summed() {
    let (machine, ollama) = (FakeAmd::new(&[MI250X]), idle_ollama());
    let card = machine.card(0);
    card.set("ras/umc_err_count", "ue: 3\nce: 90\nde: 1");
    card.set("ras/gfx_err_count", "ue: 2\nce: 4");
    let pages = "0x00000a01 : 0x00001000 : R\n0x00000a02 : 0x00001000 : R\n0x00000a07 : 0x00001000 : P";
    card.set("ras/gpu_vram_bad_pages", pages);
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    let report = worker.report_when("a GPU", read);
    let gpu = &report["gpus"][0];
    assert_eq!((&gpu["ecc_enabled"], &gpu["ecc_uncorrected_volatile"]), (&json!(true), &json!(5)), "{gpu:#}");
    assert_eq!(gpu["retired_pages"]["pending"], true, "{gpu:#}");
}

/// One that cannot be asked makes the sum unknown: its errors may be the ones that count.
#[test]
fn errors_that_cannot_be_asked_for_are_unknown() {
    let (machine, ollama) = (FakeAmd::new(&[MI250X]), idle_ollama());
    let card = machine.card(0);
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    for (text, errno) in [("Query currently inaccessible", None), ("ue: 3\nce: 90", Some(EIO)), ("ue: 3", Some(EINVAL))]
    {
        worker.report_when("no errors", |r| r["gpus"][0]["ecc_uncorrected_volatile"] == 0);
        card.set("ras/gfx_err_count", text);
        errno.into_iter().for_each(|errno| card.fail("ras/gfx_err_count", errno));
        let failed = |r: &Value| r["gpus"][0]["failed"]["ecc_uncorrected_volatile"].is_string();
        let report = worker.report_when(&format!("{text} {errno:?}"), failed);
        assert!(report["gpus"][0]["ecc_uncorrected_volatile"].is_null());
        card.set("ras/gfx_err_count", "ue: 0\nce: 0");
        card.heal("ras/gfx_err_count");
    }
}

#[test]
fn who_computes_is_known_by_the_kernels_driver_for_it() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_7900_XTX]), idle_ollama());
    let kfd = "sys/class/kfd/kfd";
    // The processor, then the cards in an order of their own.
    for (node, id, place) in [(0, 0, 0), (1, 51_889, 0x700), (2, 8_842, 0x300)] {
        let folder = format!("{kfd}/topology/nodes/{node}");
        machine.write(&format!("{folder}/gpu_id"), &id.to_string());
        let properties =
            format!("cpu_cores_count 0\nvendor_id 4098\nlocation_id {place}\ndomain 0\ndrm_render_minor 128");
        machine.write(&format!("{folder}/properties"), &properties);
    }
    machine.write(&format!("{kfd}/proc/4200001/vram_8842"), "6442450944");
    machine.write(&format!("{kfd}/proc/4200001/vram_51889"), "0");
    machine.write(&format!("{kfd}/proc/4200002/vram_51889"), "1048576");
    machine.write(&format!("{kfd}/proc/4200003/vram_8842"), "?");
    own_proc(Path::new(machine.root()), "7");
    process(Path::new(machine.root()), 4_200_001, b"ollama");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let row = |process: &Value| ["pid", "name", "vram_mb"].map(|name| process[name].clone());
    let rows = |gpu: usize| report["gpus"][gpu]["processes"].as_array().unwrap().iter().map(row).collect::<Vec<_>>();
    // One that uses the other card alone is not listed.
    let unknown = [json!(4_200_003), Value::Null, Value::Null];
    assert_eq!(rows(0), [[json!(4_200_001), json!("ollama"), json!(6144)], unknown]);
    assert_eq!(rows(1), [[json!(4_200_002), Value::Null, json!(1)]]);
}

/// A card in partitions (MI300X in CPX mode) is a node of the topology for each of them; bits 28 to 31 of the place are the
/// partition.
#[test]
fn who_computes_on_a_partition_computes_on_its_card() {
    let (machine, ollama) = (FakeAmd::new(&[MI300A]), idle_ollama());
    let kfd = "sys/class/kfd/kfd";
    for node in 0..4_u32 {
        let folder = format!("{kfd}/topology/nodes/{}", node + 1);
        machine.write(&format!("{folder}/gpu_id"), &(100 + node).to_string());
        let place = 0x300 | node << 28;
        machine.write(&format!("{folder}/properties"), &format!("vendor_id 4098\nlocation_id {place}\ndomain 0"));
        machine.write(&format!("{kfd}/proc/{}/vram_{}", 4_200_001 + node, 100 + node), "1073741824");
        machine.write(&format!("{kfd}/proc/4200009/vram_{}", 100 + node), "1073741824");
    }
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let processes = report["gpus"][0]["processes"].as_array().unwrap();
    let rows: Vec<_> = processes.iter().map(|process| [&process["pid"], &process["vram_mb"]]).collect();
    let alone = |pid: u32| [json!(pid), json!(1024)];
    let expect =
        [alone(4_200_001), alone(4_200_002), alone(4_200_003), alone(4_200_004), [json!(4_200_009), json!(4096)]];
    assert_eq!(rows, expect.each_ref().map(|[pid, mb]| [pid, mb]), "{report:#}");
}

#[test]
fn the_most_that_a_link_can_do_is_what_card_and_slot_can() {
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    // An extension cable: the card's port can do more than the processor's.
    machine.card(0).set("R/max_link_speed", "8.0 GT/s PCIe");
    machine.card(0).set("R/max_link_width", "8");
    machine.card(0).set("S/current_link_speed", "8.0 GT/s PCIe");
    machine.card(0).set("S/current_link_width", "8");
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    let gpu = &report["gpus"][0];
    let link = ["pcie_generation", "pcie_generation_max", "pcie_width", "pcie_width_max"].map(|name| &gpu[name]);
    assert_eq!(link, [&json!(3), &json!(3), &json!(8), &json!(8)], "{gpu:#}");
}
