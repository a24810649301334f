//! Every reading of every kind of GPU, through the real helper and a library that is really loaded.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, agent_net, codes, folder, run, skip, stood_still, verdict, wait_for};
use crate::nvml::FakeNvml;
use crate::programs;
use crate::rules::OF_ONE_GPU;

/// A GPU that has been read.
fn read(report: &Value) -> bool {
    report["gpus"][0]["error"].is_null() && report["gpus"][0]["index"] == 0 && report["ollama"]["reachable"] == true
}

fn lacks(gpu: &Value, name: &str) -> bool {
    gpu[name].is_null() && gpu["unsupported"].as_array().is_some_and(|all| all.contains(&json!(name)))
}

/// Processes with this memory, by the numbers from 4200001 on.
fn processes(mib: &[Option<u64>]) -> Value {
    mib.iter()
        .zip(4_200_001..)
        .map(|(mib, pid)| json!({"pid": pid, "name": null, "vram_mb": mib, "mig_uuid": null, "utilization_percent": null}))
        .collect()
}

/// What is not null, without the names of the rest.
fn known(gpu: &Value) -> Value {
    let fields = gpu.as_object().expect("a GPU").iter();
    let known = fields.filter(|(name, value)| !value.is_null() && *name != "unsupported");
    Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Each reading of the table that is null is named in `unsupported`, and no other one.
#[track_caller]
fn nulls_are_named(report: &Value) {
    for (gpu, some) in [(0, "memory_temperature_c"), (1, "power_alarm")] {
        let gpu = &report["gpus"][gpu];
        let named: BTreeSet<&str> = gpu["unsupported"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let all = gpu.as_object().unwrap();
        // Shares of the time between two samples are not known at the first one.
        let is_share = |name: &str| name.ends_with("_activity_percent") || name.ends_with("_mib_per_second");
        let other = |name: &str| ["error", "read_ms"].contains(&name) || is_share(name) && !named.contains(name);
        let null = all.iter().filter(|(name, value)| value.is_null() && !other(name));
        assert_eq!(named, null.map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>());
        assert!(named.contains(some) && !named.contains("temperature_c"), "{named:?}");
    }
}

/// The fake's GPU, by its defaults.
const FIRST: &str = r#"{
        "vendor": "nvidia", "index": 0, "uuid": "GPU-00000000-0000-0000-0000-000000000000", "name": "Fake RTX 0",
        "verdict": "ok", "pci_bus_id": "00000000:01:00.0", "unified_memory": false, "asleep": false,
        "vram_total_mb": 24576, "vram_used_mb": 7012, "vram_free_mb": 17052, "vram_reserved_mb": 512,
        "temperature_c": 41, "temperature_slowdown_c": 95, "temperature_shutdown_c": 98, "temperature_max_c": 90,
        "memory_temperature_max_c": 105, "power_w": 63.2, "power_limit_w": 350.0, "power_limit_default_w": 350.0,
        "energy_j": 123456, "utilization_percent": 3, "memory_utilization_percent": 1, "graphics_clock_mhz": 210,
        "graphics_clock_max_mhz": 2520, "memory_clock_mhz": 405, "memory_clock_max_mhz": 9001, "performance_state": 8,
        "throttle_reasons": ["idle"],
        "throttle_seconds": {"sw_power": 0.0, "sw_thermal": 0.0, "hw_thermal": 0.0, "hw_power_brake": 0.0},
        "recovery_action": 0, "fan_percent": [30], "pcie_generation": 1, "pcie_generation_max": 4, "pcie_width": 16,
        "pcie_width_max": 16, "pcie_replays": 0, "ecc_enabled": true, "ecc_uncorrected_volatile": 0,
        "ecc_uncorrected_aggregate": 0,
        "remapped_rows": {"correctable": 0, "uncorrectable": 0, "pending": false, "failed": false},
        "inforom_corrupt": false, "vbios_version": "95.02.18.80.5F", "compute_capability": "8.9",
        "persistence_mode": true, "xids": [],
        "processes": [{"pid": 4200042, "name": null, "vram_mb": 6321, "mig_uuid": null, "utilization_percent": null}], "failed": {}
    }"#;

#[test]
fn every_reading_of_every_gpu_is_reported() {
    let second = "gpu1.temperature=77\ngpu1.memory=8192/8000\ngpu1.fans=2\ngpu1.processes=4200001:100,4200002:-,4200003:200\ngpu1.power=99\n\
        gpu1.recovery=0\ngpu1.rows=3/2/0/0\ngpu1.retired=5/1\ngpu1.retired_pending=0\ngpu1.ecc_errors=0/4\ngpu1.mig=0\n\
        gpu1.memory_temperature=66\ngpu1.nvlinks=1/0/1\ngpu1.throttle=68\ngpu1.persistence=0\ngpu1.margin=13\n\
        gpu1.sram=0\ngpu1.repair=0/0\ngpu1.unrepairable=0\ngpu1.spares=9/8/7/6/0\ngpu1.fabric=3/0/1/3\n\
        gpu1.memory_power=43190\ngpu1.gpm=1/2/3/4/5\ngpu1.addressing=0";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&format!("gpus=2\n{second}")));
    let worker = start(&ollama, &nvml, &[]);
    let mut report = worker.report_when("verdict ok", is_ok);
    assert!(report["gpus"][0]["read_ms"].take().is_u64());
    let first: Value = serde_json::from_str(FIRST).unwrap();
    assert_eq!(known(&report["gpus"][0]), first, "{:#}", report["gpus"][0]);
    nulls_are_named(&report);
    let gpu = &report["gpus"][1];
    for (name, expect) in [
        ("temperature_c", json!(77)),
        ("vram_free_mb", json!(192)),
        ("fan_percent", json!([30, 30])),
        ("processes", processes(&[Some(100), None, Some(200)])),
        ("power_w", json!(0.1)),
        ("remapped_rows", json!({"correctable": 3, "uncorrectable": 2, "pending": false, "failed": false})),
        ("retired_pages", json!({"single_bit": 5, "double_bit": 1, "pending": false})),
        ("ecc_uncorrected_aggregate", json!(4)),
        ("mig_mode", json!(false)),
        ("memory_temperature_c", json!(66)),
        ("nvlinks_active", json!(2)),
        ("throttle_reasons", json!(["sw_power", "hw_thermal"])),
        ("persistence_mode", json!(false)),
        ("temperature_margin_c", json!(13)),
        ("sram_threshold_exceeded", json!(false)),
        ("channel_repair_pending", json!(false)),
        ("tpc_repair_pending", json!(false)),
        ("unrepairable_memory", json!(false)),
        ("spare_rows", json!({"max": 9, "high": 8, "partial": 7, "low": 6, "none": 0})),
        ("fabric_state", json!("completed")),
        ("fabric_status", json!("success")),
        ("fabric_health", json!("limited capacity: reduced bandwidth")),
        ("memory_power_w", json!(43.2)),
        ("addressing_mode", json!("none")),
    ] {
        assert_eq!(gpu[name], expect, "{name}");
    }
    assert_eq!((&report["gpu_count"], &report["source"]), (&json!(2), &json!("nvml+ollama")));
    assert_eq!((&report["driver_version"], &report["nvml_version"]), (&json!("550.54.14"), &json!("12.550.54.14")));
    assert_eq!(report["cuda_version"], "12.4");
    assert!(report["read_us"].as_u64().is_some_and(|us| us > 0), "{report:#}");
}

#[test]
fn whose_memory_it_is_is_what_the_driver_says() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let main = meminfo.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024;
    #[track_caller]
    fn check(lines: &str, expect: &[Value; 3]) {
        let (ollama, nvml) =
            (FakeOllama::new(), FakeNvml::new(&lines.replace("; ", "\ngpu0.").replacen("", "gpu0.", 1)));
        let gpu = start(&ollama, &nvml, &[]).report_when("a GPU", read)["gpus"][0].take();
        let seen = ["unified_memory", "vram_total_mb", "addressing_mode"].map(|name| gpu[name].clone());
        assert_eq!(&seen, expect, "{lines}: {gpu:#}");
    }
    let main = || json!(main);
    for absent in ["memory=err:3", "memory=0/0"] {
        // A part whose name says nothing.
        check(&format!("name=NVIDIA N1X; addressing=2; {absent}"), &[json!(true), main(), json!("ats")]);
        check(&format!("name=NVIDIA GB10; addressing=2; {absent}"), &[json!(true), main(), json!("ats")]);
        check(&format!("name=NVIDIA Thor; addressing=0; {absent}"), &[json!(true), main(), json!("none")]);
        check(&format!("name=NVIDIA Thor; addressing=err:3; {absent}"), &[json!(true), main(), Value::Null]);
        check(
            &format!("name=NVIDIA GB10 look-alike; addressing=1; {absent}"),
            &[json!(false), Value::Null, json!("hmm")],
        );
        check(&format!("name=NVIDIA L4; addressing=0; {absent}"), &[json!(false), Value::Null, json!("none")]);
    }
    let own = || json!(98304);
    check("name=NVIDIA GH200 480GB; addressing=2; memory=98304/500", &[json!(false), own(), json!("ats")]);
    check("name=NVIDIA GeForce RTX 5090; addressing=1; memory=98304/500", &[json!(false), own(), json!("hmm")]);
    check("name=NVIDIA GeForce RTX 3090; memory=98304/500", &[json!(false), own(), Value::Null]);
    // A driver that reports the machine's memory as the GPU's.
    let all = format!("memory={}/500", main());
    check(&format!("name=NVIDIA GB10; addressing=2; {all}"), &[json!(true), main(), json!("ats")]);
    check(&format!("name=NVIDIA GeForce RTX 5090; addressing=1; {all}"), &[json!(false), main(), json!("hmm")]);
}

#[test]
fn what_a_gpu_does_not_have_is_null_and_named_and_not_a_fault() {
    let text = "gpu0.power=err:3\ngpu0.temperature=err:3\ngpu0.memory=err:3\ngpu0.limit=err:4\ngpu0.fans=0\n\
        gpu0.pcie_gen=err:13\ngpu0.recovery=err:2\ngpu0.energy=err:3";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(text));
    let report = start(&ollama, &nvml, &[]).report_when("verdict ok", is_ok);
    let gpu = &report["gpus"][0];
    for name in [
        "vram_total_mb",
        "vram_used_mb",
        "vram_free_mb",
        "temperature_c",
        "power_w",
        "power_limit_w",
        "fan_percent",
        "pcie_generation",
        "recovery_action",
        "energy_j",
    ] {
        assert!(lacks(gpu, name), "{name}: {gpu:#}");
    }
    assert_eq!(gpu["utilization_percent"], 3);
    // ECC that is off has no errors to count.
    nvml.set("gpu0.ecc=0");
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("verdict ok", is_ok);
    assert!(lacks(&report["gpus"][0], "ecc_uncorrected_volatile") && report["gpus"][0]["ecc_enabled"] == false);
}

#[test]
fn a_reading_that_fails_is_null_and_degrades_until_it_works() {
    for (text, name) in [
        ("gpu0.temperature=err:999", "temperature_c"),
        // No sensor that works shows these, and no GPU has no memory.
        ("gpu0.temperature=0", "temperature_c"),
        ("gpu0.temperature=200", "temperature_c"),
        ("gpu0.memory=0/0", "vram_total_mb"),
        ("gpu0.utilization=err:999", "utilization_percent"),
    ] {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(text));
        let worker = start(&ollama, &nvml, &[]);
        let report = worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
        let gpu = &report["gpus"][0];
        assert_eq!((verdict(&report), &gpu[name], &gpu["verdict"]), ("degraded", &Value::Null, &json!("degraded")));
        assert!(gpu["failed"][name].is_string() && !lacks(gpu, name), "{gpu:#}");
        nvml.set("");
        worker.report_when("verdict ok", is_ok);
    }
}

#[test]
fn a_failed_reading_is_a_fault_only_if_it_worked_before() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.pcie_gen=err:27"));
    let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
    let report = worker.report_when("verdict ok", is_ok);
    assert!(report["gpus"][0]["failed"]["pcie_generation"].is_string(), "{report:#}");
    nvml.set("");
    worker.report_when("the reading", |r| r["gpus"][0]["pcie_generation"] == 1);
    nvml.set("gpu0.pcie_gen=err:27");
    worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
}

#[test]
fn a_driver_that_counts_memory_the_old_way_is_read_the_old_way() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.memory_v2=err:13"));
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("verdict ok", is_ok);
    let gpu = &report["gpus"][0];
    // It counts as used what is held back.
    assert_eq!((&gpu["vram_total_mb"], &gpu["vram_used_mb"]), (&json!(24576), &json!(7524)));
    assert!(lacks(gpu, "vram_reserved_mb"), "{gpu:#}");
}

/// The driver's numbers of these fields changed; the library below has each driver's own.
#[test]
fn a_fan_that_a_driver_cannot_count_is_read() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("driver=470.256.02\ngpu0.fans=err:13\ngpu0.fan=44"));
    let report = start(&ollama, &nvml, &[]).report_when("verdict ok", is_ok);
    assert_eq!(report["gpus"][0]["fan_percent"], json!([44]));
}

#[test]
fn throttle_counters_are_found_with_old_drivers_and_new_ones() {
    for driver in ["470.256.02", "550.54.14", "580.65.06", "580.82.07", "590.44.01"] {
        let text = format!("driver={driver}\ngpu0.throttle_ns=1000000000/2000000000/3000000000/4500000000");
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&text));
        let report = start(&ollama, &nvml, &[]).report_when("verdict ok", is_ok);
        let seconds = json!({"sw_power": 1.0, "sw_thermal": 2.0, "hw_thermal": 3.0, "hw_power_brake": 4.5});
        assert_eq!(report["gpus"][0]["throttle_seconds"], seconds, "{driver}");
        assert_eq!(report["driver_version"], driver);
    }
}

#[test]
fn a_part_without_memory_of_its_own_shows_the_machines() {
    for memory in ["err:3", "0/0"] {
        // Its link is a fake one that says Gen1 x1.
        let text = format!(
            "gpu0.name=NVIDIA GB10\ngpu0.memory={memory}\ngpu0.pcie_width=1\ngpu0.pstate=0\ngpu0.shutdown=err:3\n\
             gpu0.slowdown=err:3\ngpu0.max=err:3\ngpu0.fans=err:3\ngpu0.limit=err:3"
        );
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&text));
        let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
        let report = worker.report_when("verdict ok", is_ok);
        let gpu = &report["gpus"][0];
        assert_eq!(gpu["unified_memory"], true);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let kib: u64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(gpu["vram_total_mb"], kib / 1024, "{gpu:#}");
        let [total, used, free] = ["total", "used", "free"].map(|n| gpu[format!("vram_{n}_mb")].as_u64().unwrap());
        assert!(used > 0 && free > 0 && used + free <= total + 1, "{gpu:#}");
        stays_ok(&worker);
    }
}

#[test]
fn whole_gpus_that_are_shared_out_are_not_a_fault() {
    let mig = "gpu0.mig=1\ngpu0.mig0=1/0/16/1/1/9984/7000\ngpu0.utilization=err:3\ngpu0.memory=err:4\ngpu0.rows=err:999\ngpu0.ecc_errors=err:999\n\
        gpu0.power=err:999";
    let vgpu = "gpu0.temperature=err:3\ngpu0.power=err:3\ngpu0.limit=err:3\ngpu0.default_limit=err:3\ngpu0.fans=err:3\n\
        gpu0.energy=err:3\ngpu0.pcie_gen=err:3\ngpu0.pcie_width=err:3\ngpu0.pcie_gen_max=err:3\ngpu0.pcie_width_max=err:3\n\
        gpu0.replays=err:3\ngpu0.shutdown=err:3\ngpu0.slowdown=err:3\ngpu0.max=err:3\ngpu0.memory_max=err:3\n\
        gpu0.ecc=err:3\ngpu0.recovery=err:3\ngpu0.rows=err:3\ngpu0.throttle_ns=err:3\ngpu0.throttle=err:3\n\
        gpu0.inforom=err:3\ngpu0.vbios=err:3\ngpu0.compute=err:3\ngpu0.events=err:3\ngpu0.persistence=err:3";
    for text in [mig, vgpu] {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(text));
        let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
        let report = worker.report_when("a GPU", read);
        assert_eq!((verdict(&report), &report["gpu_count"]), ("ok", &json!(1)), "{report:#}");
        stays_ok(&worker);
    }
    // One that is cut into slices while it is watched loses readings that it had.
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.mig=0"));
    let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "100ms")]);
    worker.report_when("no MIG", |r| is_ok(r) && r["gpus"][0]["mig_mode"] == false);
    nvml.set(mig);
    worker.report_when("MIG", |r| r["gpus"][0]["mig_mode"] == true);
    stays_ok(&worker);
}

/// Conditions that need several samples have them.
pub fn stays_ok(worker: &Worker) {
    let mut seen = BTreeSet::new();
    wait_for("ten samples", || {
        let report = worker.report();
        if stood_still(&report) {
            return None;
        }
        assert!(is_ok(&report), "{report:#}");
        seen.insert(report["read_us"].as_u64());
        (seen.len() >= 10).then_some(())
    });
}

#[test]
fn a_gpu_that_reports_nothing_is_unknown() {
    let nothing = "gpu0.memory=err:3\ngpu0.temperature=err:3\ngpu0.utilization=err:3";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(nothing));
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("a GPU", read);
    assert_eq!((codes(&report), verdict(&report)), (vec!["GPU_NO_READINGS"], "unknown"));
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

/// What a driver says of its GPUs is data: it is passed on, but it breaks nothing.
#[test]
fn odd_answers_of_the_library_do_no_harm() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=4000000000\ngpu0.name=a\"}\u{1b}[2J\u{2028}'$(x)"));
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("GPUs", |r| r["gpus"].as_array().is_some_and(|gpus| !gpus.is_empty()));
    assert_eq!(report["gpus"][0]["name"], "a\"}\u{1b}[2J\u{2028}'$(x)");
    assert_eq!(report["gpus"].as_array().unwrap().len(), 128);
    let nvml = FakeNvml::new("gpu0.uuid=err:3\ngpu0.temperature=err:999\ngpu0.energy=18446744073709551615\ngpu0.pci=x");
    let report = start(&ollama, &nvml, &[]).report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
    assert_eq!((&report["gpus"][0]["uuid"], &report["gpus"][0]["pci_bus_id"]), (&Value::Null, &json!("x")));
    assert_eq!((&report["health"]["reasons"][0]["gpu"], verdict(&report)), (&json!("gpu0"), "degraded"));
}

/// Valgrind is installed; a word about it where it is not.
pub fn has_valgrind() -> bool {
    let found = std::process::Command::new("valgrind").arg("--version").output();
    let found = found.is_ok_and(|out| out.status.success());
    if !found {
        skip("valgrind is missing");
    }
    found
}

/// The helper is the one program with unsafe code: memcheck watches each of its calls, with every value that a library
/// may give and every error.
#[test]
fn memcheck_finds_nothing_in_the_helper() {
    if !has_valgrind() {
        return;
    }
    let dir = folder("memcheck");
    let (log, helper) = (dir.join("log"), dir.join("helper"));
    let program = programs::helper();
    let script = format!("#!/bin/sh\nexec valgrind -q --log-file={}.%p {program}\n", log.display());
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, Permissions::from_mode(0o755)).unwrap();
    let ollama = FakeOllama::new();
    let url = ollama.url();
    // Each row on a GPU of its own.
    let rows: String = OF_ONE_GPU
        .iter()
        .enumerate()
        .map(|(number, (row, ..))| row.replace("gpu0.", &format!("gpu{number}.")) + "\n")
        .collect();
    let many = format!("gpus={}\n{rows}", OF_ONE_GPU.len());
    for settings in [many.as_str(), "gpus=3\ndriver=470.82\ngpu1.memory=err:13", "gpus=2\ngpu*.power=err:3", "init=9"] {
        let nvml = FakeNvml::new(settings);
        let mut command = agent_net();
        command.envs(nvml.settings()).env("OLLAMA_URL", &url).env("NVML_HELPER", &helper);
        // Not a worker that runs here.
        command.env("SERVER_PORT", "1").args(["check", "--json", "--timeout", "50s"]);
        let (_, out, err) = run(&mut command);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
        let failed = codes(&report).iter().any(|code| code.starts_with("NVML_HELPER") || *code == "DRIVER_STUCK");
        assert!(!failed, "{settings}: {report:#}");
    }
    let logs: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|p| *p != helper).collect();
    assert!(logs.len() >= 4, "{logs:?}");
    for log in logs {
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.is_empty(), "{text}");
    }
}
