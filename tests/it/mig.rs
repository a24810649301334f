//! GPUs in MIG mode: their instances, from the library to everything that shows them.

use serde_json::{Value, json};

use crate::doctor::machine;
use crate::fake_ollama::{Answer, FakeOllama};
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, agent_net, codes, run, verdict};
use crate::helper::Helper;
use crate::newer_drivers::apart;
use crate::nvml::FakeNvml;
use crate::process_names::{own_proc, process};
use crate::readings::stays_ok;

/// A whole GPU reports little in MIG mode, and less to a container.
const PARENT: &str = "gpu0.name=NVIDIA H100 80GB HBM3\ngpu0.mig=1\ngpu0.utilization=err:3\ngpu0.rows=err:3\n\
     gpu0.processes=\ngpu0.memory=81559/11000/479\n";
const IN_A_CONTAINER: &str = "gpu0.memory=err:4\ngpu0.processes=err:4\n";
/// With holes between them.
const TWO: &str = "gpu0.mig1=3/0/60/3/3/40448/9000\ngpu0.mig5=11/0/16/1/1/9984/9/1\n";
/// A slow reading that no test waits for.
const NEVER: (&str, &str) = ("SLOW_SAMPLE_INTERVAL", "1h");
const OFTEN: (&str, &str) = ("SLOW_SAMPLE_INTERVAL", "100ms");

fn uuid(number: usize) -> String {
    format!("MIG-00000000-0000-0000-{number:04}-000000000000")
}

fn row(number: usize, ids: [u32; 2], sms: u32, profile: Option<&str>, memory: [u32; 2]) -> Value {
    json!({"uuid": uuid(number), "profile": profile, "gpu_instance": ids[0], "compute_instance": ids[1],
        "sm_count": sms, "vram_total_mb": memory[0], "vram_used_mb": memory[1], "sm_activity_percent": null,
        "tensor_activity_percent": null, "dram_activity_percent": null})
}

/// A worker with these settings of the library, and both fakes.
fn worker(library: &str, more: &[(&str, &str)]) -> (Worker, FakeNvml, FakeOllama) {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(&format!("{PARENT}{library}")));
    let worker = start(&ollama, &nvml, more);
    (worker, nvml, ollama)
}

fn is_listed(rows: Value) -> impl Fn(&Value) -> bool {
    move |report| is_ok(report) && report["gpus"][0]["mig"] == rows
}

fn lacks(report: &Value, name: &str) -> bool {
    let gpu = &report["gpus"][0];
    gpu[name].is_null() && gpu["unsupported"].as_array().unwrap().contains(&json!(name))
}

/// Its readings end with the mode, long before a slow reading is due.
#[test]
fn a_gpu_whose_mig_mode_begins_has_no_failed_readings() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.mig=0"));
    let worker = start(&ollama, &nvml, &[NEVER]);
    worker.report_when("no MIG", |r| is_ok(r) && r["gpus"][0]["mig_mode"] == false);
    nvml.set(&format!("{PARENT}{IN_A_CONTAINER}{TWO}"));
    let report = worker.report_when("MIG", |r| lacks(r, "utilization_percent"));
    assert_eq!(
        (&report["gpus"][0]["mig_mode"], &report["gpus"][0]["failed"]),
        (&json!(true), &json!({})),
        "{report:#}"
    );
    stays_ok(&worker);
}

#[test]
fn instances_are_in_the_report_its_lines_the_metrics_and_what_programs_print() {
    let (worker, nvml, ollama) = worker(TWO, &[("METRICS_COMPAT", "nvidia_smi"), ("EXPECTED_GPUS", "1")]);
    let rows = json!([
        row(1, [3, 0], 60, Some("3g.40gb"), [40_448, 9000]),
        row(5, [11, 0], 16, Some("1g.10gb+me"), [9984, 9])
    ]);
    let report = worker.report_when("two instances", is_listed(rows.clone()));
    assert_eq!((&report["gpu_count"], &report["gpus"][0]["mig_mode"]), (&json!(1), &json!(true)));
    assert!(lacks(&report, "utilization_percent"), "{report:#}");
    let text = worker.get("/gpu?format=text");
    for line in
        ["mig0_profile='3g.40gb'", "mig1_uuid='MIG-00000000-0000-0000-0005-000000000000'", "mig1_vram_used_mb=9"]
    {
        assert!(text.text().contains(&format!("\ngpu0_{line}\n")), "{line}: {}", text.text());
    }
    let metrics = worker.get("/metrics");
    let zeros = "00000000-0000-0000-0000-000000000000";
    for (prefix, parent) in [("agent_net_gpu_mig", format!("GPU-{zeros}")), ("nvidia_smi_mig", zeros.into())] {
        for series in [
            format!(
                "_info{{uuid=\"{parent}\",mig_uuid=\"{}\",gpu_instance_id=\"11\",compute_instance_id=\"0\",\
                 profile=\"1g.10gb+me\"}} 1",
                uuid(5)
            ),
            format!("_memory_total_bytes{{uuid=\"{parent}\",gpu_instance_id=\"3\"}} {}", 40_448_u64 << 20),
            format!("_memory_used_bytes{{uuid=\"{parent}\",gpu_instance_id=\"11\"}} {}", 9 << 20),
        ] {
            assert!(metrics.text().contains(&format!("{prefix}{series}\n")), "{prefix}{series} in {}", metrics.text());
        }
    }
    // A model gets one instance.
    let gpu = &worker.get("/hardware/stats").json()["gpu_stats"]["0"];
    assert_eq!(
        (&gpu["name"], &gpu["memory_total"]),
        (&json!("NVIDIA H100 80GB HBM3 MIG 3g.40gb"), &json!(40_448_u64 << 20))
    );
    assert_eq!((&gpu["memory_free"], &gpu["utilization_compute"]), (&json!(31_448_u64 << 20), &Value::Null));
    let url = format!("http://{}", worker.addr);
    let (_, out, err) = run(agent_net().args(["check", "--url", &url]));
    let line = format!("  MIG 1g.10gb+me {}: 9 of 9984 MiB\n", uuid(5));
    assert!(out.contains(&line) && out.contains("MiB\n  MIG 3g.40gb"), "{out}{err}");
    let mut doctor = agent_net();
    doctor.env("OLLAMA_URL", ollama.url()).envs(nvml.settings()).arg("doctor");
    let (_, out, _) = run(&mut doctor);
    assert!(out.contains(&format!("0 MIG 3g.40gb {}: 9000 of 40448 MiB in use", uuid(1))), "{out}");
}

#[test]
fn a_container_that_was_given_one_instance_sees_it_and_its_processes() {
    let only = "gpu0.mig0=err:4\ngpu0.mig1=3/0/60/3/3/40448/9000\ngpu0.mig1.processes=101:7000,102:900\n";
    let (worker, _nvml, _ollama) = worker(&format!("{IN_A_CONTAINER}gpu0.temperature=err:3\n{only}"), &[OFTEN]);
    // Without the memory of the whole GPU the gigabytes of the profile are unknown.
    let rows = json!([row(1, [3, 0], 60, None, [40_448, 9000])]);
    let report = worker.report_when("the instance", is_listed(rows));
    assert!(lacks(&report, "vram_total_mb") && lacks(&report, "vram_used_mb"), "{report:#}");
    let rows = |pid: u32, mib: u32| json!({"pid": pid, "name": null, "vram_mb": mib, "mig_uuid": uuid(1), "utilization_percent": null});
    assert_eq!(report["gpus"][0]["processes"], json!([rows(101, 7000), rows(102, 900)]));
    stays_ok(&worker);
}

#[test]
fn instances_of_others_are_unsupported_and_not_missing() {
    let (worker, _nvml, _ollama) = worker("gpu0.mig0=err:4\ngpu0.mig3=err:4\n", &[OFTEN]);
    let report = worker.report_when("verdict ok", |r| is_ok(r) && r["gpus"][0]["mig_mode"] == true);
    assert!(lacks(&report, "mig"), "{report:#}");
    stays_ok(&worker);
}

#[test]
fn seven_instances_of_one_gpu_are_one_gpu() {
    let all: String = (0..7).map(|i| format!("gpu0.mig{i}={}/0/16/1/1/9984/1500\n", i + 7)).collect();
    let (worker, _nvml, _ollama) = worker(&all, &[OFTEN]);
    let rows: Vec<Value> = (0..7).map(|i| row(i, [i as u32 + 7, 0], 16, Some("1g.10gb"), [9984, 1500])).collect();
    let report = worker.report_when("seven instances", is_listed(json!(rows)));
    assert_eq!(report["gpu_count"], 1);
    stays_ok(&worker);
}

#[test]
fn memory_is_read_at_each_sample_and_a_list_that_changed_at_once() {
    let (worker, nvml, _ollama) = worker(TWO, &[NEVER]);
    let rows = |used: u32| {
        let large = row(1, [3, 0], 60, Some("3g.40gb"), [40_448, used]);
        json!([large, row(5, [11, 0], 16, Some("1g.10gb+me"), [9984, 9])])
    };
    worker.report_when("two instances", is_listed(rows(9000)));
    nvml.set(&format!("{PARENT}{}", TWO.replace("/9000", "/11091")));
    worker.report_when("more memory", is_listed(rows(11_091)));
    // Destroyed: its handle is invalid, and its processes are gone.
    let one = "gpu0.mig1=3/0/60/3/3/40448/12000\ngpu0.processes=101:11000:3/0,102:1:11/0\n";
    nvml.set(&format!("{PARENT}{one}"));
    let listed = json!([row(1, [3, 0], 60, Some("3g.40gb"), [40_448, 12_000])]);
    let report = worker.report_when("one instance", is_listed(listed));
    let process = |pid, mib, on: Option<String>| json!({"pid": pid, "name": null, "vram_mb": mib, "mig_uuid": on, "utilization_percent": null});
    let processes = json!([process(101, 11_000, Some(uuid(1))), process(102, 1, None)]);
    assert_eq!((&report["gpus"][0]["processes"], verdict(&report)), (&processes, "ok"));
    // Another one got its number, and its handle.
    nvml.set(&format!("{PARENT}gpu0.mig1=5/0/32/2/2/20096/7000\ngpu0.mig1.uuid=MIG-new\n"));
    let mut other = row(1, [5, 0], 32, Some("2g.20gb"), [20_096, 7000]);
    other["uuid"] = json!("MIG-new");
    worker.report_when("the other instance", is_listed(json!([other])));
    // MIG is turned off.
    nvml.set("gpu0.mig=0");
    let report = worker.report_when("no MIG", |r| is_ok(r) && r["gpus"][0]["mig_mode"] == false);
    assert!(lacks(&report, "mig"), "{report:#}");
}

#[test]
fn a_driver_that_lacks_calls_is_read_as_far_as_it_goes() {
    let bare = "gpu0.mig0=3/0/60/3/3/40448/9000\ngpu0.mig0.attributes=err:13\n";
    let (worker, nvml, _ollama) = worker(bare, &[OFTEN]);
    let mut rows = json!([row(0, [3, 0], 60, None, [40_448, 9000])]);
    rows[0]["sm_count"] = Value::Null;
    worker.report_when("an instance without attributes", is_listed(rows.clone()));
    nvml.set(&format!("{PARENT}{bare}gpu0.mig0.name=NVIDIA H100 80GB HBM3 MIG 3g.40gb\ngpu0.mig0.memory_v2=err:13\n"));
    rows[0]["profile"] = json!("3g.40gb");
    worker.report_when("its name has the profile", is_listed(rows.clone()));
    nvml.set(&format!("{PARENT}{bare}gpu0.mig0.memory=err:3\ngpu0.mig0.gpu_instance=err:13\ngpu0.mig0.uuid=err:3"));
    for name in ["vram_total_mb", "vram_used_mb", "gpu_instance", "uuid", "profile"] {
        rows[0][name] = Value::Null;
    }
    let report = worker.report_when("an instance of which little is known", is_listed(rows));
    assert_eq!(report["gpus"][0]["failed"], json!({}));
    stays_ok(&worker);
}

#[test]
fn a_gpu_without_an_instance_and_a_list_that_fails_have_reasons() {
    // Wherever this runs: what follows from it on a host is in the unit tests.
    let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let (worker, nvml, _ollama) = worker(TWO, &[OFTEN, pod]);
    worker.report_when("verdict ok", is_ok);
    nvml.set(PARENT);
    let report = worker.report_when("MIG_NO_INSTANCE", has("MIG_NO_INSTANCE"));
    assert_eq!((verdict(&report), &report["gpus"][0]["mig"]), ("degraded", &json!([])));
    assert_eq!(worker.get("/hardware/stats").json()["gpu_stats"]["0"]["memory_total"], 0);
    nvml.set(&format!("{PARENT}{TWO}"));
    worker.report_when("verdict ok", is_ok);
    nvml.set(&format!("{PARENT}{TWO}gpu0.mig3=err:999\ngpu0.power=err:27\n"));
    let report = worker.report_when("FIELD_READ_ERROR", has("FIELD_READ_ERROR"));
    // Other readings of the whole GPU are not a fault in MIG mode.
    let failed = report["gpus"][0]["failed"].as_object().unwrap();
    assert!(failed.len() == 1 && failed.contains_key("mig") && lacks(&report, "power_w"), "{report:#}");
    nvml.set(&format!("{PARENT}{TWO}"));
    worker.report_when("verdict ok", is_ok);
}

#[test]
fn ollama_is_compared_with_the_instances_that_it_runs_on() {
    let root = machine("mig-ollama");
    own_proc(&root, "7");
    process(&root, 101, b"ollama");
    process(&root, 102, b"python3");
    let library = "gpu0.mig0=1/0/60/3/3/40448/1000\ngpu0.mig1=2/0/60/3/3/40448/39000\n\
        gpu0.processes=101:900:1/0,102:38000:2/0\n";
    let (worker, nvml, ollama) = worker(library, &[OFTEN, ("HOST_ROOT", root.to_str().unwrap())]);
    let report = worker.report_when("MODEL_VRAM_MISMATCH", has("MODEL_VRAM_MISMATCH"));
    let reason = &report["health"]["reasons"][0];
    assert_eq!((codes(&report), &reason["value"]), (vec!["MODEL_VRAM_MISMATCH"], &json!(f64::from(1000 << 20))));
    nvml.set(&format!("{PARENT}{}", library.replace("/1000", "/7000")));
    worker.report_when("verdict ok", is_ok);
    // Another program on another instance does not keep a model off its own.
    ollama.set("/api/ps", Answer::Json(r#"{"models":[{"name":"m","size":9,"size_vram":0}]}"#.into()));
    let report = worker.report_when("MODEL_ON_CPU", has("MODEL_ON_CPU"));
    assert!(report["health"]["reasons"][0]["action"].as_str().unwrap().starts_with("Restart Ollama"), "{report:#}");
    nvml.set(&format!("{PARENT}{}", library.replace("102:38000:2/0", "102:38000:1/0")));
    worker.report_when("python3 is in the way", |r| {
        let action = r["health"]["reasons"][0]["action"].as_str();
        action.is_some_and(|action| action.starts_with("Stop python3 (pid 102)"))
    });
}

/// SM, tensor and DRAM activity of each instance.
fn busy(sample: &Value) -> Vec<[Option<f64>; 3]> {
    let names = ["sm_activity_percent", "tensor_activity_percent", "dram_activity_percent"];
    let all = sample["gpus"][0]["mig"].as_array().unwrap().iter();
    all.map(|one| names.map(|name| one[name].as_f64())).collect()
}

#[test]
fn each_gpu_instance_has_its_own_activity_since_the_last_sample() {
    let gpm = "gpu0.gpm=90/80/70/60/50\ngpu0.mig0.gpm=37.25/12/80\ngpu0.mig2.gpm=1/!3/nan\n";
    // Two compute instances of one GPU instance, and another GPU instance.
    let three = "gpu0.mig0=3/0/60/3/1/40448/9000\ngpu0.mig1=3/1/60/3/2/40448/9000\ngpu0.mig2=11/0/16/1/1/9984/9\n";
    let set = |more: &str| format!("{PARENT}{three}{gpm}{more}");
    let nvml = FakeNvml::new(&set(""));
    let mut helper = Helper::start(&nvml);
    let (shared, own, none) = ([Some(37.25), Some(12.0), Some(80.0)], [Some(1.0), None, None], [None; 3]);
    assert_eq!(busy(&helper.ask_slow()), [none; 3]);
    apart();
    assert_eq!(busy(&helper.ask(None)), [shared, shared, own]);
    // A probe's samples repeat the values, and a new list keeps them.
    nvml.set(&set("gpu0.mig0.gpm_sample=err:3\n"));
    assert_eq!(busy(&helper.ask(Some("mark"))), [shared, shared, own]);
    nvml.set(&set(""));
    apart();
    let sample = helper.ask_slow();
    assert_eq!(busy(&sample), [shared, shared, own]);
    // What an instance lacks is not a fault of the GPU.
    let gpu = &sample["gpus"][0];
    assert_eq!(
        (&gpu["error"], &gpu["gaps"]["failed"], &gpu["slow_gaps"]["failed"]),
        (&Value::Null, &json!({}), &json!({}))
    );
    // The GPU instance got the id of one that was destroyed.
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\n"));
    apart();
    assert_eq!(busy(&helper.ask_slow()), [shared, shared, none]);
    apart();
    assert_eq!(busy(&helper.ask(None)), [shared, shared, own]);
    // All are gone, and the same return.
    nvml.set(PARENT);
    assert_eq!(busy(&helper.ask(None)), [none; 0]);
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\n"));
    apart();
    assert_eq!(busy(&helper.ask_slow()), [none; 3]);
    apart();
    assert_eq!(busy(&helper.ask(None)), [shared, shared, own]);
    // One of another size has the id and the UUID of one that was destroyed.
    let smaller = "gpu0.mig2=11/0/16/1/1/4864/9\ngpu0.mig2.uuid=MIG-new\n";
    nvml.set(&set(smaller));
    apart();
    assert_eq!(busy(&helper.ask(None)), [none; 3]);
    apart();
    assert_eq!(busy(&helper.ask(None)), [shared, shared, own]);
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\n"));
    helper.ask(None);
    // A GPU that did not answer begins again.
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\ngpu0.handle=15\n"));
    helper.ask(None);
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\n"));
    apart();
    assert_eq!(busy(&helper.ask(None)), [none; 3]);
    // A user who may not have it is not asked again.
    nvml.set(&set("gpu0.mig2.uuid=MIG-new\ngpu0.mig0.gpm_sample=err:4\n"));
    apart();
    assert_eq!(busy(&helper.ask(None)), [none, none, own]);
}

#[test]
fn the_activity_of_instances_is_in_the_report_and_once_for_each_gpu_instance_in_the_metrics() {
    let library = "gpu0.gpm=90/80/70\ngpu0.mig0=3/0/60/3/1/40448/9000\ngpu0.mig1=3/1/60/3/2/40448/9000\n\
        gpu0.mig0.gpm=37.25/12/80\n";
    let (worker, _nvml, _ollama) = worker(library, &[]);
    let known = |report: &Value| report["gpus"][0]["mig"][1]["sm_activity_percent"] == 37.3;
    let report = worker.report_when("activity", |report| is_ok(report) && known(report));
    assert_eq!(report["gpus"][0]["mig"][0]["dram_activity_percent"], 80.0);
    let metrics = worker.get("/metrics");
    for (name, value) in [("sm", "0.3725"), ("tensor", "0.12"), ("dram", "0.8")] {
        let series = format!(
            "agent_net_gpu_mig_{name}_activity_ratio{{uuid=\"GPU-00000000-0000-0000-0000-000000000000\",gpu_instance_id=\"3\"}} {value}"
        );
        assert_eq!(metrics.text().matches(&format!("{series}\n")).count(), 1, "{series} in {}", metrics.text());
    }
}
