//! Every code raised and cleared by what really happens: in the library, on the machine, in the kernel's log, in Ollama.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::doctor::{machine, pipe};
use crate::fake_ollama::{Answer, FakeOllama, PS, TAGS, VERSION};
use crate::gpus::{has, is_ok};
use crate::harness::Worker;
use crate::nvml::FakeNvml;
use crate::programs;

pub const UUID: &str = "GPU-00000000-0000-0000-0000-000000000000";

/// A machine, an Ollama and a library, all well, and a worker that looks often.
pub struct Scene {
    ollama: FakeOllama,
    pub nvml: FakeNvml,
    pub worker: Worker,
}

impl Scene {
    pub fn new(root: &Path, library: &str, more: &[(&str, &str)]) -> Self {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(library));
        let url = ollama.url();
        let mut settings = vec![
            ("OLLAMA_URL", url.as_str()),
            ("HOST_ROOT", root.to_str().unwrap()),
            ("SAMPLE_INTERVAL", "100ms"),
            ("SLOW_SAMPLE_INTERVAL", "100ms"),
        ];
        settings.extend(nvml.settings());
        settings.extend(more);
        let worker = Worker::start(&settings);
        Self { ollama, nvml, worker }
    }

    pub fn runs_on_the_cpu(&self) {
        self.ollama.set("/api/ps", Answer::Json(r#"{"models":[{"name":"m","size":9,"size_vram":0}]}"#.into()));
    }

    pub fn runs_on_the_gpu(&self) {
        self.ollama.set("/api/ps", Answer::Json(PS.into()));
    }

    pub fn is_well(&self) {
        self.worker.report_when("verdict ok", is_ok);
    }

    /// This code, with all that belongs to a reason.
    #[track_caller]
    pub fn says(&self, code: &'static str, severity: &str) -> Value {
        let report = self.worker.report_when(&format!("{code}, {severity}"), |report| {
            reason(report, code).is_some_and(|reason| reason["severity"] == severity)
        });
        let reason = reason(&report, code).unwrap().clone();
        let text = |key: &str| reason[key].as_str().is_some_and(|text| text.len() > 10);
        assert!(text("message") && text("action") && reason["since"].is_f64(), "{reason:#}");
        assert_eq!(reason["help"], format!("/codes#{code}"));
        assert_eq!(report["health"]["verdict"], worst(&report), "{report:#}");
        reason
    }
}

pub fn reason<'a>(report: &'a Value, code: &str) -> Option<&'a Value> {
    report["health"]["reasons"].as_array().unwrap().iter().find(|r| r["code"] == code)
}

fn worst(report: &Value) -> &str {
    let all = report["health"]["reasons"].as_array().unwrap();
    let is = |severity: &&str| all.iter().any(|r| r["severity"] == *severity);
    ["unhealthy", "degraded", "unknown"].into_iter().find(is).unwrap_or("ok")
}

/// What the library says; the code and the severity that follow; value and threshold where numbers are compared.
pub type Row = (&'static str, &'static str, &'static str, Option<(f64, f64)>);

pub const OF_ONE_GPU: &[Row] = &[
    ("gpu0.handle=15", "GPU_LOST", "unhealthy", None),
    ("gpu0.temperature=err:15", "GPU_LOST", "unhealthy", None),
    ("gpu0.handle=8", "GPU_HANDLE_ERROR", "unhealthy", None),
    ("gpu0.handle=16", "RESET_REQUIRED", "unhealthy", None),
    ("gpu0.recovery=1", "RESET_REQUIRED", "unhealthy", Some((1.0, 0.0))),
    ("gpu0.recovery=5", "RESET_REQUIRED", "degraded", Some((5.0, 0.0))),
    ("gpu0.recovery=77", "RESET_REQUIRED", "unhealthy", Some((77.0, 0.0))),
    ("gpu0.recovery=3", "DRAIN_P2P", "degraded", Some((3.0, 0.0))),
    ("gpu0.temperature=91", "TEMP_HIGH", "degraded", Some((91.0, 91.0))),
    ("gpu0.temperature=96", "TEMP_CRITICAL", "unhealthy", Some((96.0, 96.0))),
    ("gpu0.margin=0\ngpu0.temperature=err:3\ngpu0.throttle=64", "TEMP_CRITICAL", "unhealthy", None),
    ("gpu0.memory_temperature=106", "MEM_TEMP_HIGH", "degraded", Some((106.0, 105.0))),
    ("gpu0.temperature=81", "TEMP_ABOVE_MAX", "degraded", Some((81.0, 80.0))),
    ("gpu0.memory=16384/7012/0", "VRAM_BELOW_MIN", "unhealthy", Some((17.2, 20.0))),
    ("gpu0.ecc_errors=2/9", "ECC_UNCORRECTED", "unhealthy", Some((2.0, 0.0))),
    ("gpu0.rows=0/1/0/1", "ROW_REMAP_FAILED", "unhealthy", None),
    ("gpu0.rows=0/1/1/0", "ROW_REMAP_PENDING", "degraded", None),
    ("gpu0.rows=0/512/0/0", "ROW_REMAP_MANY", "degraded", Some((512.0, 512.0))),
    ("gpu0.spares=2559/0/0/0/1", "ROW_REMAP_MANY", "degraded", Some((1.0, 0.0))),
    ("gpu0.unrepairable=1", "MEMORY_UNREPAIRABLE", "unhealthy", None),
    ("gpu0.sram=1", "SRAM_THRESHOLD", "unhealthy", None),
    ("gpu0.repair=1/0", "REPAIR_PENDING", "degraded", None),
    ("gpu0.repair=0/1", "REPAIR_PENDING", "degraded", None),
    ("gpu0.fabric=3/999/0/0", "FABRIC_UNHEALTHY", "unhealthy", None),
    ("gpu0.fabric=3/0/0/2", "FABRIC_UNHEALTHY", "unhealthy", None),
    ("gpu0.retired=1/0\ngpu0.retired_pending=1", "RETIRED_PENDING", "degraded", None),
    ("gpu0.retired=40/23\ngpu0.retired_pending=0", "RETIRED_LIMIT", "unhealthy", Some((63.0, 63.0))),
    ("gpu0.pcie_width=8\ngpu0.pstate=0", "PCIE_WIDTH_LOW", "degraded", Some((8.0, 16.0))),
    ("gpu0.power=err:999", "FIELD_READ_ERROR", "degraded", None),
    ("gpu0.memory=err:3\ngpu0.temperature=err:3\ngpu0.utilization=err:3", "GPU_NO_READINGS", "unknown", None),
];

#[test]
fn what_a_gpu_says_of_itself_is_raised_and_cleared() {
    let root = machine("rules-gpu");
    // With a healthy value of each reading that a row changes: one that ends would be a fault of its own.
    let newer = "gpu0.sram=0\ngpu0.repair=0/0\ngpu0.unrepairable=0\ngpu0.spares=2560/0/0/0/0\ngpu0.fabric=3/0/0/1\n\
        gpu0.memory_temperature=60\ngpu0.retired=0/0\ngpu0.retired_pending=0";
    let scene = Scene::new(&root, newer, &[("GPU_MAX_TEMP_C", "80"), ("GPU_MIN_VRAM_GB", "20")]);
    for (library, code, severity, numbers) in OF_ONE_GPU {
        scene.is_well();
        scene.nvml.set(&format!("{newer}\n{library}"));
        let reason = scene.says(code, severity);
        assert_eq!(reason["gpu"], UUID, "{library}: {reason:#}");
        let found = reason["value"].as_f64().zip(reason["threshold"].as_f64());
        assert_eq!(found, *numbers, "{library}: {reason:#}");
        scene.nvml.set(newer);
    }
    scene.is_well();
    // Repeated transfers are counted from one sample to the next; a driver that is reloaded counts from 0.
    scene.nvml.set(&format!("{newer}\ngpu0.replays=100"));
    assert_eq!(scene.says("PCIE_REPLAY", "degraded")["gpu"], UUID);
    scene.nvml.set(newer);
    scene.is_well();
}

#[test]
fn newer_parts_are_judged_by_their_margins() {
    // What is left to the limit: 0 at the specified maximum, -8 where it switches itself off.
    let margins =
        "gpu0.max=err:3\ngpu0.slowdown=err:3\ngpu0.shutdown=err:3\ngpu0.tlimit_max=0\ngpu0.tlimit_shutdown=-8";
    let root = machine("rules-margin");
    let scene = Scene::new(&root, &format!("{margins}\ngpu0.margin=40"), &[]);
    for (temperature, margin, code, severity) in
        [(88_u8, -1, "TEMP_HIGH", "degraded"), (93, -6, "TEMP_CRITICAL", "unhealthy")]
    {
        scene.is_well();
        scene.nvml.set(&format!("{margins}\ngpu0.temperature={temperature}\ngpu0.margin={margin}"));
        assert_eq!(scene.says(code, severity)["value"], f64::from(temperature));
        scene.nvml.set(&format!("{margins}\ngpu0.margin=40"));
    }
    scene.is_well();
}

#[test]
fn a_corrupt_inforom_is_reported_until_nvml_restarts() {
    let root = machine("rules-inforom");
    let scene = Scene::new(&root, "gpu0.inforom=err:14", &[]);
    scene.says("INFOROM_CORRUPT", "degraded");
    scene.nvml.set("");
    for helper in scene.worker.helpers() {
        kill_process(helper, Signal::KILL).unwrap();
    }
    scene.is_well();
}

#[test]
fn what_the_library_and_its_helper_do_is_raised_and_cleared() {
    let root = machine("rules-library");
    let helper = root.join("agent-net-nvml");
    let link = || std::os::unix::fs::symlink(programs::helper(), &helper).unwrap();
    let scene = Scene::new(&root, "", &[("NVML_HELPER", helper.to_str().unwrap())]);
    scene.says("NVML_HELPER_MISSING", "unknown");
    link();
    let rows: &[(&str, &'static str, &str)] = &[
        ("init=12\ncount=12", "NVML_LIB_MISSING", "unhealthy"),
        ("init=9\ncount=9", "DRIVER_NOT_LOADED", "unhealthy"),
        ("init=18\ncount=18", "DRIVER_LIB_MISMATCH", "unhealthy"),
        ("init=4\ncount=4", "NVML_NO_PERMISSION", "unhealthy"),
        ("init=999\ncount=999", "NVML_INIT_UNKNOWN", "unhealthy"),
        ("init=1\ncount=15", "NVML_INIT_FAILED", "unhealthy"),
        ("at_sample=crash", "NVML_HELPER_FAILED", "degraded"),
        ("gpus=0", "NO_GPU", "unhealthy"),
    ];
    for (library, code, severity) in rows {
        scene.is_well();
        scene.nvml.set(library);
        assert_eq!(scene.says(code, severity).get("gpu"), None);
        scene.nvml.set("");
    }
    scene.is_well();
    // While it hangs, the last sample grows old, until the helper is given up.
    scene.nvml.set("at_sample=hang");
    scene.says("STALE", "degraded");
    scene.says("DRIVER_STUCK", "degraded");
    scene.nvml.set("");
    scene.is_well();
}

#[test]
fn a_hang_from_the_start_is_reported_as_no_sample() {
    let root = machine("rules-first");
    let scene = Scene::new(&root, "at_init=hang", &[]);
    scene.says("NO_SAMPLE", "unknown");
    scene.nvml.set("");
    scene.is_well();
}

#[test]
fn gpus_that_are_missing_are_noticed_by_all_that_shows_them() {
    let root = machine("rules-count");
    let scene = Scene::new(&root, "gpus=2", &[]);
    let missing = || {
        let reason = scene.says("GPU_COUNT_LOW", "unhealthy");
        assert_eq!((&reason["value"], &reason["threshold"]), (&1.0.into(), &2.0.into()), "{reason:#}");
        reason["message"].as_str().unwrap().to_owned()
    };
    scene.is_well();
    scene.nvml.set("gpus=1");
    assert!(missing().contains("seen before"));
    scene.nvml.set("gpus=2");
    scene.is_well();
    // A container is missing what it was given.
    scene.nvml.set("gpus=1");
    missing();
    scene.worker.acknowledge();
    scene.is_well();
    fs::write(root.join("dev/nvidia1"), "").unwrap();
    assert!(missing().contains("given to this container"));
    fs::remove_file(root.join("dev/nvidia1")).unwrap();
    scene.is_well();
    // The bare machine is missing what is on its bus.
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/mountinfo"), "22 1 0:5 / /dev rw - devtmpfs udev rw\n").unwrap();
    let second = root.join("sys/bus/pci/devices/0000:02:00.0");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("vendor"), "0x10de\n").unwrap();
    fs::write(second.join("class"), "0x030000\n").unwrap();
    assert!(missing().contains("PCI bus"));
    fs::remove_dir_all(&second).unwrap();
    scene.is_well();
}

#[test]
fn a_device_that_cannot_be_opened_any_more_is_noticed_although_nvml_answers() {
    let root = machine("rules-access");
    let scene = Scene::new(&root, "", &[]);
    scene.is_well();
    let node = root.join("dev/nvidiactl");
    fs::remove_file(&node).unwrap();
    let _socket = UnixListener::bind(&node).expect("a path that is short enough for a socket");
    scene.says("GPU_ACCESS_LOST", "unhealthy");
    fs::remove_file(&node).unwrap();
    fs::write(&node, "").unwrap();
    scene.is_well();
}

#[test]
fn a_device_that_hangs_when_it_is_looked_at_delays_nothing_else() {
    let root = machine("rules-stuck");
    fs::create_dir_all(root.join("proc/self")).unwrap();
    pipe(&root.join("proc/self/mountinfo"));
    let scene = Scene::new(&root, "", &[]);
    assert_eq!(scene.worker.get("/health").status, 200);
    scene.is_well();
}

#[test]
fn without_the_kernels_log_nvml_is_listened_to() {
    let root = machine("rules-events");
    let scene = Scene::new(&root, "", &[]);
    scene.is_well();
    assert_eq!(scene.worker.report()["xid_source"], "nvml");
    for (xid, code, severity) in
        [(79, "XID_FATAL", "unhealthy"), (94, "XID_WARN", "degraded"), (95, "XID_FATAL", "unhealthy")]
    {
        scene.nvml.set(&format!("gpu0.xids={xid}:{xid}"));
        let reason = scene.says(code, severity);
        assert!(reason["message"].as_str().unwrap().contains(&xid.to_string()), "{reason:#}");
        scene.worker.acknowledge();
        scene.is_well();
    }
    // No source of events is not a fault.
    let scene = Scene::new(&root, "gpu0.events=err:3", &[]);
    scene.is_well();
    assert_eq!(scene.worker.report()["xid_source"], "none");
}

#[test]
fn ollama_beside_the_gpu_is_raised_and_cleared() {
    let root = machine("rules-ollama");
    let mut scene = Scene::new(&root, "", &[]);
    scene.is_well();
    // One lost answer, and the next one takes its time, so that a look falls in between.
    let late = Answer::Late(2500, Box::new(Answer::Json(VERSION.into())));
    let once = Answer::Then(vec![("/api/version", late)], Box::new(Answer::Status(500, String::new())));
    scene.ollama.set_once("/api/version", once);
    scene.says("OLLAMA_NO_ANSWER", "unknown");
    scene.ollama.set("/api/version", Answer::Json(VERSION.into()));
    scene.is_well();
    scene.ollama.stop();
    scene.says("OLLAMA_DOWN", "unhealthy");
    scene.ollama.start();
    scene.is_well();
    scene.ollama.set("/api/tags", Answer::Json("{".into()));
    scene.says("OLLAMA_LIST_FAILED", "unknown");
    scene.ollama.set("/api/tags", Answer::Json(TAGS.into()));
    scene.is_well();
    scene.runs_on_the_cpu();
    scene.says("MODEL_ON_CPU", "degraded");
    scene.runs_on_the_gpu();
    scene.is_well();
    scene.nvml.set("gpu0.memory=24576/3000/512");
    scene.says("MODEL_VRAM_MISMATCH", "degraded");
    scene.nvml.set("");
    scene.is_well();
}

/// The driver's own counter, since a bit is only seen at the moment of a sample. It takes its minute.
#[test]
fn a_minute_of_slowdown_is_noticed() {
    let root = machine("rules-slowdown");
    let scene = Scene::new(&root, "", &[("SAMPLE_INTERVAL", "1s")]);
    scene.is_well();
    thread::sleep(Duration::from_secs(61));
    scene.is_well();
    scene.nvml.set("gpu0.throttle_ns=0/0/40000000000/0");
    scene.says("HW_THERMAL_SLOWDOWN", "degraded");
    assert!(!has("HW_POWER_BRAKE")(&scene.worker.report()));
    scene.nvml.set("gpu0.throttle_ns=0/0/40000000000/40000000000");
    scene.says("HW_POWER_BRAKE", "degraded");
}
