//! What public fault reports of GPU machines showed: slow drivers, dead GPUs, absurd values, a GPU that answers late.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus::{HURRY, has, is_ok, start};
use crate::harness::{Worker, codes, verdict, wait_for};
use crate::nvml::FakeNvml;
use crate::readings::stays_ok;

fn worker(ollama: &FakeOllama, nvml: &FakeNvml) -> Worker {
    start(ollama, nvml, &[("SLOW_SAMPLE_INTERVAL", "200ms")])
}

fn reason<'a>(report: &'a Value, code: &str) -> &'a Value {
    let reasons = report["health"]["reasons"].as_array().unwrap();
    reasons.iter().find(|reason| reason["code"] == code).unwrap_or_else(|| panic!("no {code}: {report:#}"))
}

/// Without persistence mode a driver takes 6 to 25 s to start (nvidia-docker#628, #723, #1133).
#[test]
fn a_driver_that_starts_slowly_is_unknown_and_comes_up() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_init=sleep:6000"));
    let worker = worker(&ollama, &nvml);
    let mut seen = Vec::new();
    let report = wait_for("verdict ok", || {
        let report = worker.report();
        let (verdict, codes) = (verdict(&report).to_owned(), codes(&report).join(" "));
        if seen.last().is_none_or(|(_, last)| *last != codes) {
            seen.push((verdict, codes));
        }
        Some(report).filter(is_ok)
    });
    assert_eq!(report["gpus"][0]["temperature_c"], 41);
    // Nothing but unknown before it was ok; ever since the start was worth a word, with its name.
    let (last, before) = seen.split_last().unwrap();
    assert!(before.iter().all(|(verdict, _)| verdict == "unknown"), "{seen:?}");
    assert!(before.iter().any(|(_, codes)| codes == "DRIVER_STARTING") && last.1.is_empty(), "{seen:?}");
    let log = worker.log();
    // It took 6 s, and the machine may have taken some more.
    let seconds = |before: &str| -> u64 {
        let (_, rest) = log.split_once(before).unwrap_or_else(|| panic!("{before}: {log}"));
        rest.split_once(" s").unwrap().0.parse().unwrap()
    };
    assert!(log.contains("DRIVER_STARTING") && seconds("has been starting for ") >= 2, "{log}");
    assert!(seconds("driver took ") >= 6 && log.contains(" s to start") && log.contains("persistence mode"), "{log}");
    assert!(!log.contains("DRIVER_STUCK") && worker.helpers().len() == 1, "{log}");
    // A driver that starts was not down.
    let uptime: Value = worker.get("/uptime").json();
    assert!(uptime["windows"]["1h"]["percent"].is_null() || uptime["windows"]["1h"]["percent"] == 100.0, "{uptime:#}");
}

#[test]
fn a_driver_that_was_gone_and_starts_slowly_is_unknown_meanwhile() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("init=9"));
    let worker = worker(&ollama, &nvml);
    let gone = ["DRIVER_NOT_LOADED", "NVML_LIB_MISSING"];
    worker.report_when("no driver", |r| codes(r).iter().any(|code| gone.contains(code)));
    nvml.set("at_init=sleep:4000");
    let report = worker.report_when("DRIVER_STARTING", has("DRIVER_STARTING"));
    assert_eq!(verdict(&report), "unknown");
    worker.report_when("verdict ok", is_ok);
}

/// A driver that takes its time to refuse is not about to come up each time that it is asked.
#[test]
fn a_driver_that_refuses_slowly_stays_what_it_is() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_init=sleep:3000\ninit=18"));
    let worker = worker(&ollama, &nvml);
    worker.report_when("the refusal", has("DRIVER_LIB_MISMATCH"));
    for _ in 0..60 {
        let report = worker.report();
        assert_eq!((verdict(&report), codes(&report)), ("unhealthy", vec!["DRIVER_LIB_MISMATCH"]), "{report:#}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

/// dcgm-exporter#46: the handle works, the main readings fail with "unknown error".
#[test]
fn a_dead_gpu_is_unhealthy() {
    let dead = "gpus=3\ngpu1.temperature=err:999\ngpu1.pstate=err:999\ngpu1.fan=err:999\ngpu1.utilization=err:999\n\
        gpu1.mig=err:999\ngpu1.power=1000\ngpu1.limit=err:3\ngpu1.memory=24576/0/0\ngpu*.recovery=err:3";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(dead));
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("GPU_READ_FAILED", has("GPU_READ_FAILED"));
    assert_eq!(verdict(&report), "unhealthy");
    assert_eq!(reason(&report, "GPU_READ_FAILED")["gpu"], report["gpus"][1]["uuid"]);
    let gpus = |i: usize| &report["gpus"][i]["verdict"];
    assert_eq!([gpus(0), gpus(1), gpus(2)], ["ok", "unhealthy", "ok"]);
    // Nothing can use it, as if it were lost.
    assert_eq!(report["gpu_count"], 2, "{report:#}");
    let metrics = worker.get("/metrics");
    assert!(metrics.text().contains("\nagent_net_gpus 2\n"), "{}", metrics.text());
    let dead = &report["gpus"][1];
    for name in ["temperature_c", "performance_state", "fan_percent", "utilization_percent", "mig_mode"] {
        assert!(dead["failed"][name].is_string() && dead[name].is_null(), "{name}: {dead:#}");
    }
    nvml.set("gpus=3");
    worker.report_when("verdict ok", is_ok);
}

/// nvidia_gpu_exporter#393: a fan that fails with "unknown error" from the start on is broken, not absent.
#[test]
fn an_unknown_error_is_a_fault_from_the_first_sample_on() {
    for (reading, name) in [
        ("fan", "fan_percent"),
        ("energy", "energy_j"),
        ("limit", "power_limit_w"),
        ("slowdown", "temperature_slowdown_c"),
        ("pcie_width_max", "pcie_width_max"),
    ] {
        let (ollama, nvml) =
            (FakeOllama::new(), FakeNvml::new(&format!("gpu0.recovery=err:3\ngpu0.{reading}=err:999")));
        let worker = worker(&ollama, &nvml);
        let report = worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
        assert_eq!((verdict(&report), codes(&report).len()), ("degraded", 1), "{report:#}");
        assert!(report["gpus"][0]["failed"][name].is_string(), "{report:#}");
        // It works from now on, and counts.
        nvml.set("gpu0.recovery=err:3");
        let report = worker.report_when("verdict ok", is_ok);
        assert!(!report["gpus"][0][name].is_null(), "{report:#}");
    }
}

/// A reading that failed at the helper's first look is read again, whatever the interval.
#[test]
fn a_threshold_that_comes_late_counts() {
    let hot = "gpu0.temperature=93\ngpu0.max=err:3\ngpu0.slowdown=96";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&format!("{hot}\ngpu0.shutdown=err:999")));
    let worker = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "1h")]);
    worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
    nvml.set(&format!("{hot}\ngpu0.shutdown=94"));
    let report = worker.report_when("TEMP_CRITICAL", has("TEMP_CRITICAL"));
    assert_eq!((verdict(&report), &report["gpus"][0]["temperature_shutdown_c"]), ("unhealthy", &json!(94)));
}

#[test]
fn a_threshold_of_zero_is_none_until_there_is_one() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.shutdown=0\ngpu0.max=0"));
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("verdict ok", is_ok);
    let unsupported = report["gpus"][0]["unsupported"].as_array().unwrap();
    for name in ["temperature_shutdown_c", "temperature_max_c"] {
        assert!(unsupported.contains(&json!(name)) && report["gpus"][0][name].is_null(), "{report:#}");
    }
    nvml.set("gpu0.shutdown=99");
    worker.report_when("the threshold", |r| r["gpus"][0]["temperature_shutdown_c"] == 99);
}

/// Reading, and how the words begin with which an absurd value is refused.
const ABSURD: [(&str, &str); 32] = [
    ("power_w", "3700000000 mW"),
    ("utilization_percent", "4294967295 %"),
    ("memory_utilization_percent", "250 %"),
    ("fan_percent", "4294967295 %"),
    ("vram_used_mb", "20971520000 bytes of 8589934592"),
    ("vram_free_mb", "20971520000 bytes of 8589934592"),
    ("graphics_clock_mhz", "4294967295 MHz"),
    ("memory_clock_mhz", "4294967295 MHz"),
    ("graphics_clock_max_mhz", "4294967295 MHz"),
    ("memory_clock_max_mhz", "4294967295 MHz"),
    ("power_limit_w", "4294967295 mW"),
    ("power_limit_default_w", "4294967295 mW"),
    ("energy_j", "18446744073709551615 mJ"),
    ("pcie_generation", "4294967295"),
    ("pcie_generation_max", "255"),
    ("pcie_width", "4294967295 lanes"),
    ("pcie_width_max", "255 lanes"),
    ("pcie_replays", "4294967295"),
    ("ecc_uncorrected_volatile", "4294967295 errors"),
    ("ecc_uncorrected_aggregate", "18446744073709551615 errors"),
    ("memory_temperature_c", "4294967295 °C"),
    ("recovery_action", "4294967295"),
    ("remapped_rows", "4294967295 rows"),
    ("throttle_reasons", "0xffffffff"),
    ("throttle_seconds", "18446744073709551615 ns"),
    ("temperature_margin_c", "-2147483648 °C"),
    ("temperature_margin_at_max_c", "2147483647 °C"),
    ("temperature_slowdown_c", "4294967295 °C"),
    ("temperature_shutdown_c", "4294967295 °C"),
    ("temperature_max_c", "4294967295 °C"),
    ("memory_temperature_max_c", "4294967295 °C"),
    ("retired_pages", "4294967295 pages"),
];

/// MangoHud#2144, DCGM#199, geopm#4028: success, and a number that no board can have.
#[test]
fn absurd_values_are_null_and_named_with_what_the_driver_said() {
    let absurd = "gpu0.power=3700000000\ngpu0.utilization=4294967295/250\ngpu0.fan=4294967295\n\
        gpu0.memory=8192/20000/0\ngpu0.clocks=4294967295/4294967295\ngpu0.limit=4294967295\n\
        gpu0.default_limit=4294967295\ngpu0.energy=18446744073709551615\ngpu0.pcie_gen=4294967295\n\
        gpu0.pcie_width=4294967295\ngpu0.replays=4294967295\ngpu0.ecc_errors=4294967295/18446744073709551615\n\
        gpu0.clocks_max=4294967295/4294967295\ngpu0.pcie_gen_max=255\ngpu0.pcie_width_max=255\n\
        gpu0.memory_temperature=4294967295\ngpu0.recovery=4294967295\ngpu0.rows=4294967295/4294967295/0/0\n\
        gpu0.throttle=4294967295\ngpu0.throttle_ns=18446744073709551615/18446744073709551615/18446744073709551615/18446744073709551615\n\
        gpu0.margin=-2147483648\ngpu0.tlimit_max=2147483647\ngpu0.slowdown=4294967295\ngpu0.shutdown=4294967295\n\
        gpu0.max=4294967295\ngpu0.memory_max=4294967295\ngpu0.retired=4294967295/1\ngpu0.retired_pending=0";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(absurd));
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
    assert_eq!((verdict(&report), codes(&report)), ("degraded", vec!["FIELD_READ_ERROR"]), "{report:#}");
    let gpu = &report["gpus"][0];
    for (name, said) in ABSURD {
        let why = gpu["failed"][name].as_str().unwrap_or_else(|| panic!("{name} has not failed: {gpu:#}"));
        assert!(why.starts_with(said) && gpu[name].is_null(), "{name}: {why}; {gpu:#}");
    }
    assert_eq!((&gpu["vram_total_mb"], &gpu["temperature_c"]), (&json!(8192), &json!(41)));
    // Numbers that stand for yes or no, and how many there are of something.
    nvml.set(
        "gpu0.mig=4294967295\ngpu0.rows=0/0/4294967295/4294967295\ngpu0.fans=4294967295\ngpu0.ecc=7\ngpu0.pstate=77",
    );
    let named = |r: &Value| r["gpus"][0]["failed"]["mig_mode"] == "4294967295 is impossible";
    let report = worker.report_when("mig_mode", named);
    let gpu = &report["gpus"][0];
    for name in ["mig_mode", "remapped_rows", "fan_percent", "ecc_enabled", "performance_state"] {
        assert!(gpu["failed"][name].is_string() && gpu[name].is_null(), "{name}: {gpu:#}");
    }
    assert_eq!(verdict(&report), "degraded", "{report:#}");
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

/// Some H100 report a margin of 0 or less while they are cold and not slowed down.
#[test]
fn a_margin_alone_is_not_overheating() {
    let h100 = "gpu0.name=NVIDIA H100 PCIe\ngpu0.slowdown=err:3\ngpu0.shutdown=err:3\ngpu0.max=err:3\n\
        gpu0.memory_max=err:3\ngpu0.tlimit_max=0\ngpu0.tlimit_shutdown=-8";
    let with = |celsius: i32, margin: i32, bits: u32| {
        format!("{h100}\ngpu0.temperature={celsius}\ngpu0.margin={margin}\ngpu0.throttle={bits}")
    };
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&with(35, -10, 1)));
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("three samples", |r| r["gpus"][0]["temperature_c"] == 35);
    assert_eq!(report["gpus"][0]["temperature_margin_at_shutdown_c"], -8);
    stays_ok(&worker);
    nvml.set(&with(88, -2, 64));
    worker.report_when("TEMP_HIGH", has("TEMP_HIGH"));
    nvml.set(&with(91, -7, 64));
    let report = worker.report_when("TEMP_CRITICAL", has("TEMP_CRITICAL"));
    assert_eq!(verdict(&report), "unhealthy");
    nvml.set(&with(35, 50, 1));
    worker.report_when("verdict ok", is_ok);
}

/// The damaged board data may show in another call than the one that looks for it.
#[test]
fn damaged_board_data_is_recognized_in_any_call() {
    let damaged = "gpu0.inforom=err:3\ngpu0.ecc=err:14";
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(damaged));
    // The call is made once and tried again a few times, and what it said holds until it is made again.
    let rare = start(&ollama, &nvml, &[("SLOW_SAMPLE_INTERVAL", "1h")]);
    rare.report_when("INFOROM_CORRUPT", has("INFOROM_CORRUPT"));
    let mut seen = BTreeSet::new();
    wait_for("ten samples", || {
        let report = rare.report();
        assert!(has("INFOROM_CORRUPT")(&report), "{report:#}");
        seen.insert(report["read_us"].as_u64());
        (seen.len() >= 10).then_some(())
    });
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("INFOROM_CORRUPT", has("INFOROM_CORRUPT"));
    assert_eq!((verdict(&report), &report["gpus"][0]["inforom_corrupt"]), ("degraded", &json!(true)));
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn one_slow_gpu_keeps_no_other_from_being_read() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=3\ngpu0.sleep=6000"));
    let worker = worker(&ollama, &nvml);
    let report = worker.report_when("GPU_SLOW", has("GPU_SLOW"));
    let gpus = &report["gpus"];
    assert_eq!([&gpus[1]["temperature_c"], &gpus[2]["temperature_c"]], [41, 41], "{report:#}");
    assert_eq!([&gpus[0]["verdict"], &gpus[1]["verdict"], &gpus[2]["verdict"]], ["unknown", "ok", "ok"], "{report:#}");
    assert!(gpus[0]["temperature_c"].is_null() && gpus[0]["read_ms"].as_u64().unwrap() >= 2000, "{report:#}");
    assert!(gpus[0]["error"].as_str().unwrap().contains("has not answered for"), "{report:#}");
    // What it says in the end is shown, with the time that it took.
    let late = worker.report_when("its reading", |r| r["gpus"][0]["temperature_c"] == 41);
    assert!(late["gpus"][0]["read_ms"].as_u64().unwrap() >= 6000, "{late:#}");
    // Each time so late, it is not ok.
    let slow = |r: &Value| has("GPU_SLOW")(r) && r["gpus"][0]["temperature_c"] == 41;
    let slow = worker.report_when("late again", slow);
    assert_eq!((verdict(&slow), &slow["gpus"][0]["verdict"]), ("degraded", &json!("degraded")), "{slow:#}");
    nvml.set("gpus=3");
    worker.report_when("verdict ok", |r| is_ok(r) && r["gpus"][0]["read_ms"].as_u64().is_some_and(|ms| ms < 2000));
    assert_eq!(worker.helpers().len(), 1);
    assert!(!worker.log().contains("DRIVER_STUCK"), "{}", worker.log());
}

#[test]
fn a_gpu_that_hangs_is_tried_with_a_new_helper() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[HURRY]);
    worker.report_when("verdict ok", is_ok);
    let first = worker.helpers();
    nvml.set("gpus=2\ngpu1.sleep=hang");
    let report = worker.report_when("GPU_SLOW", has("GPU_SLOW"));
    assert_eq!([&report["gpus"][0]["verdict"], &report["gpus"][1]["verdict"]], ["ok", "unknown"], "{report:#}");
    assert_eq!((&report["gpus"][0]["temperature_c"], &report["gpus"][1]["name"]), (&json!(41), &json!("Fake RTX 1")));
    // How long it has been silent does not begin again with the new helper.
    let silent = |r: &Value| r["gpus"][1]["read_ms"].as_u64().is_some_and(|ms| ms >= 8000);
    worker.report_when("another helper", |r| silent(r) && worker.helpers() != first);
    nvml.set("gpus=2");
    worker.report_when("verdict ok", is_ok);
    wait_for("one helper", || (worker.helpers().len() == 1).then_some(()));
}

/// While a second helper starts for the sake of a lost GPU, the first goes on.
#[test]
fn the_other_gpus_are_read_while_a_new_helper_starts() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = worker(&ollama, &nvml);
    worker.report_when("verdict ok", is_ok);
    nvml.set("gpus=2\ngpu1.handle=15\nat_init=sleep:3000");
    worker.report_when("GPU_LOST", has("GPU_LOST"));
    let mut seen = BTreeSet::new();
    wait_for("samples while a second helper starts", || {
        let report = worker.report();
        if worker.helpers().len() == 2 {
            assert_eq!((codes(&report), &report["gpus"][0]["temperature_c"]), (vec!["GPU_LOST"], &json!(41)));
            seen.insert(report["read_us"].as_u64());
        }
        (seen.len() >= 5).then_some(())
    });
    wait_for("one helper", || (worker.helpers().len() == 1).then_some(()));
    nvml.set("gpus=2");
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn a_name_that_is_not_utf8_is_shown_with_replacement_characters() {
    let (ollama, nvml) = (
        FakeOllama::new(),
        FakeNvml::new("gpu0.name=hex:4e5649444941ff20525458\ngpu0.vbios=hex:39fe\ndriver=hex:35ff"),
    );
    let report = worker(&ollama, &nvml).report_when("verdict ok", is_ok);
    assert_eq!(report["gpus"][0]["name"], "NVIDIA\u{fffd} RTX");
    assert_eq!(
        (&report["gpus"][0]["vbios_version"], &report["driver_version"]),
        (&json!("9\u{fffd}"), &json!("5\u{fffd}"))
    );
}

/// Every null has a reason beside it.
#[test]
fn nothing_is_null_without_a_reason() {
    for settings in [
        "",
        "gpu0.ecc=0\ngpu0.fans=0\ngpu0.energy=err:3\ngpu0.memory_v2=err:13\ngpu0.shutdown=0",
        "gpu0.tlimit_max=err:999\ngpu0.tlimit_shutdown=err:27\ngpu0.utilization=err:999\ngpu0.processes=err:27",
        "gpu0.name=NVIDIA GB10\ngpu0.memory=err:3\ngpu0.mig=1\ngpu0.throttle=err:3\ngpu0.throttle_ns=err:3",
    ] {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(settings));
        let report = worker(&ollama, &nvml).report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 41);
        let gpu = report["gpus"][0].as_object().unwrap();
        for (name, _) in gpu.iter().filter(|(name, value)| value.is_null() && *name != "error") {
            let named =
                gpu["unsupported"].as_array().unwrap().contains(&json!(name)) || gpu["failed"][name].is_string();
            assert!(named, "{name} is null for no reason with {settings:?}: {report:#}");
        }
    }
}
