//! NVIDIA cards that can sleep (runtime suspend), by a tree of the files that the kernel and the driver have of them.
//!
//! The files and their texts are those that the kernel's documents, the README of NVIDIA's driver and nv-procfs.c of
//! open-gpu-kernel-modules describe. No such card was at hand: that an open NVML handle keeps one awake, and that it sleeps
//! some 6 s after the last one was closed, is what users of other monitors report.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::{HURRY, has, is_ok, start};
use crate::harness::{Worker, agent_net, codes, folder, run, verdict, wait_for};
use crate::model_store::metric;
use crate::nvml::FakeNvml;

/// A GPU without work.
const IDLE: &str = "gpu*.utilization=0/0\ngpu*.memory=8192/12/300\ngpu*.processes=\ngpu*.temperature=44";
const BUSY: &str = "gpu*.utilization=93/40\ngpu*.memory=8192/6000/300\ngpu*.processes=4200042:5900";

/// A laptop, or what its cards are in.
struct Machine {
    root: PathBuf,
    ollama: FakeOllama,
    nvml: FakeNvml,
}

impl Machine {
    /// With cards of this runtime status.
    fn new(name: &str, cards: &[&str]) -> Self {
        let root = folder(name);
        let write = |path: String, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/mountinfo".into(), "22 1 0:5 / /dev rw - devtmpfs udev rw\n");
        write("dev/nvidiactl".into(), "");
        let driver = root.join("sys/bus/pci/drivers/nvidia");
        fs::create_dir_all(&driver).unwrap();
        // Files of the driver itself.
        fs::write(driver.join("new_id"), "").unwrap();
        for (i, status) in cards.iter().enumerate() {
            let slot = format!("0000:{:02x}:00.0", i + 1);
            let device = format!("sys/bus/pci/devices/{slot}");
            write(format!("{device}/vendor"), "0x10de\n");
            write(format!("{device}/class"), "0x030200\n");
            write(format!("{device}/device"), "0x28a1\n");
            write(format!("{device}/power/control"), "auto\n");
            write(format!("{device}/power/runtime_status"), &format!("{status}\n"));
            write(format!("dev/nvidia{i}"), "");
            let power = "Runtime D3 status:          Enabled (fine-grained)\nVideo Memory:               Active\n";
            write(format!("proc/driver/nvidia/gpus/{slot}/power"), power);
            symlink(driver.clone(), root.join(&device).join("driver")).unwrap();
            symlink(root.join(&device), driver.join(&slot)).unwrap();
        }
        let ollama = FakeOllama::new();
        ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
        Self { root, ollama, nvml: FakeNvml::new(&format!("gpus={}\n{IDLE}", cards.len())) }
    }

    fn card(&self, card: usize, file: &str) -> PathBuf {
        self.root.join(format!("sys/bus/pci/devices/0000:{:02x}:00.0/power/{file}", card + 1))
    }

    fn set(&self, card: usize, status: &str) {
        let file = self.card(card, "runtime_status");
        let new = file.with_extension("new");
        fs::write(&new, format!("{status}\n")).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn start(&self) -> Worker {
        let settings = [HURRY, ("HOST_ROOT", self.root.to_str().unwrap()), ("SLOW_SAMPLE_INTERVAL", "500ms")];
        start(&self.ollama, &self.nvml, &settings)
    }
}

fn is_asleep(report: &Value) -> bool {
    let gpus = report["gpus"].as_array().unwrap();
    !gpus.is_empty() && gpus.iter().all(|gpu| gpu["asleep"] == true)
}

fn is_read(report: &Value) -> bool {
    let gpus = report["gpus"].as_array().unwrap();
    !gpus.is_empty() && gpus.iter().all(|gpu| gpu["asleep"] == false && gpu["temperature_c"].is_u64())
}

/// Waits until the worker has run that much longer; it takes some samples a second.
fn seconds_of_work(worker: &Worker, seconds: u64) {
    let end = worker.report()["uptime"]["process_seconds"].as_u64().unwrap() + seconds;
    worker.report_when("time", |report| report["uptime"]["process_seconds"].as_u64() >= Some(end));
}

/// Nothing of what releases NVML looks like a fault.
#[track_caller]
fn nothing_failed(worker: &Worker) {
    let log = worker.log();
    for word in ["NVML_HELPER", "DRIVER_", "GPU_", "unhealthy"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    assert!(
        worker.get("/metrics").text().contains("agent_net_nvml_reinits_total 0"),
        "{}",
        worker.get("/metrics").text()
    );
}

#[test]
fn a_card_that_sleeps_is_not_woken_and_is_read_once_another_program_has_woken_it() {
    let machine = Machine::new("sleep-start", &["suspended"]);
    let worker = machine.start();
    let report = worker.report_when("a sleeping GPU", |report| is_asleep(report) && is_ok(report));
    let gpu = &report["gpus"][0];
    for (name, expect) in [
        ("name", json!("NVIDIA GPU (PCI device 0x28a1)")),
        ("pci_bus_id", json!("00000000:01:00.0")),
        ("vendor", json!("nvidia")),
        ("temperature_c", Value::Null),
        ("error", Value::Null),
        ("verdict", json!("ok")),
    ] {
        assert_eq!(gpu[name], expect, "{name}: {gpu:#}");
    }
    assert_eq!((&report["gpu_count"], &report["source"]), (&json!(1), &json!("nvml+ollama")));
    seconds_of_work(&worker, 2);
    // Commands that read the GPUs themselves, with no worker at their port, let it sleep too.
    for command in [&["check"][..], &["doctor"]] {
        let mut program = agent_net();
        program.envs(machine.nvml.settings()).env("HOST_ROOT", &machine.root).env("OLLAMA_URL", machine.ollama.url());
        let (status, out, err) = run(program.args(command).arg("--json").env("SERVER_PORT", "9"));
        assert!(status.success() || command[0] == "doctor", "{command:?}: {status} {out}{err}");
        assert!(!out.contains("/dev/nvidia0"), "it opened the GPU: {out}");
    }
    assert_eq!((machine.nvml.inits(), worker.helpers().len()), (0, 0));
    // Ollama loads a model.
    machine.nvml.set(BUSY);
    machine.set(0, "active");
    let report = worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    assert_eq!((&report["gpus"][0]["name"], machine.nvml.inits()), (&json!("Fake RTX 0"), 1));
    nothing_failed(&worker);
}

#[test]
fn a_card_without_work_is_released_and_falls_asleep_and_comes_back() {
    let machine = Machine::new("sleep-idle", &["active"]);
    machine.nvml.set(BUSY);
    let worker = machine.start();
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    seconds_of_work(&worker, 3);
    assert_eq!(worker.helpers().len(), 1, "a GPU with work was released");
    for round in 1..=3 {
        machine.nvml.set(IDLE);
        wait_for("the release", || worker.helpers().is_empty().then_some(()));
        // It is still awake: what was read before is not shown as if it were new.
        let report = worker.report_when("a GPU that is left alone", is_asleep);
        assert_eq!((verdict(&report), &report["gpus"][0]["temperature_c"]), ("ok", &Value::Null), "{report:#}");
        machine.set(0, "suspending");
        machine.set(0, "suspended");
        seconds_of_work(&worker, 3);
        let report = worker.report_when("a sleeping GPU", is_asleep);
        let gpu = &report["gpus"][0];
        assert_eq!((&gpu["name"], &gpu["vram_total_mb"]), (&json!("Fake RTX 0"), &json!(8192)), "{gpu:#}");
        assert_eq!(gpu["uuid"], "GPU-00000000-0000-0000-0000-000000000000");
        assert_eq!((report["driver_version"].as_str(), machine.nvml.inits()), (Some("550.54.14"), round));
        assert!(worker.helpers().is_empty());
        machine.nvml.set(BUSY);
        machine.set(0, "active");
        worker.report_when("its readings", |report| is_read(report) && report["gpus"][0]["utilization_percent"] == 93);
    }
    nothing_failed(&worker);
}

#[test]
fn a_card_that_another_program_keeps_awake_is_read_again() {
    let machine = Machine::new("sleep-kept", &["active"]);
    let worker = machine.start();
    worker.report_when("its readings", is_read);
    worker.report_when("a GPU that is left alone", is_asleep);
    worker.report_when("its readings", is_read);
    assert_eq!(machine.nvml.inits(), 2);
    // The next attempt is later than the first.
    seconds_of_work(&worker, 3);
    assert_eq!((machine.nvml.inits(), worker.helpers().len()), (2, 1));
    worker.report_when("a GPU that is left alone", is_asleep);
    nothing_failed(&worker);
}

#[test]
fn a_program_that_wakes_a_card_for_a_moment_is_not_followed() {
    let machine = Machine::new("sleep-flapping", &["suspended"]);
    let worker = machine.start();
    worker.report_when("a sleeping GPU", is_asleep);
    machine.set(0, "active");
    worker.report_when("its readings", is_read);
    worker.report_when("a GPU that is left alone", is_asleep);
    for _ in 0..5 {
        machine.set(0, "suspended");
        seconds_of_work(&worker, 1);
        machine.set(0, "active");
        let asked = worker.report()["sample_age_ms"].as_u64();
        worker.report_when("a sample later", |report| report["sample_age_ms"].as_u64() != asked);
    }
    assert_eq!(machine.nvml.inits(), 1);
    // One that stays awake is looked at.
    worker.report_when("its readings", is_read);
    nothing_failed(&worker);
}

#[test]
fn machines_whose_cards_cannot_sleep_are_read_as_ever() {
    let machines: Vec<(Machine, Worker)> = [
        ("unsupported", "runtime_status", "unsupported\n"),
        ("on", "control", "on\n"),
        ("nothing", "runtime_status", ""),
        ("disabled", "", "Runtime D3 status:          Disabled by default\nVideo Memory:  Active\n"),
        ("not-supported", "", "Runtime D3 status:          Not supported\n"),
    ]
    .map(|(name, file, text)| {
        let machine = Machine::new(&format!("sleep-server-{name}"), &["active", "active"]);
        let file = match file {
            "" => machine.root.join("proc/driver/nvidia/gpus/0000:02:00.0/power"),
            file => machine.card(1, file),
        };
        if text.is_empty() { fs::remove_file(file) } else { fs::write(file, text) }.unwrap();
        let worker = machine.start();
        (machine, worker)
    })
    .into();
    for (machine, worker) in &machines {
        worker.report_when("their readings", is_read);
        seconds_of_work(worker, 4);
        assert_eq!((worker.helpers().len(), machine.nvml.inits()), (1, 1), "{}", machine.root.display());
        assert!(is_read(&worker.report()));
        nothing_failed(worker);
    }
}

#[test]
fn of_several_cards_one_that_is_awake_is_enough_to_read_them() {
    let machine = Machine::new("sleep-two", &["suspended", "suspended"]);
    let worker = machine.start();
    let report = worker.report_when("two sleeping GPUs", is_asleep);
    assert_eq!((&report["gpu_count"], &report["gpus"][1]["pci_bus_id"]), (&json!(2), &json!("00000000:02:00.0")));
    assert_eq!(machine.nvml.inits(), 0);
    machine.set(1, "active");
    let report = worker.report_when("their readings", is_read);
    assert_eq!(report["gpu_count"], 2);
    let report = worker.report_when("two GPUs that are left alone", is_asleep);
    assert_eq!(report["gpu_count"], 2);
    // A status that cannot be read is that of a card that is awake.
    machine.set(1, "suspended");
    seconds_of_work(&worker, 3);
    assert_eq!(machine.nvml.inits(), 1);
    fs::remove_file(machine.card(0, "runtime_status")).unwrap();
    worker.report_when("their readings", is_read);
    nothing_failed(&worker);
}

/// The bus shows all cards of the machine, and not which of them a container has.
#[test]
fn a_container_with_some_of_the_cards_learns_which_from_nvml() {
    let machine = Machine::new("sleep-container", &["suspended", "suspended"]);
    let overlay = "700 699 0:55 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n";
    fs::write(machine.root.join("proc/self/mountinfo"), overlay).unwrap();
    fs::remove_file(machine.root.join("dev/nvidia1")).unwrap();
    let own = format!("gpus=1\n{IDLE}\ngpu0.pci=00000000:02:00.0");
    machine.nvml.set(&own);
    let worker = machine.start();
    worker.report_when("its readings", is_read);
    // It sleeps although NVML was used: then it is left alone, whatever the other card does.
    machine.set(0, "active");
    let report = worker.report_when("a sleeping GPU", is_asleep);
    assert_eq!((report["gpus"].as_array().unwrap().len(), &report["gpu_count"]), (1, &json!(1)));
    wait_for("the release", || worker.helpers().is_empty().then_some(()));
    machine.set(1, "active");
    worker.report_when("its readings", is_read);
}

#[test]
fn a_fault_is_not_forgotten_while_the_card_sleeps() {
    let machine = Machine::new("sleep-fault", &["active"]);
    machine.nvml.set("init=9");
    let worker = machine.start();
    worker.report_when("DRIVER_NOT_LOADED", has("DRIVER_NOT_LOADED"));
    machine.set(0, "suspended");
    let inits = wait_for("no more tries", || {
        let before = machine.nvml.inits();
        seconds_of_work(&worker, 3);
        (machine.nvml.inits() == before).then_some(before)
    });
    assert_eq!(codes(&worker.report()), ["DRIVER_NOT_LOADED"]);
    machine.nvml.set(IDLE);
    machine.set(0, "active");
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    assert!(machine.nvml.inits() > inits);
}

/// A card that the kernel cannot wake any more looks as if it slept, too.
#[test]
fn a_lost_card_is_not_one_that_sleeps() {
    let machine = Machine::new("sleep-lost", &["active"]);
    machine.nvml.set(BUSY);
    let worker = machine.start();
    worker.report_when("its readings", is_read);
    machine.nvml.set(&format!("{BUSY}\ngpu0.handle=15"));
    worker.report_when("GPU_LOST", has("GPU_LOST"));
    machine.set(0, "suspended");
    wait_for("the release", || worker.helpers().is_empty().then_some(()));
    seconds_of_work(&worker, 3);
    let report = worker.report();
    assert_eq!((codes(&report), verdict(&report), &report["gpu_count"]), (vec!["GPU_LOST"], "unhealthy", &json!(0)));
    machine.nvml.set(BUSY);
    machine.set(0, "active");
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
}

#[test]
fn a_helper_that_is_killed_is_a_fault_only_while_it_is_used() {
    let machine = Machine::new("sleep-killed", &["active"]);
    machine.nvml.set(BUSY);
    let worker = machine.start();
    worker.report_when("its readings", is_read);
    kill_process(worker.helpers()[0], Signal::KILL).unwrap();
    worker.report_when("NVML_HELPER_FAILED", has("NVML_HELPER_FAILED"));
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    // The next ones end as well, until the card sleeps: then none is missed.
    machine.nvml.set(&format!("{BUSY}\nat_init=crash"));
    kill_process(worker.helpers()[0], Signal::KILL).unwrap();
    worker.report_when("NVML_HELPER_FAILED", has("NVML_HELPER_FAILED"));
    machine.set(0, "suspended");
    worker.report_when("no more than a sleeping GPU", |report| is_asleep(report) && is_ok(report));
    wait_for("no helper", || worker.helpers().is_empty().then_some(()));
    machine.nvml.set(BUSY);
    machine.set(0, "active");
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    // A counter does not go back when NVML is released, and a release does not count as a restart.
    let restarts = || metric(&worker, "agent_net_nvml_reinits_total");
    let before = restarts();
    assert!(before >= Some(1.0), "{before:?}");
    machine.nvml.set(IDLE);
    wait_for("the release", || worker.helpers().is_empty().then_some(()));
    machine.set(0, "suspended");
    worker.report_when("a sleeping GPU", is_asleep);
    assert_eq!(restarts(), before);
    machine.nvml.set(BUSY);
    machine.set(0, "active");
    worker.report_when("its readings", |report| is_read(report) && is_ok(report));
    assert_eq!(restarts(), before);
}
