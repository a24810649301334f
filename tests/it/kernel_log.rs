//! Errors in the kernel's log: which count, for how long, and what settles them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::doctor::machine;
use crate::faults::library;
use crate::gpus::is_ok;
use crate::harness::{agent_net, folder, run, wait_for};
use crate::rules::{Scene, UUID};

/// A machine without containers, where each GPU that the log names is ours.
pub fn bare_machine(name: &str) -> PathBuf {
    let root = machine(name);
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/mountinfo"), "25 1 0:5 / /dev rw,nosuid - devtmpfs udev rw\n").unwrap();
    root
}

/// One record of this moment.
pub fn kernel_says(root: &Path, text: &str) {
    write_record(root, &format!("4,1200,{},-;{text}\n", now_us()));
}

fn write_record(root: &Path, record: &str) {
    let mut log = OpenOptions::new().append(true).create(true).open(root.join("dev/kmsg")).unwrap();
    // Whole, as the kernel gives them.
    log.write_all(record.as_bytes()).unwrap();
}

/// The clock of the records.
fn now_us() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

const OFF_THE_BUS: &str = "NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=ollama, GPU has fallen off the bus.";
const BANNER: &str = "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build";
const CORE_STARTS: &str = "nvidia-nvlink: Nvlink Core is being initialized, major device number 236";

#[test]
fn errors_in_the_kernels_log_are_held_until_something_settles_them() {
    let root = machine("kmsg");
    kernel_says(&root, OFF_THE_BUS);
    let scene = Scene::new(&root, "gpu0.xids=1:48", &[]);
    // Since the machine started, not only since the worker did; NVML is not asked then.
    let reason = scene.says("XID_FATAL", "unhealthy");
    assert!(reason["message"].as_str().unwrap().contains("79") && reason["gpu"] == UUID, "{reason:#}");
    assert_eq!(scene.worker.report()["xid_source"], "kmsg");
    scene.worker.acknowledge();
    scene.is_well();
    // A load of the driver: it goes, it begins, it looks at its GPUs, and greets.
    kernel_says(&root, "NVRM: GPU at 0000:01:00.0 has fallen off the bus.");
    scene.says("XID_FATAL", "unhealthy");
    kernel_says(&root, "nvidia-nvlink: Unregistered Nvlink Core, major device number 236");
    kernel_says(&root, CORE_STARTS);
    kernel_says(&root, BANNER);
    scene.is_well();
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 63, pid='<unknown>', row remap");
    scene.says("XID_WARN", "degraded");
    scene.worker.acknowledge();
    scene.is_well();
    // A program's own fault is counted and no more; what a program writes is not even counted.
    write_record(&root, &format!("12,7,{},-;{OFF_THE_BUS}\n", now_us()));
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 31, pid=1234, name=python, Ch 00000010");
    let report = scene.worker.report_when("XID 31", |r| r["gpus"][0]["xids"].to_string().contains("\"xid\":31"));
    assert_eq!(report["health"]["verdict"], "ok", "{report:#}");
    // The one before the first look counts with the second, which came later.
    let counts = counts(&report);
    assert_eq!((counts[0].0, &counts[1..]), (79, &[(63, 1), (31, 1)][..]));
}

fn counts(report: &Value) -> Vec<(u64, u64)> {
    let xids = report["gpus"][0]["xids"].as_array().unwrap();
    xids.iter().map(|x| (x["xid"].as_u64().unwrap(), x["count"].as_u64().unwrap())).collect()
}

#[test]
fn an_error_of_a_probe_outlasts_the_banner_of_its_own_load() {
    for (name, begins) in [("kmsg-probe", false), ("kmsg-probe-core", true)] {
        let root = bare_machine(name);
        let start = now_us() - 2_000_000;
        let records = [
            (0, if begins { CORE_STARTS } else { "nvidia: loading out-of-tree module taints kernel." }),
            (
                500_000,
                "NVRM: The NVIDIA GPU 0000:02:00.0\\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.",
            ),
            (630_000, "NVRM: The NVIDIA probe routine failed for 1 device(s)."),
            (631_000, BANNER),
        ];
        for (after, text) in records {
            write_record(&root, &format!("4,1,{},-;{text}\n SUBSYSTEM=pci\n", start + after));
        }
        let scene = Scene::new(&root, "", &[]);
        let reason = scene.says("XID_FATAL", "unhealthy");
        assert!(reason["message"].as_str().unwrap().contains("0000:02:00"), "{reason:#}");
        // The next load found nothing wrong.
        kernel_says(&root, CORE_STARTS);
        kernel_says(&root, BANNER);
        scene.is_well();
    }
}

#[test]
fn a_driver_that_was_away_does_not_settle_what_the_log_says_of_its_load() {
    let root = bare_machine("kmsg-reload");
    kernel_says(&root, "Linux version 6.8.0");
    let scene = Scene::new(&root, "init=9", &[]);
    scene.says("DRIVER_NOT_LOADED", "unhealthy");
    kernel_says(&root, CORE_STARTS);
    kernel_says(&root, OFF_THE_BUS);
    kernel_says(&root, BANNER);
    scene.worker.report_when("XID 79", |r| r["health"]["reasons"].to_string().contains("XID_FATAL"));
    scene.nvml.set("");
    let report = scene.worker.report_when("a sample", |r| r["gpus"][0]["uuid"] == UUID);
    assert_eq!(report["health"]["verdict"], "unhealthy", "{report:#}");
    scene.says("XID_FATAL", "unhealthy");
}

#[test]
fn what_the_driver_asks_for_and_how_bad_it_calls_an_error_is_read_from_its_words() {
    let root = machine("kmsg-words");
    let changes = |from: &str, to: &str| {
        format!("NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from {from} to {to}")
    };
    kernel_says(&root, &changes("0x0 (None)", "0x2 (Node Reboot Required)"));
    let scene = Scene::new(&root, "", &[]);
    let reason = scene.says("XID_FATAL", "unhealthy");
    assert!(reason["message"].as_str().unwrap().contains("154 (driver requests a reset"), "{reason:#}");
    kernel_says(&root, &changes("0x2 (Node Reboot Required)", "0x0 (None)"));
    scene.is_well();
    kernel_says(&root, &changes("0x0 (None)", "0x3 (Drain P2P)"));
    scene.says("XID_WARN", "degraded");
    kernel_says(&root, &changes("0x3 (Drain P2P)", "0x4 (Drain and Reset)"));
    scene.says("XID_FATAL", "unhealthy");
    kernel_says(&root, &changes("0x4 (Drain and Reset)", "0x0 (None)"));
    scene.is_well();
    for (text, code, severity) in [
        ("145, pid=7, name=a::B, RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x8)", "XID_WARN", "degraded"),
        ("149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x0)", "XID_FATAL", "unhealthy"),
        ("167, PCIe fatal timeout", "XID_WARN", "degraded"),
        ("169, SEC2 halt", "XID_WARN", "degraded"),
    ] {
        kernel_says(&root, &format!("NVRM: Xid (PCI:0000:01:00): {text}"));
        let reason = scene.says(code, severity);
        assert!(reason["message"].as_str().unwrap().contains(&text[..3]), "{reason:#}");
        scene.worker.acknowledge();
        scene.is_well();
    }
}

/// A worker whose C library is preload.rs: its log gives one record a read, as the device does.
struct Tampered {
    scene: Scene,
    faults: File,
}

/// Parts of preload.rs.
const CLOCK: u64 = 1;
const KERNEL_LOG: u64 = 5;

impl Tampered {
    fn new(root: &Path, part: u64, mode: u8) -> Self {
        let path: PathBuf = root.join("faults");
        fs::write(&path, [0; 4096]).unwrap();
        let faults = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        faults.write_all_at(&[mode], part).unwrap();
        let settings = [
            ("LD_PRELOAD", library().to_str().unwrap()),
            ("FAULTS", path.to_str().unwrap()),
            // A clock that is set makes gaps in the uptime.
            ("GPU_SHORT_TERM_UPTIME_THRESHOLD", "0"),
            ("GPU_MEDIUM_TERM_UPTIME_THRESHOLD", "0"),
            ("GPU_LONG_TERM_UPTIME_THRESHOLD", "0"),
        ];
        Self { scene: Scene::new(root, "", &settings), faults }
    }
}

#[test]
fn no_record_is_lost_when_the_log_is_opened() {
    let root = machine("kmsg-first");
    kernel_says(&root, OFF_THE_BUS);
    let worker = Tampered::new(&root, KERNEL_LOG, 0);
    worker.scene.says("XID_FATAL", "unhealthy");
    assert_eq!(counts(&worker.scene.worker.report()), [(79, 1)]);
}

#[test]
fn records_that_were_overwritten_end_nothing() {
    let root = machine("kmsg-overwritten");
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=a, Ch 00000010");
    let worker = Tampered::new(&root, KERNEL_LOG, b'p');
    kernel_says(&root, OFF_THE_BUS);
    worker.scene.says("XID_FATAL", "unhealthy");
    assert_eq!(counts(&worker.scene.worker.report()), [(31, 1), (79, 1)]);
}

#[test]
fn the_rest_of_a_record_that_is_too_long_is_none_of_its_own() {
    let root = machine("kmsg-long");
    // The worker reads 16 KiB at a time.
    let long = format!("{:x<32768}4,1,7,-;{}\n", "4,1,7,-;", OFF_THE_BUS);
    write_record(&root, &long);
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 63, row remap\r");
    let scene = Scene::new(&root, "", &[]);
    scene.says("XID_WARN", "degraded");
    assert_eq!(counts(&scene.worker.report()), [(63, 1)]);
}

#[test]
fn a_log_that_may_be_opened_and_not_be_read_is_none() {
    let root = machine("kmsg-forbidden");
    kernel_says(&root, OFF_THE_BUS);
    let worker = Tampered::new(&root, KERNEL_LOG, b'd');
    worker.scene.is_well();
    assert_eq!(worker.scene.worker.report()["xid_source"], "nvml");
    // What is given in its place is none either.
    let root = machine("kmsg-null");
    symlink("/dev/null", root.join("dev/kmsg")).unwrap();
    let scene = Scene::new(&root, "", &[]);
    scene.is_well();
    assert_eq!(scene.worker.report()["xid_source"], "nvml");
}

#[test]
fn a_step_of_the_wall_clock_swallows_no_error() {
    let root = machine("kmsg-clock");
    kernel_says(&root, OFF_THE_BUS);
    let worker = Tampered::new(&root, CLOCK, 0);
    let scene = &worker.scene;
    let last = |xid: u64| {
        let report = scene.worker.report();
        let row = report["gpus"][0]["xids"].as_array().unwrap().iter().find(|x| x["xid"] == xid).cloned();
        row.unwrap_or_else(|| panic!("{report:#}"))["last"].as_f64().unwrap()
    };
    let real = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let near = |shown: f64, meant: f64| (shown - meant).abs() < 300.0;
    scene.says("XID_FATAL", "unhealthy");
    scene.worker.acknowledge();
    scene.is_well();
    // Back by decades: what comes now is new all the same.
    worker.faults.write_all_at(b"p", CLOCK).unwrap();
    wait_for("a sample by the new clock", || {
        let at = scene.worker.report()["timestamp"].as_f64().unwrap();
        near(at, real() / 2.0).then_some(())
    });
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 48, pid=1, name=a, DBE");
    scene.says("XID_FATAL", "unhealthy");
    assert!(near(last(48), real() / 2.0) && near(last(79), real() / 2.0), "{} {}", last(48), last(79));
    // A warning is not prolonged, and an error that is known stays known.
    scene.worker.acknowledge();
    scene.is_well();
    // And forth again.
    worker.faults.write_all_at(&[0], CLOCK).unwrap();
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 63, row remap");
    scene.says("XID_WARN", "degraded");
    kernel_says(&root, "NVRM: Xid (PCI:0000:01:00): 62, halt");
    scene.says("XID_FATAL", "unhealthy");
    assert!(near(last(48), real()) && near(last(62), real()), "{} {}", last(48), last(62));
}

/// A worker of one machine and one STATE_DIR.
fn again(root: &Path, state: &Path) -> Scene {
    Scene::new(root, "", &[("STATE_DIR", state.to_str().unwrap())])
}

fn acknowledge(state: &Path) -> String {
    wait_for("the socket", || state.join("control.sock").exists().then_some(()));
    let (status, out, err) = run(agent_net().arg("ack").env("STATE_DIR", state));
    assert!(status.success(), "{err}");
    out
}

/// A record with a number and a time of its own.
fn numbered(root: &Path, number: u32, text: &str) {
    write_record(root, &format!("4,{number},{},-;{text}\n SUBSYSTEM=pci\n", now_us()));
}

const DOUBLE_BIT: &str = "NVRM: Xid (PCI:0000:01:00): 48, pid=1, name=a, DBE";

#[test]
fn an_acknowledgment_outlives_the_worker_and_not_the_boot() {
    let (root, state) = (machine("kmsg-kept"), folder("kmsg-kept-state"));
    let boot = root.join("proc/sys/kernel/random/boot_id");
    fs::create_dir_all(boot.parent().unwrap()).unwrap();
    fs::write(&boot, "first\n").unwrap();
    numbered(&root, 7, OFF_THE_BUS);
    let scene = again(&root, &state);
    scene.says("XID_FATAL", "unhealthy");
    acknowledge(&state);
    is_kept(&state, 7);
    drop(scene);
    // It was read, and counts no more.
    let scene = again(&root, &state);
    scene.worker.report_when("XID 79, settled", |report| has_79(report) && is_ok(report));
    drop(scene);
    // What comes later counts, also if no worker was there to see it.
    numbered(&root, 8, DOUBLE_BIT);
    let scene = again(&root, &state);
    let reason = scene.says("XID_FATAL", "unhealthy");
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("48") && !message.contains("79"), "{reason:#}");
    acknowledge(&state);
    is_kept(&state, 8);
    scene.is_well();
    numbered(&root, 9, OFF_THE_BUS);
    scene.says("XID_FATAL", "unhealthy");
    acknowledge(&state);
    is_kept(&state, 9);
    drop(scene);
    // Another boot numbers its records from 0 again.
    fs::write(&boot, "second\n").unwrap();
    let scene = again(&root, &state);
    scene.says("XID_FATAL", "unhealthy");
    assert!(!scene.worker.log().contains("acknowledged.json"), "{}", scene.worker.log());
}

fn is_kept(state: &Path, record: u32) {
    let file = state.join("acknowledged.json");
    let expect = format!(r#"{{"boot":"first","record":{record}}}"#);
    wait_for(&expect, || fs::read_to_string(&file).is_ok_and(|text| text == expect).then_some(()));
}

fn has_79(report: &Value) -> bool {
    report["gpus"][0]["xids"].as_array().is_some_and(|xids| xids.iter().any(|xid| xid["xid"] == 79))
}

#[test]
fn a_damaged_acknowledgment_is_one_warning_and_one_that_cannot_be_kept_is_said() {
    let (root, state) = (machine("kmsg-damaged"), folder("kmsg-damaged-state"));
    numbered(&root, 7, OFF_THE_BUS);
    let file = state.join("acknowledged.json");
    for damage in [vec![0xff; 100], vec![b'{'; 100 << 20], b"[\"first\",7]".to_vec()] {
        fs::write(&file, damage).unwrap();
        let scene = again(&root, &state);
        scene.says("XID_FATAL", "unhealthy");
        let warned = || scene.worker.log().matches("acknowledged.json: it is damaged; ").count();
        wait_for("a warning", || (warned() == 1).then_some(()));
        acknowledge(&state);
        // It is replaced.
        wait_for("a file", || fs::metadata(&file).is_ok_and(|file| (1..100).contains(&file.len())).then_some(()));
        assert_eq!(warned(), 1);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let scene = again(&root, &state);
    scene.says("XID_FATAL", "unhealthy");
    let why = "; it ends with a restart of the worker: not a regular file\n";
    wait_for("the reason", || acknowledge(&state).ends_with(why).then_some(()));
    scene.is_well();
}
