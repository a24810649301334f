//! Which cards a machine has, and those of NVIDIA beside them.

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::read;
use crate::counting::Denied;
use crate::fake_amd::boards::{RADEON_780M, RX_6600, RX_6900_XT, RX_7900_XTX};
use crate::fake_amd::more_boards::RX_580;
use crate::fake_amd::{FakeAmd, NOTHING, idle_ollama};
use crate::gpus::{has, is_ok};
use crate::harness::{codes, verdict};
use crate::nvml::FakeNvml;

fn slots(report: &Value) -> Vec<&str> {
    report["gpus"].as_array().unwrap().iter().map(|gpu| gpu["pci_bus_id"].as_str().unwrap_or("?")).collect()
}

#[test]
fn cards_stand_by_their_place_on_the_bus() {
    let boards = [RX_6900_XT, RX_6600, RX_580];
    let (machine, ollama) = (FakeAmd::new(&boards), idle_ollama());
    let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!(slots(&report), ["0000:03:00.0", "0000:07:00.0", "0000:0b:00.0"]);
    let indices: Vec<_> = report["gpus"].as_array().unwrap().iter().map(|gpu| &gpu["index"]).collect();
    assert_eq!((indices, &report["gpu_count"]), (vec![&json!(0), &json!(1), &json!(2)], &json!(3)));
}

#[test]
fn a_gpu_in_the_processor_is_listed_where_it_is_alone_or_wanted() {
    let ollama = idle_ollama();
    let both = FakeAmd::new(&[RX_6900_XT, RADEON_780M]);
    let report = both.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!((slots(&report), &report["gpu_count"]), (vec!["0000:03:00.0"], &json!(1)));
    let report = both.start(&ollama, &[("AMD_GPUS", "all")]).report_when("verdict ok", is_ok);
    assert_eq!(slots(&report), ["0000:03:00.0", "0000:c4:00.0"]);
    let report = both.start(&ollama, &[("AMD_GPUS", "off")]).report_when("a verdict", |r| !codes(r).is_empty());
    assert_eq!((&report["gpus"], &report["gpu_count"]), (&json!([]), &json!(0)));
    let reasons = report["health"]["reasons"].to_string();
    assert!(
        reasons.contains("AMD_GPUS=off leaves out the AMD GPUs") && reasons.contains("Set AMD_GPUS=auto"),
        "{report:#}"
    );
    // Nor beside a card of NVIDIA.
    let (mixed, nvml) = (FakeAmd::new(&[RADEON_780M]), FakeNvml::new(""));
    mixed.add_nvidia();
    let report = mixed.start(&ollama, &nvml.settings()).report_when("verdict ok", is_ok);
    assert_eq!((&report["gpu_count"], &report["gpus"][0]["vendor"]), (&json!(1), &json!("nvidia")));
    let all = [&nvml.settings()[..], &[("AMD_GPUS", "all")]].concat();
    let worker = mixed.start(&ollama, &all);
    let report = worker.report_when("two GPUs", |r| r["gpu_count"] == 2);
    assert_eq!(report["gpus"][1]["vendor"], "amd");
    // The version of NVIDIA's driver is not that of a GPU of AMD.
    let metrics = worker.get("/metrics").text().to_owned();
    let info = |vendor: &str| {
        metrics
            .lines()
            .find(|line| line.starts_with("agent_net_gpu_info{") && line.contains(vendor))
            .unwrap()
            .to_owned()
    };
    assert!(info("vendor=\"nvidia\"").contains("driver_version=\"550"), "{metrics}");
    assert!(info("vendor=\"amd\"").contains("driver_version=\"\",cuda_version=\"\""), "{metrics}");
}

/// Such a card runs no model here: that of the processor is what there is.
#[test]
fn a_gpu_in_the_processor_is_listed_beside_a_card_that_nvidias_driver_does_not_have() {
    for driver in ["vfio-pci", "nouveau"] {
        let (machine, ollama) = (FakeAmd::new(&[RADEON_780M]), idle_ollama());
        machine.add_nvidia();
        let at = "sys/devices/pci0000:00/0000:00:1b.0/0000:41:00.0/driver";
        std::fs::remove_file(format!("{}/{at}", machine.root())).unwrap();
        machine.link(at, &format!("sys/bus/pci/drivers/{driver}"));
        let worker = machine.start(&ollama, &[]);
        let report =
            worker.report_when(driver, |r| r["ollama"]["reachable"] == true && !codes(r).contains(&"NO_SAMPLE"));
        assert_eq!((slots(&report), verdict(&report)), (vec!["0000:c3:00.0"], "ok"), "{report:#}");
    }
}

/// Discrete by more than the name of the memory's vendor, which older kernels do not show.
#[test]
fn a_card_is_not_taken_for_a_part_of_the_processor() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6600, RX_6900_XT]), idle_ollama());
    machine.card(0).remove("mem_info_vram_vendor");
    let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!(slots(&report).len(), 2);
    assert_eq!(report["gpus"][0]["unified_memory"], false);
}

/// Older kernels make these files for a GPU in the processor too, without a word in them.
#[test]
fn a_part_of_the_processor_is_not_taken_for_a_card() {
    let (machine, ollama) = (FakeAmd::new(&[RADEON_780M]), idle_ollama());
    for (file, text) in [("product_name", ""), ("product_name", NOTHING), ("mem_info_vram_vendor", "unknown")] {
        machine.card(0).set(file, text);
        let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
        let gpu = &report["gpus"][0];
        assert_eq!((&gpu["unified_memory"], &gpu["vram_total_mb"]), (&json!(true), &json!(34_073)), "{file}: {gpu:#}");
    }
}

/// The others are not read from the start again.
#[test]
fn a_card_that_stays_does_not_notice_those_that_go_and_come() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6600, RX_6900_XT, RX_580]), idle_ollama());
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    worker.report_when("verdict ok", is_ok);
    for _ in 0..2 {
        machine.card(0).unplug();
        worker.report_when("two cards", |r| r["gpu_count"] == 2);
        machine.card(0).replug();
        worker.report_when("three cards", |r| r["gpu_count"] == 3 && is_ok(r));
    }
    let times = |card: usize, file: &str| {
        let opened = machine.card(card).opened(&machine.opened());
        opened.iter().filter(|other| *other == file).count()
    };
    assert_eq!((times(1, "vbios_version"), times(2, "vbios_version")), (1, 1));
    assert!(times(0, "vbios_version") >= 3);
}

/// The kernel lets go of a card whose driver cannot go on, and where the owner gives it to a virtual machine.
#[test]
fn a_card_without_its_driver_is_missed_at_once() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1h")]);
    worker.report_when("verdict ok", is_ok);
    machine.card(0).remove("driver");
    let report = worker.report_when("GPU_COUNT_LOW", has("GPU_COUNT_LOW"));
    assert_eq!((verdict(&report), &report["gpu_count"]), ("unhealthy", &json!(1)), "{report:#}");
}

/// A container that has one of two cards sees both in sysfs.
#[test]
fn a_card_without_a_node_is_not_this_workers() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    for node in machine.card(0).nodes() {
        std::fs::remove_file(format!("{}/{node}", machine.root())).unwrap();
    }
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    assert_eq!(slots(&report), ["0000:07:00.0"]);
    // ROCm/legacy-rocm-build#2366: it has both nodes, and its cgroup lets it open one.
    let machine = FakeAmd::new(&[RX_6900_XT, RX_6600]);
    let [_, node] = machine.card(0).nodes();
    if let Some(_denied) = Denied::new(format!("{}/{node}", machine.root()).into()) {
        let report = machine.start(&ollama, &[]).report_when("a GPU", read);
        assert_eq!(slots(&report), ["0000:07:00.0"]);
    }
    // Without any node it is sysfs that counts: readings need none.
    let machine = FakeAmd::new(&[RX_6900_XT, RX_6600]);
    std::fs::remove_dir_all(format!("{}/dev/dri", machine.root())).unwrap();
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    assert_eq!(slots(&report).len(), 2);
}

#[test]
fn what_is_not_a_card_of_amdgpu_is_left_out() {
    // Card 1 has another driver, card 2 is part of another one, card 3 belongs to a virtual machine.
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_580, RX_7900_XTX, RX_6600]), idle_ollama());
    machine.card(1).remove("driver");
    machine.link(&machine.card(1).path("driver"), "sys/bus/pci/drivers/radeon");
    machine.link(&machine.card(2).path("physfn"), &machine.card(0).folder());
    machine.card(3).remove("driver");
    machine.link(&machine.card(3).path("driver"), "sys/bus/pci/drivers/vfio-pci");
    // A card of another maker, and one that shows no driver.
    for (name, vendor) in [("card8", "0x8086"), ("card9", "0x1002")] {
        let device = format!("sys/devices/pci0000:00/0000:00:02.{}", &name[4..]);
        machine.write(&format!("{device}/vendor"), vendor);
        machine.write(&format!("{device}/drm/{name}/dev"), "226:9");
        machine.link(&format!("{device}/drm/{name}/device"), &device);
        machine.link(&format!("sys/class/drm/{name}"), &format!("{device}/drm/{name}"));
    }
    machine.write("sys/class/drm/card", NOTHING);
    let report = machine.start(&ollama, &[]).report_when("a GPU", read);
    assert_eq!((slots(&report), &report["gpu_count"]), (vec!["0000:03:00.0"], &json!(1)));
}

#[test]
fn a_card_that_is_pulled_is_missed_until_it_is_back() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama());
    let worker = machine.start(&ollama, &[("SLOW_SAMPLE_INTERVAL", "1s")]);
    worker.report_when("verdict ok", is_ok);
    // The one before the other: the other one must not be taken for it.
    machine.card(0).unplug();
    let report = worker.report_when("GPU_COUNT_LOW", has("GPU_COUNT_LOW"));
    assert_eq!((verdict(&report), &report["gpu_count"]), ("unhealthy", &json!(1)), "{report:#}");
    let there = |gpu: &&Value| gpu["error"].is_null();
    let gpus: Vec<_> = report["gpus"].as_array().unwrap().iter().filter(there).collect();
    assert_eq!(
        (gpus.len(), &gpus[0]["pci_bus_id"], &gpus[0]["temperature_c"]),
        (1, &json!("0000:07:00.0"), &json!(28))
    );
    machine.card(0).replug();
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!(
        (slots(&report), &report["gpus"][0]["temperature_c"]),
        (vec!["0000:03:00.0", "0000:07:00.0"], &json!(56))
    );
}

/// The only card: its helper stays, and it comes back.
#[test]
fn the_last_card_comes_back_as_well() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    machine.card(0).unplug();
    let report = worker.report_when("a missing GPU", |r| verdict(r) == "unhealthy");
    assert_eq!(report["gpu_count"], 0, "{report:#}");
    machine.card(0).replug();
    worker.report_when("verdict ok", is_ok);
}

/// Not even where another helper looks for it: that one has never seen the card.
#[test]
fn the_gpu_in_the_processor_does_not_take_the_place_of_a_lost_card() {
    let (machine, ollama) = (FakeAmd::new(&[RX_6900_XT, RADEON_780M]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    machine.card(0).unplug();
    worker.report_when("a missing GPU", |r| verdict(r) == "unhealthy");
    kill_process(worker.helpers()[0], Signal::KILL).unwrap();
    let is_helper = |code: &&str| ["NVML_HELPER_FAILED", "DRIVER_STARTING"].contains(code);
    worker.report_when("a dead helper", |r| codes(r).iter().any(is_helper));
    let report = worker.report_when("another helper", |r| !codes(r).iter().any(is_helper));
    assert_eq!((verdict(&report), &report["gpu_count"]), ("unhealthy", &json!(0)), "{report:#}");
    machine.card(0).replug();
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!(slots(&report), ["0000:03:00.0"]);
}

#[test]
fn one_list_has_the_gpus_of_both_makers() {
    let (machine, ollama, nvml) = (FakeAmd::new(&[RX_6900_XT, RX_6600]), idle_ollama(), FakeNvml::new("gpus=2"));
    machine.add_nvidia();
    let report = machine.start(&ollama, &nvml.settings()).report_when("verdict ok", is_ok);
    let gpus = report["gpus"].as_array().unwrap();
    let row = |gpu: &Value| (gpu["index"].as_u64().unwrap(), gpu["vendor"].as_str().unwrap().to_owned());
    let rows: Vec<_> = gpus.iter().map(row).collect();
    let expect = ["nvidia", "nvidia", "amd", "amd"].map(str::to_owned);
    assert_eq!(rows, (0..).zip(expect).collect::<Vec<_>>());
    assert_eq!((&report["gpu_count"], &report["driver_version"]), (&json!(4), &json!("550.54.14")));
    assert_eq!((&gpus[0]["temperature_c"], &gpus[2]["temperature_c"]), (&json!(41), &json!(56)));
}

#[test]
fn the_source_names_the_driver() {
    let (machine, ollama, nvml) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama(), FakeNvml::new(""));
    let report = machine.start(&ollama, &[]).report_when("verdict ok", is_ok);
    assert_eq!(report["source"], "amdgpu+ollama");
    machine.add_nvidia();
    let report = machine.start(&ollama, &nvml.settings()).report_when("two GPUs", |r| r["gpu_count"] == 2);
    assert_eq!(report["source"], "nvml+amdgpu+ollama");
}

#[test]
fn a_faulty_nvml_does_not_hide_the_other_maker() {
    let (machine, ollama, nvml) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama(), FakeNvml::new("init=999"));
    machine.add_nvidia();
    let worker = machine.start(&ollama, &nvml.settings());
    let report = worker.report_when("NVML_INIT_UNKNOWN", has("NVML_INIT_UNKNOWN"));
    assert_ne!(verdict(&report), "ok");
    let report = worker.report_when("the other card", |r| r["gpus"][0]["vendor"] == "amd");
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["gpus"][0]["error"]), (&json!(56), &Value::Null));
    nvml.set("");
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!((&report["gpu_count"], &report["gpus"][1]["vendor"]), (&json!(2), &json!("amd")));
    // And hangs alone: the helper of AMD is another one.
    nvml.set("at_sample=hang");
    let report = worker.report_when("NVML that hangs", |r| verdict(r) != "ok");
    let amd = report["gpus"].as_array().unwrap().iter().find(|gpu| gpu["vendor"] == "amd").unwrap();
    assert_eq!((&amd["temperature_c"], &amd["error"]), (&json!(56), &Value::Null), "{report:#}");
}

#[test]
fn a_faulty_card_does_not_hide_the_other_maker() {
    let (machine, ollama, nvml) = (FakeAmd::new(&[RX_6900_XT]), idle_ollama(), FakeNvml::new(""));
    machine.add_nvidia();
    let worker = machine.start(&ollama, &nvml.settings());
    worker.report_when("verdict ok", is_ok);
    machine.card(0).hang("gpu_busy_percent");
    let report = worker.report_when("a card that hangs", |r| r["gpus"][1]["error"].is_string());
    assert_eq!((&report["gpus"][0]["vendor"], &report["gpus"][0]["temperature_c"]), (&json!("nvidia"), &json!(41)));
    machine.card(0).heal("gpu_busy_percent");
    worker.report_when("verdict ok", is_ok);
}
