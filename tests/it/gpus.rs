//! The GPUs through the real helper and a library that is really loaded.

use std::os::unix::fs::PermissionsExt;

use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::fake_ollama::{self, Answer, FakeOllama};
use crate::harness::{Worker, codes, folder, verdict, wait_for};
use crate::nvml::FakeNvml;

/// A worker with a healthy Ollama, whose verdict is the GPUs' alone.
pub fn start(ollama: &FakeOllama, nvml: &FakeNvml, more: &[(&str, &str)]) -> Worker {
    let url = ollama.url();
    let mut settings = vec![("OLLAMA_URL", url.as_str())];
    settings.extend(nvml.settings());
    settings.extend(more);
    Worker::start(&settings)
}

pub fn is_ok(report: &Value) -> bool {
    verdict(report) == "ok"
}

pub fn has(code: &'static str) -> impl Fn(&Value) -> bool {
    move |report| codes(report).contains(&code)
}

#[test]
fn a_lost_gpu_stays_in_the_list_and_the_others_are_served() {
    let ollama = FakeOllama::new();
    let nvml = FakeNvml::new("gpus=3\ngpu1.handle=15\ngpu2.temperature=err:16");
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("GPU_LOST", has("GPU_LOST"));
    assert_eq!(verdict(&report), "unhealthy");
    assert!(has("RESET_REQUIRED")(&report), "{report:#}");
    assert_eq!(report["gpu_count"], 1);
    let row = |i: usize| (report["gpus"][i]["verdict"].as_str().unwrap(), report["gpus"][i]["error"].is_string());
    assert_eq!([row(0), row(1), row(2)], [("ok", false), ("unhealthy", true), ("unhealthy", true)]);
    nvml.set("gpus=3");
    let recovered = worker.report_when("verdict ok", is_ok);
    assert_eq!(recovered["gpu_count"], 3);
}

#[test]
fn a_refused_init_has_its_own_code_and_recovers_by_itself() {
    #[track_caller]
    fn check(refusal: &str, code: &'static str) {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(refusal));
        let worker = start(&ollama, &nvml, &[]);
        let report = worker.report_when(code, has(code));
        assert!(matches!(verdict(&report), "unhealthy" | "unknown"), "{report:#}");
        // Without NVML a model in VRAM is all that is known of GPUs.
        assert_eq!((&report["gpu_count"], &report["gpus"]), (&json!(1), &json!([])));
        nvml.set("");
        worker.report_when("verdict ok", is_ok);
    }
    check("init=18", "DRIVER_LIB_MISMATCH");
    check("init=4", "NVML_NO_PERMISSION");
    check("init=999", "NVML_INIT_UNKNOWN");
    check("init=1", "NVML_INIT_FAILED");
    check("count=15", "NVML_INIT_FAILED");
}

/// NVIDIA devices that the kernel shows; what a missing library means depends on them.
fn pci_gpus() -> Option<usize> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?.flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    Some(
        devices
            .filter(|d| read(d.path().join("vendor")).starts_with("0x10de"))
            .filter(|d| read(d.path().join("class")).starts_with("0x03"))
            .count(),
    )
}

#[test]
fn without_driver_or_library_nothing_is_ok() {
    let no_library = folder("no-library").join("libnvidia-ml.so.1");
    std::fs::write(&no_library, "no ELF file").unwrap();
    #[track_caller]
    fn check(nvml: &FakeNvml, library: Option<&str>, code: &'static str, with_model: bool) {
        let ollama = FakeOllama::new();
        if !with_model {
            ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
        }
        let library: Vec<_> = library.map(|path| ("NVML_LIB", path)).into_iter().collect();
        let worker = start(&ollama, nvml, &library);
        let report = worker.report_when("a fault", |r| r["ollama"]["reachable"] == true && !codes(r).is_empty());
        let (code, expect) = match (pci_gpus(), with_model) {
            // A model in VRAM without NVIDIA: another maker's GPU.
            (Some(0), true) => ("NVML_LIB_MISSING", "unknown"),
            (Some(0), false) => ("NO_GPU", "unhealthy"),
            (None, _) if code == "NVML_LIB_MISSING" => (code, "unknown"),
            _ => (code, "unhealthy"),
        };
        assert_eq!((codes(&report), verdict(&report)), (vec![code], expect), "{report:#}");
        if library.is_empty() {
            nvml.set("");
            worker.report_when("verdict ok", is_ok);
        }
    }
    for with_model in [true, false] {
        check(&FakeNvml::new("init=9"), None, "DRIVER_NOT_LOADED", with_model);
        check(&FakeNvml::new("init=12"), None, "NVML_LIB_MISSING", with_model);
        check(&FakeNvml::new(""), Some("/nonexistent/libnvidia-ml.so.1"), "NVML_LIB_MISSING", with_model);
        check(&FakeNvml::new(""), no_library.to_str(), "NVML_LIB_MISSING", with_model);
    }
}

#[test]
fn a_machine_without_gpus_is_unhealthy_unless_none_is_expected() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=0"));
    let report = start(&ollama, &nvml, &[]).report_when("NO_GPU", has("NO_GPU"));
    assert_eq!((verdict(&report), &report["gpu_count"]), ("unhealthy", &json!(0)));
    let fine = start(&ollama, &nvml, &[("EXPECTED_GPUS", "0")]).report_when("verdict ok", is_ok);
    assert_eq!(fine["gpu_count"], 0);
    // Nor is a library missed then.
    let fine = start(&ollama, &FakeNvml::new("init=12"), &[("EXPECTED_GPUS", "0")]).report_when("verdict ok", is_ok);
    assert_eq!((&fine["gpus"], &fine["source"]), (&json!([]), &json!("ollama")));
}

#[test]
fn a_missing_gpu_is_noticed_when_it_is_expected() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[("EXPECTED_GPUS", "3")]);
    let report = worker.report_when("GPU_COUNT_LOW", has("GPU_COUNT_LOW"));
    assert_eq!((verdict(&report), report["gpus"].as_array().unwrap().len()), ("unhealthy", 2));
}

/// A helper's start is stuck after 6 s instead of a minute.
pub const HURRY: (&str, &str) = ("AGENT_NET_FAULT", "hurry:10");

/// `break_it` harms a worker with two healthy GPUs, `repair` undoes it if it must be undone.
#[track_caller]
fn outlives(code: &'static str, break_it: impl Fn(&Worker, &FakeNvml), repair: impl Fn(&Worker, &FakeNvml)) {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[HURRY]);
    worker.report_when("verdict ok", is_ok);
    break_it(&worker, &nvml);
    let report = worker.report_when(code, has(code));
    assert!(matches!(verdict(&report), "degraded" | "unhealthy"), "{report:#}");
    // They are not forgotten, but nothing is reported that was not read.
    for i in 0..2 {
        let gpu = &report["gpus"][i];
        assert_eq!(gpu["name"], format!("Fake RTX {i}"), "{report:#}");
        assert_eq!((&gpu["temperature_c"], &gpu["verdict"]), (&Value::Null, &json!("unknown")));
        assert!(gpu["error"].is_string());
    }
    repair(&worker, &nvml);
    let recovered = worker.report_when("verdict ok", is_ok);
    assert_eq!(recovered["gpus"][1]["temperature_c"], 41);
    // Neither a second one nor a dead one that was not waited for.
    assert_eq!(worker.helpers().len(), 1);
}

fn healthy_again(_: &Worker, nvml: &FakeNvml) {
    nvml.set("gpus=2");
}

#[test]
fn a_driver_that_hangs_is_given_up_and_asked_again() {
    outlives("DRIVER_STUCK", |_, nvml| nvml.set("gpus=2\nat_sample=hang"), healthy_again);
}

#[test]
fn a_driver_that_hangs_at_init_is_given_up_too() {
    let both = "gpus=2\nat_sample=crash\nat_init=hang";
    outlives("DRIVER_STUCK", |_, nvml| nvml.set(both), healthy_again);
}

#[test]
fn a_driver_that_hangs_from_the_start_keeps_no_job_waiting() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_init=hang"));
    let worker = start(&ollama, &nvml, &[HURRY]);
    let first = worker.report();
    assert_eq!((codes(&first)[0], verdict(&first)), ("NO_SAMPLE", "unknown"));
    assert_eq!(first["gpus"], json!([]));
    worker.report_when("Ollama's model", |r| r["model_name"] == fake_ollama::MODEL);
    let stuck = worker.report_when("DRIVER_STUCK", has("DRIVER_STUCK"));
    assert_eq!((&stuck["gpus"], verdict(&stuck)), (&json!([]), "degraded"));
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn a_library_that_crashes_takes_only_the_helper_along() {
    outlives("NVML_HELPER_FAILED", |_, nvml| nvml.set("gpus=2\nat_sample=crash"), healthy_again);
}

#[test]
fn a_library_that_ends_the_process_takes_only_the_helper_along() {
    outlives("NVML_HELPER_FAILED", |_, nvml| nvml.set("gpus=2\nat_sample=exit"), healthy_again);
}

#[test]
fn a_killed_helper_is_started_again() {
    let kill = |worker: &Worker, _: &FakeNvml| {
        let helpers = worker.helpers();
        assert_eq!(helpers.len(), 1);
        kill_process(helpers[0], Signal::KILL).unwrap();
    };
    outlives("NVML_HELPER_FAILED", kill, |_, _| ());
}

#[test]
fn a_stopped_helper_is_replaced() {
    let stop = |worker: &Worker, _: &FakeNvml| kill_process(worker.helpers()[0], Signal::STOP).unwrap();
    outlives("DRIVER_STUCK", stop, |_, _| ());
}

#[test]
fn a_crash_at_the_third_sample_does_not_keep_readings_away() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_third_sample=crash"));
    let worker = start(&ollama, &nvml, &[]);
    for _ in 0..2 {
        worker.report_when("NVML_HELPER_FAILED", has("NVML_HELPER_FAILED"));
        worker.report_when("verdict ok", is_ok);
    }
}

/// The library writes into a pipe of its own, never between the helper's lines.
#[test]
fn what_the_library_prints_does_no_harm() {
    for noise in ["garbage", "flood"] {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
        let worker = start(&ollama, &nvml, &[]);
        worker.report_when("verdict ok", is_ok);
        let helper = worker.helpers();
        for temperature in [52, 53] {
            nvml.set(&format!("at_sample={noise}\ngpu0.temperature={temperature}"));
            let report = worker.report_when(noise, |r| r["gpus"][0]["temperature_c"] == temperature);
            assert!(is_ok(&report), "{report:#}");
        }
        nvml.set("");
        assert_eq!(worker.helpers(), helper, "{noise} ended the helper");
        // Some of it is logged, each piece as a line of ours.
        let log = wait_for("the notice", || Some(worker.log()).filter(|log| log.contains("agent-net-nvml printed")));
        assert!(log.len() < 64 * 1024 && log.lines().all(|line| line.starts_with("20")), "{log}");
    }
}

#[test]
fn a_program_that_is_not_a_helper_and_a_missing_one_have_different_codes() {
    let script = |name: &str, text: &str| {
        let path = folder(name).join("agent-net-nvml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    #[track_caller]
    fn check(helper: &str, code: &'static str, part: &str) {
        let ollama = FakeOllama::new();
        let url = ollama.url();
        let worker = Worker::start(&[("OLLAMA_URL", &url), ("NVML_HELPER", helper), HURRY]);
        let report = worker.report_when(code, has(code));
        assert_ne!(verdict(&report), "ok");
        assert!(report["health"]["reasons"].to_string().contains(part), "{report:#}");
    }
    check("/nonexistent/helper", "NVML_HELPER_MISSING", "NVML_HELPER=/nonexistent/helper");
    check("/etc/passwd", "NVML_HELPER_MISSING", "cannot be started: permission denied");
    let foreign = script("foreign", "\u{7f}ELF of another machine");
    check(&foreign, "NVML_HELPER_MISSING", "cannot be started: exec format error");
    check(&foreign, "NVML_HELPER_MISSING", "Install the agent-net-nvml for this machine's architecture");
    let without_loader = script("without-loader", "#!/nonexistent/loader\n");
    check(&without_loader, "NVML_HELPER_MISSING", "It needs glibc");
    check("/bin/true", "NVML_HELPER_FAILED", "exit status: 0");
    check("/bin/cat", "NVML_HELPER_FAILED", "not a protocol line");
    check(&script("silent", "#!/bin/sh\nexec sleep 60\n"), "NVML_HELPER_FAILED", "no output for 6 s");
    check("/bin/pwd", "NVML_HELPER_FAILED", "not a protocol line");
    let other = script("other-version", "#!/bin/sh\necho '{\"protocol\":99,\"version\":\"9.9.9\"}'\nexec sleep 60\n");
    check(&other, "NVML_HELPER_FAILED", "its version is 9.9.9");
    check(&other, "NVML_HELPER_FAILED", "Install agent-net and agent-net-nvml from one build");
    let endless = script("endless", "#!/bin/sh\nexec yes x | tr -d '\\n'\n");
    check(&endless, "NVML_HELPER_FAILED", "longer than");
}

#[test]
fn the_helper_dies_with_the_worker() {
    for (hanging, signal) in [(false, Signal::KILL), (true, Signal::KILL), (true, Signal::TERM)] {
        let nvml = FakeNvml::new("");
        let worker = Worker::start(&nvml.settings());
        worker.report_when("a GPU", |report| report["gpu_count"] == 1);
        let helper = worker.helpers()[0];
        if hanging {
            nvml.set("at_sample=hang");
            // From now on it does not see its stdin end.
            worker.report_when("no sample for a second", |r| r["sample_age_ms"].as_u64() > Some(1000));
        }
        worker.signal(signal);
        let (status, log) = worker.wait();
        assert_eq!(status.code(), (signal == Signal::TERM).then_some(0), "{log}");
        wait_for("the helper's end", || test_kill_process(helper).is_err().then_some(()));
    }
}

#[test]
fn the_helper_never_sees_a_secret() {
    let nvml = FakeNvml::new("");
    let mut settings = nvml.settings().to_vec();
    settings.extend([("ORCH_SECRET", "hunter2"), ("WORKER_TOKEN", "hunter3")]);
    let worker = Worker::start(&settings);
    let helper = wait_for("the helper", || worker.helpers().first().copied());
    let environment = std::fs::read(format!("/proc/{}/environ", helper.as_raw_nonzero())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("NVML_LIB=") && !environment.contains("hunter"), "{environment}");
}
