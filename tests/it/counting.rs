//! Which GPUs count: those of others, those that were not given, cards that the driver ignores; and who a GPU is when
//! it does not say so itself.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::doctor::machine;
use crate::fake_ollama::FakeOllama;
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, agent_net, codes, run, verdict};
use crate::nvml::FakeNvml;

fn reason<'a>(report: &'a Value, code: &str) -> &'a Value {
    let all = report["health"]["reasons"].as_array().expect("reasons");
    all.iter().find(|r| r["code"] == code).unwrap_or_else(|| panic!("no {code}: {report:#}"))
}

#[track_caller]
fn says(reason: &Value, message: &str, action: &str) {
    let part = |key: &str, part: &str| reason[key].as_str().is_some_and(|text| text.contains(part));
    assert!(part("message", message) && part("action", action), "{reason:#}");
}

/// A worker on `root` that looks around at each second.
fn on(root: &Path, ollama: &FakeOllama, nvml: &FakeNvml, more: &[(&str, &str)]) -> Worker {
    let root = [("HOST_ROOT", root.to_str().unwrap()), ("SAMPLE_INTERVAL", "100ms")];
    start(ollama, nvml, &[&root[..], more].concat())
}

#[test]
fn a_gpu_that_was_not_given_is_not_a_fault_of_the_card() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    for refusal in ["gpus=2\ngpu1.handle=4", "gpus=2\ngpu1.handle=17"] {
        nvml.set(refusal);
        let worker = on(&machine("counting-given"), &ollama, &nvml, &[]);
        let report = worker.report_when("a refusal", has("NVML_NO_PERMISSION"));
        assert_eq!((verdict(&report), codes(&report)), ("degraded", vec!["NVML_NO_PERMISSION"]), "{report:#}");
        assert_eq!((&report["gpu_count"], &report["gpus"][1]["verdict"]), (&json!(1), &json!("degraded")));
        let reason = reason(&report, "NVML_NO_PERMISSION");
        assert_eq!(reason["gpu"], "gpu1");
        says(reason, "GPU 1: the worker may not use it", "set EXPECTED_GPUS");
        // It is given, and taken away again: now one is missing that was there.
        nvml.set("gpus=2");
        worker.report_when("verdict ok", is_ok);
        nvml.set(refusal);
        let report = worker.report_when("a GPU that is missing", has("GPU_COUNT_LOW"));
        assert_eq!(verdict(&report), "unhealthy");
        worker.acknowledge();
        worker.report_when("one refusal", |r| codes(r) == ["NVML_NO_PERMISSION"]);
        // None of them may be used.
        nvml.set("gpus=2\ngpu0.handle=4\ngpu1.handle=4");
        let report = worker.report_when("no GPU", |r| verdict(r) == "unhealthy" && r["gpu_count"] == 0);
        assert_eq!(codes(&report)[0], "NVML_NO_PERMISSION", "{report:#}");
        says(&report["health"]["reasons"][0], "the worker may use none of them", "the group that owns /dev/nvidia0");
        nvml.set("gpus=2");
        worker.report_when("verdict ok", is_ok);
    }
    // The operator's word is the last one.
    nvml.set("gpus=2\ngpu1.handle=4");
    let worker = on(&machine("counting-expected"), &ollama, &nvml, &[("EXPECTED_GPUS", "1")]);
    let report = worker.report_when("verdict ok", is_ok);
    assert_eq!((&report["gpus"][1]["verdict"], &report["gpu_count"]), (&json!("unknown"), &json!(1)));
    let worker = on(&machine("counting-expected-2"), &ollama, &nvml, &[("EXPECTED_GPUS", "2")]);
    worker.report_when("a GPU that is missing", has("GPU_COUNT_LOW"));
}

/// A file that cannot be opened for writing: the kernel says of it what it says of a device that a container was not given.
pub struct Denied(std::path::PathBuf);

impl Denied {
    /// None, with a word about it, where the file system has no such files.
    pub fn new(file: std::path::PathBuf) -> Option<Self> {
        fs::write(&file, "").unwrap();
        let done = Command::new("chattr").arg("+i").arg(&file).output().is_ok_and(|ran| ran.status.success());
        let denied = File::options().write(true).open(&file).is_err_and(|why| why.raw_os_error() == Some(1));
        if !(done && denied) {
            println!("skipped: files cannot be made immutable here");
        }
        Some(Self(file)).filter(|_| done && denied)
    }
}

impl Drop for Denied {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).output();
    }
}

/// DCGM#90: a container with the nodes of all GPUs of the machine, which may open its own.
#[test]
fn a_node_that_may_not_be_opened_is_not_a_gpu_that_was_given() {
    let root = machine("counting-denied");
    let Some(others) = Denied::new(root.join("dev/nvidia1")) else { return };
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = on(&root, &ollama, &nvml, &[]);
    let report = worker.report_when("a reading", |r| r["gpus"][0]["temperature_c"] == 41);
    assert_eq!((verdict(&report), codes(&report)), ("ok", vec![]), "{report:#}");
    drop(others);
    worker.report_when("a GPU that is missing", has("GPU_COUNT_LOW"));
    drop(worker);
    // confidential-os-builder#73: a service on the host that may open /dev/nvidiactl alone.
    let Some(_denied) = Denied::new(root.join("dev/nvidia0")) else { return };
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/mountinfo"), "22 1 0:5 / /dev rw - devtmpfs udev rw\n").unwrap();
    nvml.set("gpus=0");
    let report = on(&root, &ollama, &nvml, &[]).report_when("no GPU", has("NO_GPU"));
    says(reason(&report, "NO_GPU"), "may not open their device nodes", "");
}

#[test]
fn every_error_has_its_name_and_its_cure() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let worker = on(&machine("counting-names"), &ollama, &nvml, &pod);
    for (number, code, name, words, action) in [
        (8, "GPU_HANDLE_ERROR", "INSUFFICIENT_POWER", "power cables", "attach all power cables"),
        (15, "GPU_LOST", "GPU_IS_LOST", "fell off the bus", "Reboot"),
        (16, "RESET_REQUIRED", "RESET_REQUIRED", "must be reset", "nvidia-smi -i 00000000:02:00.0 -r"),
        (18, "GPU_HANDLE_ERROR", "LIB_RM_VERSION_MISMATCH", "different versions", "upgraded"),
        (27, "GPU_HANDLE_ERROR", "NOT_READY", "not ready", "Wait a minute"),
        (28, "GPU_HANDLE_ERROR", "GPU_NOT_FOUND", "does not find", "check `dmesg`"),
        (30, "GPU_HANDLE_ERROR", "RESET_TYPE_NOT_SUPPORTED", "reset", "Check `dmesg`"),
        (999, "GPU_LOST", "UNKNOWN", "unknown error", "Reboot"),
    ] {
        nvml.set(&format!("gpus=2\ngpu1.handle={number}"));
        let report = worker.report_when(name, |r| r["health"]["reasons"].to_string().contains(name));
        let reason = reason(&report, code);
        says(reason, words, action);
        says(reason, &format!("(NVML_ERROR_{name})"), "");
        assert!(!reason["message"].as_str().unwrap().contains(&number.to_string()), "{reason:#}");
        assert_eq!((&reason["severity"], &report["gpu_count"]), (&json!("unhealthy"), &json!(1)));
        nvml.set("gpus=2");
        worker.report_when("verdict ok", is_ok);
    }
    // The same of readings.
    nvml.set("gpus=2\ngpu1.power=err:27\ngpu0.power=err:29");
    let report = worker.report_when("readings that fail", |r| r["gpus"][1]["failed"]["power_w"].is_string());
    assert_eq!(
        report["gpus"][1]["failed"]["power_w"],
        "the system is not ready for this request (NVML_ERROR_NOT_READY)"
    );
    assert!(report["gpus"][0]["failed"]["power_w"].as_str().unwrap().ends_with("(NVML_ERROR_INVALID_STATE)"));
    assert!(!worker.log().contains("variant"), "{}", worker.log());
}

/// One more card on the bus.
fn card(root: &Path, place: &str, driver: Option<&str>) -> std::path::PathBuf {
    let device = root.join("sys/bus/pci/devices").join(place);
    fs::create_dir_all(&device).unwrap();
    fs::write(device.join("vendor"), "0x10de\n").unwrap();
    fs::write(device.join("class"), "0x030200\n").unwrap();
    if let Some(driver) = driver {
        std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
    }
    device
}

/// The bare machine: what is on its bus counts.
fn bare(name: &str) -> std::path::PathBuf {
    let root = machine(name);
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/mountinfo"), "22 1 0:5 / /dev rw - devtmpfs udev rw\n").unwrap();
    root
}

#[test]
fn cards_of_others_are_not_missing() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let root = bare("counting-others");
    for (at, driver) in ["vfio-pci", "nouveau", "nvidiafb", "pci-stub", "xen-pciback"].into_iter().enumerate() {
        card(&root, &format!("0000:1{at}:00.0"), Some(driver));
    }
    for function in 1..4 {
        let device = card(&root, &format!("0000:01:00.{function}"), None);
        std::os::unix::fs::symlink("../0000:01:00.0", device.join("physfn")).unwrap();
    }
    let worker = on(&root, &ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    // One without a driver that nothing explains is missing.
    let device = card(&root, "0000:20:00.0", None);
    let report = worker.report_when("a missing GPU", has("GPU_COUNT_LOW"));
    says(reason(&report, "GPU_COUNT_LOW"), "1 of 2 GPUs usable (expected from: GPUs on the PCI bus)", "");
    fs::remove_dir_all(&device).unwrap();
    worker.report_when("verdict ok", is_ok);
}

const LEGACY: &str = "4,1200,5000000,-;NVRM: The NVIDIA NVIDIA GeForce GTX 680 GPU installed in this system is\\x0aNVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please\\x0aNVRM:  visit http://www.nvidia.com/object/unix.html for more\\x0aNVRM:  information.  The 550.54.14 NVIDIA driver will ignore\\x0aNVRM:  this GPU.  Continuing probe...\n";

#[test]
fn a_card_for_a_legacy_driver_is_named_and_not_missing() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let root = bare("counting-legacy");
    card(&root, "0000:02:00.0", None);
    let worker = on(&root, &ollama, &nvml, &[]);
    worker.report_when("a missing GPU", has("GPU_COUNT_LOW"));
    fs::write(root.join("dev/kmsg"), LEGACY).unwrap();
    // The log is opened at the start.
    drop(worker);
    let worker = on(&root, &ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    // Alone it is the cause of all that follows.
    let names_it = |report: &Value, code: &'static str| {
        says(reason(report, code), "NVIDIA GeForce GTX 680 needs NVIDIA's legacy driver 470.xx", "Install the driver");
    };
    nvml.set("gpus=0");
    names_it(&worker.report_when("no GPU", has("NO_GPU")), "NO_GPU");
    nvml.set("init=9\ncount=9");
    names_it(&worker.report_when("no driver", has("DRIVER_NOT_LOADED")), "DRIVER_NOT_LOADED");
    nvml.set("");
    worker.report_when("verdict ok", is_ok);

    let doctor = || {
        let mut command = agent_net();
        command.args(["doctor", "--json"]).envs(nvml.settings()).env("HOST_ROOT", &root);
        let (_, out, _) = run(command.env("OLLAMA_URL", ollama.url()).env("SERVER_PORT", "9"));
        let all: Value = serde_json::from_str(&out).expect("JSON");
        all["checks"].as_array().unwrap().iter().find(|c| c["check"] == "driver").expect("driver").clone()
    };
    let found = doctor();
    assert!(found["grade"] == "pass" && found.to_string().contains("legacy driver 470.xx"), "{found}");
    fs::remove_file(root.join("proc/driver/nvidia/version")).unwrap();
    let found = doctor();
    assert!(found["grade"] == "fail" && found.to_string().contains("legacy driver 470.xx"), "{found}");
    assert!(found["fix"].as_str().unwrap().contains("Install the driver that the card needs"), "{found}");
    // A card that another driver has is reported as well.
    fs::remove_file(root.join("dev/kmsg")).unwrap();
    for device in ["0000:01:00.0", "0000:02:00.0"] {
        fs::remove_dir_all(root.join("sys/bus/pci/devices").join(device)).unwrap();
        card(&root, device, Some("nouveau"));
    }
    let found = doctor();
    assert!(found["grade"] == "fail" && found["fix"].as_str().unwrap().contains("blacklist nouveau"), "{found}");
}

#[test]
fn a_lost_gpu_keeps_its_name_although_its_handle_works() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = on(&machine("counting-identity"), &ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let identity = |report: &Value, at: usize| {
        ["uuid", "name", "pci_bus_id"].map(|key| report["gpus"][at][key].as_str().unwrap_or_default().to_owned())
    };
    let whole = |at: usize| {
        let uuid = format!("GPU-00000000-0000-0000-0000-{at:012}");
        [uuid, format!("Fake RTX {at}"), format!("00000000:{:02X}:00.0", at + 1)]
    };
    // A helper that was started after the loss asks again who it is.
    let all = ["name", "pci", "temperature", "power", "memory", "utilization"].map(|r| format!("gpu1.{r}=err:15"));
    for more in ["", "\ngpu1.uuid=err:15", "\ngpu1.uuid=err:999"] {
        let started = worker.helpers();
        nvml.set(&format!("gpus=2\n{}{more}", all.join("\n")));
        let lost = |report: &Value| has("GPU_LOST")(report) && worker.helpers().first() != started.first();
        let report = worker.report_when("a lost GPU and another helper", lost);
        for _ in 0..10 {
            let report = worker.report();
            assert_eq!((identity(&report, 0), identity(&report, 1)), (whole(0), whole(1)), "{report:#}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(reason(&report, "GPU_LOST")["gpu"], whole(1)[0]);
        assert_eq!(report["gpus"][1]["temperature_c"], Value::Null);
        nvml.set("gpus=2");
        worker.report_when("verdict ok", is_ok);
    }
    // Never known: what it does say is all there is.
    let nvml = FakeNvml::new(&format!("gpus=2\n{}", all.join("\n")));
    let worker = on(&machine("counting-identity-2"), &ollama, &nvml, &[]);
    let report = worker.report_when("a lost GPU", has("GPU_LOST"));
    assert_eq!(identity(&report, 1), [whole(1)[0].clone(), String::new(), String::new()]);
    assert_eq!(report["gpus"][1]["name"], Value::Null);
}

/// What it said before it was lost is not what it says now.
#[test]
fn a_lost_gpu_has_no_readings() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    nvml.set("gpus=2\ngpu1.temperature=err:15");
    let report = worker.report_when("GPU_LOST", has("GPU_LOST"));
    let gpu = &report["gpus"][1];
    for name in ["fan_percent", "pcie_width", "ecc_uncorrected_volatile", "processes", "mig_mode", "temperature_c"] {
        assert!(gpu[name].is_null(), "{name}: {gpu:#}");
    }
}
