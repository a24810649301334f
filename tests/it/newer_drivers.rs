//! What newer drivers say of a GPU, by the helper itself and by the worker: memory repairs, spare rows, NVLink fabric, GPM,
//! and what each process uses.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::doctor::machine;
use crate::harness::{command, folder, wait_for};
use crate::helper::Helper;
use crate::nvml::{self, FakeNvml};
use crate::programs;
use crate::readings::has_valgrind;
use crate::rules::{Scene, UUID};

const ALL: &str = "gpu0.sram=0\ngpu0.repair=0/0\ngpu0.unrepairable=0\ngpu0.spares=2560/0/0/0/0\ngpu0.fabric=3/0/0/1\n\
    gpu0.memory_power=43190\ngpu0.gpm=37.25/12/80/1000/2000";
/// The slow readings among them, with the setting of each.
const SLOW: [(&str, &str); 6] = [
    ("sram_threshold_exceeded", "sram"),
    ("channel_repair_pending", "repair"),
    ("unrepairable_memory", "unrepairable"),
    ("spare_rows", "spares"),
    ("fabric_state", "fabric"),
    ("memory_power_mw", "memory_power"),
];
const GPM: [&str; 5] = [
    "sm_activity_percent",
    "tensor_activity_percent",
    "dram_activity_percent",
    "pcie_sent_mib_per_second",
    "pcie_received_mib_per_second",
];

/// A little more than the driver needs between two GPM samples.
pub fn apart() {
    thread::sleep(Duration::from_millis(120));
}

/// A file that the fake lists its calls in.
fn calls_file(name: &str) -> PathBuf {
    folder(name).join("calls")
}

/// How often each of these was asked of GPU 0.
fn calls(file: &PathBuf, names: &[&str]) -> Vec<usize> {
    let text = fs::read_to_string(file).unwrap_or_default();
    names.iter().map(|name| text.lines().filter(|line| *line == format!("gpu0.{name}")).count()).collect()
}

fn is_in(gpu: &Value, list: &str, name: &str) -> bool {
    // The report names them with their units.
    let name = name.replace("_mw", "_w");
    ["gaps", "slow_gaps"].iter().any(|gaps| match &gpu[gaps][list] {
        Value::Array(all) => all.contains(&json!(name)),
        object => !object[&name].is_null(),
    })
}

#[test]
fn a_call_that_the_driver_refused_is_not_made_at_each_slow_reading() {
    for (code, times) in [(3, 1), (4, 1), (13, 1), (25, 1), (2, 3), (10, 3), (27, 3)] {
        let file = calls_file(&format!("final-{code}"));
        let names = SLOW.map(|(_, setting)| setting);
        let failing: String = names.iter().map(|name| format!("gpu0.{name}=err:{code}\n")).collect();
        let nvml = FakeNvml::new(&format!("calls={}\n{failing}", file.display()));
        let mut helper = Helper::start(&nvml);
        for _ in 0..3 {
            let gpu = helper.ask_slow()["gpus"][0].clone();
            for (name, _) in SLOW {
                assert_eq!(gpu[name], Value::Null, "{code} {name}");
                let unsupported = times == 1 || code == 2;
                assert_eq!(is_in(&gpu, "unsupported", name), unsupported, "{code} {name}: {gpu:#}");
                assert_eq!(is_in(&gpu, "failed", name), !unsupported, "{code} {name}: {gpu:#}");
            }
        }
        let made = calls(&file, &names);
        for ((name, setting), made) in SLOW.iter().zip(made) {
            // Two older versions are tried after an answer that the driver does not know this one.
            let versions = if *name == "fabric_state" && code == 13 { 3 } else { 1 };
            let most = if *name == "fabric_state" && [13, 25].contains(&code) { 3 } else { times };
            assert!(made == times || made == times * versions || made == most, "{code} {setting}: {made}");
        }
    }
}

/// Drivers before 545 may answer with the power of the whole board.
#[test]
fn the_memorys_power_is_read_where_the_driver_has_it() {
    for (driver, expect) in [("535.309.01", Value::Null), ("545.23.08", json!(63_200)), ("615.1", json!(63_200))] {
        let nvml = FakeNvml::new(&format!("driver={driver}\ngpu0.memory_power=63200"));
        let gpu = Helper::start(&nvml).ask_slow()["gpus"][0].clone();
        assert_eq!(gpu["memory_power_mw"], expect, "{driver}");
        assert_eq!(is_in(&gpu, "unsupported", "memory_power_mw"), expect.is_null(), "{driver}: {gpu:#}");
    }
}

/// The GPU has the reading again once its MIG mode has changed.
#[test]
fn another_mig_mode_is_another_gpu() {
    let nvml = FakeNvml::new("gpu0.mig=1\ngpu0.spares=err:3");
    let mut helper = Helper::start(&nvml);
    assert!(is_in(&helper.ask_slow()["gpus"][0], "unsupported", "spare_rows"));
    nvml.set("gpu0.mig=1\ngpu0.spares=192/0/0/0/0");
    assert_eq!(helper.ask_slow()["gpus"][0]["spare_rows"], Value::Null);
    nvml.set("gpu0.mig=0\ngpu0.spares=192/0/0/0/0");
    assert_eq!(helper.ask_slow()["gpus"][0]["spare_rows"]["max"], 192);
}

/// Such a driver may answer with an error that would count as a fault.
#[test]
fn a_gpu_that_does_not_remap_rows_is_not_asked_for_spare_ones() {
    let file = calls_file("no-rows");
    let nvml = FakeNvml::new(&format!("gpu0.rows=err:3\ngpu0.spares=err:999\ncalls={}", file.display()));
    let gpu = Helper::start(&nvml).ask_slow()["gpus"][0].clone();
    assert!(is_in(&gpu, "unsupported", "spare_rows"), "{gpu:#}");
    assert_eq!(calls(&file, &["spares"]), [0]);
}

/// A library before R450 lacks the functions.
#[test]
fn functions_that_a_library_lacks_are_unsupported_readings() {
    let nvml = FakeNvml::new(ALL);
    let mut program = command(programs::helper());
    program.env("NVML_LIB", nvml::old_library());
    let mut helper = Helper::of(program, &nvml);
    for _ in 0..2 {
        let gpu = helper.ask_slow()["gpus"][0].clone();
        let newer = SLOW.iter().map(|(name, _)| *name).filter(|name| *name != "memory_power_mw").chain(GPM);
        for name in newer {
            assert!(gpu[name].is_null() && is_in(&gpu, "unsupported", name), "{name}: {gpu:#}");
        }
        assert_eq!((&gpu["error"], &gpu["slow_gaps"]["failed"]), (&Value::Null, &json!({})), "{gpu:#}");
        apart();
    }
}

#[test]
fn each_version_of_the_fabrics_struct_is_read() {
    let mask = 1 << 4;
    for (version, health) in [
        ("3", json!("healthy: unhealthy route")),
        ("2", json!("unhealthy: unhealthy route")),
        ("err:13", Value::Null),
        ("err:25", Value::Null),
    ] {
        let file = calls_file(&format!("fabric-{}", version.replace(':', "-")));
        let set = format!("gpu0.fabric=3/0/{mask}/1\ngpu0.fabric_version={version}\ncalls={}", file.display());
        let nvml = FakeNvml::new(&set);
        let mut helper = Helper::start(&nvml);
        for _ in 0..3 {
            let gpu = helper.ask_slow()["gpus"][0].clone();
            let fabric = json!([gpu["fabric_state"], gpu["fabric_status"], gpu["fabric_health"]]);
            assert_eq!(fabric, json!(["completed", "success", health]), "{version}");
        }
        // Newer versions are tried once.
        let tried = calls(&file, &["fabric_version"])[0];
        let expect = match version {
            "3" => 3,
            "2" => 4,
            _ => 2,
        };
        assert_eq!(tried, expect, "{version}");
    }
}

#[test]
fn the_fabric_is_said_in_words() {
    let nvml = FakeNvml::new("");
    let mut helper = Helper::start(&nvml);
    let mut check = |fabric: &str, expect: Value| {
        nvml.set(&format!("gpu0.fabric={fabric}"));
        let gpu = helper.ask_slow()["gpus"][0].clone();
        let words = json!([gpu["fabric_state"], gpu["fabric_status"], gpu["fabric_health"]]);
        assert_eq!(words, expect, "{fabric}");
        gpu
    };
    let gpu = check("0/0/0/0", json!([null, null, null]));
    assert!(is_in(&gpu, "unsupported", "fabric_state") && is_in(&gpu, "unsupported", "fabric_status"), "{gpu:#}");
    // The status is not valid yet.
    let gpu = check("1/999/0/0", json!(["not_started", null, null]));
    assert!(!is_in(&gpu, "unsupported", "fabric_status") && !is_in(&gpu, "failed", "fabric_status"), "{gpu:#}");
    check("2/999/0/0", json!(["in_progress", null, null]));
    check("3/10/0/0", json!(["completed", "the driver timed out (NVML_ERROR_TIMEOUT)", null]));
    // No NVSwitches.
    let gpu = check("3/3/0/0", json!([null, null, null]));
    assert!(is_in(&gpu, "unsupported", "fabric_state") && is_in(&gpu, "unsupported", "fabric_status"), "{gpu:#}");
    check("3/0/1/3", json!(["completed", "success", "limited capacity: reduced bandwidth"]));
    let gpu = check("4/0/0/0", json!([null, null, null]));
    assert_eq!(gpu["slow_gaps"]["failed"]["fabric_state"]["words"], "4 is impossible");
}

#[test]
fn odd_values_are_failed_readings() {
    let nvml = FakeNvml::new(
        "gpu0.sram=2\ngpu0.repair=0/7\ngpu0.unrepairable=4294967295\ngpu0.spares=4294967295/0/0/0/0\n\
         gpu0.memory_power=4000000000\ngpu0.gpm=nan/-1/250/inf/2000",
    );
    let mut helper = Helper::start(&nvml);
    let gpu = helper.ask_slow()["gpus"][0].clone();
    assert_eq!(gpu["channel_repair_pending"], false);
    for name in
        ["sram_threshold_exceeded", "tpc_repair_pending", "unrepairable_memory", "spare_rows", "memory_power_mw"]
    {
        assert!(gpu[name].is_null() && is_in(&gpu, "failed", name), "{name}: {gpu:#}");
    }
    apart();
    let gpu = helper.ask(None)["gpus"][0].clone();
    for name in &GPM[..4] {
        assert!(gpu[name].is_null() && is_in(&gpu, "failed", name), "{name}: {gpu:#}");
    }
    assert_eq!(gpu[GPM[4]], 2000.0);
    // One metric that the driver does not have, one that fails, and the others.
    nvml.set("gpu0.gpm=37.25/!3/!999/1/100.4");
    apart();
    let gpu = helper.ask(None)["gpus"][0].clone();
    assert_eq!(gpu[GPM[0]], 37.25);
    assert!(is_in(&gpu, "unsupported", GPM[1]) && is_in(&gpu, "failed", GPM[2]), "{gpu:#}");
    assert_eq!(gpu["error"], Value::Null);
}

#[test]
fn gpm_compares_each_sample_with_the_last_and_probes_take_none() {
    let file = calls_file("gpm");
    let set = |gpm: &str| format!("gpu0.gpm={gpm}\ncalls={}", file.display());
    let nvml = FakeNvml::new(&set("37.25/12/80/1000/2000"));
    let mut helper = Helper::start(&nvml);
    let known = |sample: &Value| GPM.map(|name| sample["gpus"][0][name].as_f64());
    let [first, second] = [[37.25, 12.0, 80.0, 1000.0, 2000.0], [1.0, 2.0, 3.0, 4.0, 5.0]].map(|all| all.map(Some));
    // The first has nothing to be compared with: null, but neither unsupported nor failed.
    let sample = helper.ask(None);
    assert_eq!(known(&sample), [None; 5]);
    let gpu = &sample["gpus"][0];
    assert!(GPM.iter().all(|name| !is_in(gpu, "unsupported", name) && !is_in(gpu, "failed", name)), "{gpu:#}");
    apart();
    assert_eq!(known(&helper.ask(None)), first);
    // Samples of a probe, and samples that are too close, repeat the values and disturb nothing.
    nvml.set(&set("1/2/3/4/5"));
    apart();
    for probe in [Some("mark"), Some("since_mark")] {
        assert_eq!(known(&helper.ask(probe)), first);
    }
    assert_eq!(known(&helper.ask(None)), second);
    nvml.set(&set("9/9/9/9/9"));
    let close = helper.ask(None);
    let took = calls(&file, &["gpm_sample", "gpm_metrics", "gpm_support"]);
    // On a busy machine it was not that close.
    assert!(known(&close) == second && took == [3, 2, 1] || took == [4, 3, 1], "{took:?}");
    // A GPU that did not answer begins again.
    nvml.set(&format!("{}\ngpu0.handle=15", set("9/9/9/9/9")));
    assert_eq!(helper.ask(None)["gpus"][0]["error"]["kind"], "lost");
    nvml.set(&set("9/9/9/9/9"));
    apart();
    assert_eq!(known(&helper.ask(None)), [None; 5]);
    apart();
    assert_eq!(known(&helper.ask(None)), [Some(9.0); 5]);
}

#[test]
fn a_gpu_without_gpm_is_asked_once_and_a_failure_is_tried_again() {
    for (set, support, sample, listed) in [
        ("gpm_support=0", 1, 0, "unsupported"),
        ("gpm_support=err:3", 1, 0, "unsupported"),
        ("gpm_support=err:13", 1, 0, "unsupported"),
        ("gpm_support=err:25", 1, 0, "unsupported"),
        ("gpm_support=err:10", 3, 0, "failed"),
        ("gpm_sample=err:3", 1, 1, "unsupported"),
        ("gpm_sample=err:4", 1, 1, "unsupported"),
        ("gpm_sample=err:10", 1, 3, "failed"),
    ] {
        let file = calls_file(&format!("gpm-{}", set.replace([':', '='], "-")));
        let nvml = FakeNvml::new(&format!("gpu0.gpm=1/2/3/4/5\ngpu0.{set}\ncalls={}", file.display()));
        let mut helper = Helper::start(&nvml);
        for _ in 0..3 {
            let gpu = helper.ask(None)["gpus"][0].clone();
            assert!(GPM.iter().all(|name| gpu[name].is_null() && is_in(&gpu, listed, name)), "{set}: {gpu:#}");
            apart();
        }
        assert_eq!(calls(&file, &["gpm_support", "gpm_sample"]), [support, sample], "{set}");
    }
}

#[test]
fn each_process_has_its_mean_since_the_last_slow_reading() {
    let file = calls_file("process-use");
    let nvml = FakeNvml::new("");
    let mut helper = Helper::start(&nvml);
    let mut check = |set: &str, expect: [Option<u64>; 2]| {
        nvml.set(&format!("gpu0.processes=4242:100,77:5\ncalls={}\n{set}", file.display()));
        let gpu = helper.ask_slow()["gpus"][0].clone();
        let list = gpu["processes"].as_array().unwrap();
        assert_eq!(list.iter().map(|p| p["utilization_percent"].as_u64()).collect::<Vec<_>>(), expect, "{set}");
        assert_eq!((&gpu["error"], &gpu["slow_gaps"]["failed"]), (&Value::Null, &json!({})), "{gpu:#}");
    };
    // A process that the list leaves out used nothing.
    check("gpu0.used_by=1000:4242:30,1200:4242:41,1200:9:99", [Some(36), Some(0)]);
    // What was counted is not counted again.
    check("gpu0.used_by=1000:4242:30,1200:4242:41,1500:4242:7,1500:77:3", [Some(7), Some(3)]);
    // Junk makes its own process unknown.
    check("gpu0.used_by=1700:4242:4294967295,1700:77:3", [None, Some(3)]);
    // No process: 0 only where all of the driver's samples are.
    check("gpu0.used_by=err:6\ngpu0.samples=1000:0,2000:0", [Some(0), Some(0)]);
    check("gpu0.used_by=err:6\ngpu0.samples=1000:0,2000:0,2400:1", [None, None]);
    check("gpu0.used_by=err:6\ngpu0.samples=2400:1,2600:0", [Some(0), Some(0)]);
    check("gpu0.used_by=err:6\ngpu0.samples=err:6", [None, None]);
    // Both clocks were set back.
    check("gpu0.used_by=300:4242:50,300:77:0\ngpu0.samples=400:0", [Some(50), Some(0)]);
    // As with MIG.
    check("gpu0.used_by=err:3", [None, None]);
    let before = calls(&file, &["used_by"]);
    check("gpu0.used_by=600:4242:50", [None, None]);
    assert_eq!(calls(&file, &["used_by"]), before, "it is asked again");
}

#[test]
fn a_gpu_without_processes_is_not_asked_what_they_use() {
    let file = calls_file("no-process");
    let nvml = FakeNvml::new(&format!("gpu0.processes=\ncalls={}", file.display()));
    Helper::start(&nvml).ask_slow();
    assert_eq!(calls(&file, &["used_by", "samples"]), [0, 0]);
}

#[test]
fn what_processes_use_is_in_the_report_and_the_metrics() {
    let root = machine("process-use");
    let processes = "gpu0.processes=4200042:6321,4200043:1,4200042:2\ngpu0.used_by=1000:4200042:37";
    let scene = Scene::new(&root, processes, &[]);
    let used = |report: &Value| {
        let list = report["gpus"][0]["processes"].as_array().into_iter().flatten();
        list.map(|process| process["utilization_percent"].clone()).collect::<Vec<_>>()
    };
    scene.worker.report_when("what they use", |report| used(report).contains(&json!(37)));
    // The list grows: the next slow reading asks for what is newer.
    let series = |pid: u32, share: &str| {
        format!("agent_net_gpu_process_utilization_ratio{{uuid=\"{UUID}\",pid=\"{pid}\",name=\"\"}} {share}")
    };
    wait_for("metrics", || {
        scene.nvml.set(&format!("{processes},{}:4200042:51", next()));
        let text = scene.worker.get("/metrics").text().to_owned();
        // Of a process that is listed twice once.
        let found: Vec<&str> =
            text.lines().filter(|line| line.starts_with("agent_net_gpu_process_utilization_ratio{")).collect();
        (found == [series(4_200_042, "0.51"), series(4_200_043, "0")]).then_some(())
    });
    let text = scene.worker.get("/gpu?format=text").text().to_owned();
    assert!(
        text.contains("gpu0_processes0_utilization_percent=") || text.contains("gpu0_processes0_vram_mb="),
        "{text}"
    );
}

/// Later each time.
fn next() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(2000);
    NEXT.fetch_add(1000, std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn memcheck_finds_nothing_in_the_calls_of_newer_drivers() {
    if !has_valgrind() {
        return;
    }
    let log = folder("memcheck-newer").join("log");
    let mut program = command("valgrind");
    program.arg("-q").arg(format!("--log-file={}", log.display())).arg(programs::helper());
    let nvml = FakeNvml::new(ALL);
    let mut helper = Helper::of(program, &nvml);
    wait_for("a first sample", || helper.ask_slow()["gpus"][0]["error"].is_null().then_some(()));
    for change in [
        "fabric_version=2",
        "fabric_version=err:13",
        "spares=err:999",
        "gpm=1/nan/!3/1",
        "used_by=9:4200042:3",
        "mig=1\ngpu0.mig0=3/0/60/3/3/40448/9000\ngpu0.mig0.gpm=1/2/3",
    ] {
        nvml.set(&format!("{ALL}\ngpu0.{change}"));
        wait_for(change, || helper.ask_slow()["gpus"][0]["error"].is_null().then_some(()));
    }
    // Its buffers are freed with the GPU.
    nvml.set("gpus=0");
    helper.ask(None);
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}
