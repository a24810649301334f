//! What the GPUs did during a probe, by the helper itself: its protocol on stdin, the fake library below it.

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus;
use crate::harness::{command, folder, wait_for};
use crate::helper::Helper;
use crate::model_store::metric;
use crate::nvml::FakeNvml;
use crate::probes::{MODEL, probe_of, probes};
use crate::readings::has_valgrind;
use crate::scheduler::Scheduler;
use crate::scheduler::model::Model;

const BEFORE: &str = "gpu0.samples=1000:90,2000:3\ngpu0.used_by=1500:4242:80\ngpu0.energy=1000000";

#[test]
fn what_came_since_the_mark_is_reported() {
    let nvml = FakeNvml::new("");
    let mut helper = Helper::start(&nvml);
    let after = "gpu0.samples=1000:90,2000:3,2200:12,2400:7\ngpu0.used_by=1500:4242:80,2300:4242:9,2300:7:11\n\
        gpu0.energy=1031000\ngpu0.power=90000";
    let sample = helper.activity(&nvml, BEFORE, after);
    let mut activity = sample["gpus"][0]["activity"].clone();
    assert!(activity["window_us"].take().as_u64().unwrap() > 0);
    let expect = json!({
        "window_us": null, "utilization_percent": 12, "samples": 2, "sampled_us": 400, "process_percent": 11,
        "energy_mj": 31_000, "power_before_mw": 63_200
    });
    assert_eq!(activity, expect);
    // The same mark again, and an ordinary sample in between.
    assert_eq!(helper.ask(None)["gpus"][0]["activity"], Value::Null);
    assert_eq!(helper.ask(Some("since_mark"))["gpus"][0]["activity"]["samples"], 2);
    // By a driver's clock.
    let sample = helper.activity(&nvml, "gpu0.samples=3", "gpu0.samples=3");
    let first = sample["gpus"][0]["activity"]["samples"].as_u64();
    wait_for("a sample of the driver", || {
        let sample = helper.ask(Some("since_mark"));
        let activity = &sample["gpus"][0]["activity"];
        let samples = activity["samples"].as_u64();
        (samples > first).then(|| assert_eq!(activity["utilization_percent"], 3))
    });
}

#[test]
fn ordinary_samples_and_those_without_a_mark_have_no_activity() {
    // It would hang. Without processes nothing is asked about them.
    let nvml = FakeNvml::new("gpu0.samples=hang\ngpu0.used_by=hang\ngpu0.processes=");
    let mut helper = Helper::start(&nvml);
    for ask in [None, Some("since_mark"), None] {
        let sample = helper.ask(ask);
        assert_eq!((&sample["gpus"][0]["activity"], &sample["gpus"][0]["error"]), (&Value::Null, &Value::Null));
        assert_eq!(sample["call_us"].get("utilization_samples"), None, "{sample:#}");
    }
    nvml.set("");
    let sample = helper.ask(Some("mark"));
    assert!(sample["call_us"].get("utilization_samples").is_some(), "{sample:#}");
    assert_eq!(sample["gpus"][0]["activity"], Value::Null);
}

#[test]
fn what_the_driver_lacks_or_cannot_mean_is_unknown() {
    let nvml = FakeNvml::new("");
    let mut helper = Helper::start(&nvml);
    let mut check = |before: &str, after: &str, unknown: &[&str]| {
        let sample = helper.activity(&nvml, before, after);
        let gpu = &sample["gpus"][0];
        assert_eq!(gpu["error"], Value::Null, "{before} {after}: {gpu:#}");
        let names = ["utilization_percent", "sampled_us", "process_percent", "energy_mj"];
        let missing: Vec<&str> = names.into_iter().filter(|name| gpu["activity"][name].is_null()).collect();
        assert_eq!(missing, unknown, "{before} {after}: {gpu:#}");
        assert!(gpu["activity"]["window_us"].is_u64(), "{gpu:#}");
        assert_eq!(gpu["activity"]["samples"] == 0, unknown.contains(&"utilization_percent"), "{gpu:#}");
    };
    let good = "gpu0.samples=2000:3,2400:7\ngpu0.used_by=2300:7:11\ngpu0.energy=1031000";
    let changed = |text: &str, change: &str| {
        let name = change.split_once('=').unwrap().0;
        let kept = text.lines().filter(|line| !line.starts_with(name));
        kept.chain([change]).collect::<Vec<_>>().join("\n")
    };
    let with = |change: &str| changed(good, change);
    const SAMPLES: &[&str] = &["utilization_percent", "sampled_us"];
    check(BEFORE, good, &[]);
    // Not supported, no such function, too small, lost, unknown error; at the mark or after it.
    for code in [3, 13, 7, 15, 999] {
        for (name, unknown) in [("samples", SAMPLES), ("used_by", &["process_percent"]), ("energy", &["energy_mj"])] {
            // A counter that reports a lost GPU is a health reading as well.
            if name != "energy" || code == 3 {
                let failing = format!("gpu0.{name}=err:{code}");
                check(BEFORE, &with(&failing), unknown);
                check(&changed(BEFORE, &failing), good, unknown);
            }
        }
    }
    check(BEFORE, &with("gpu0.samples="), SAMPLES);
    check("gpu0.samples=\ngpu0.energy=1", good, &["sampled_us"]);
    check(BEFORE, &with("gpu0.samples=2400:3,2600:250"), SAMPLES);
    check(BEFORE, &with("gpu0.samples=claims:4000000000"), SAMPLES);
    check(BEFORE, &with("gpu0.samples=claims:3"), SAMPLES);
    check(BEFORE, &format!("{good}\ngpu0.sample_type=0"), SAMPLES);
    check(BEFORE, &with("gpu0.used_by=2300:7:4294967295"), &["process_percent"]);
    check(BEFORE, &with("gpu0.used_by=claims:4000000000"), &["process_percent"]);
    check(BEFORE, &with("gpu0.used_by=err:6"), &["process_percent"]);
    // Backwards, not at all, and more than any board uses.
    for energy in ["999999", "1000000", "18446744073709551615"] {
        check(BEFORE, &with(&format!("gpu0.energy={energy}")), &["energy_mj"]);
    }
}

#[test]
fn a_driver_that_hangs_in_these_calls_keeps_only_its_own_gpu() {
    let nvml = FakeNvml::new("gpus=2");
    let mut helper = Helper::start(&nvml);
    let calm = "gpus=2\ngpu*.samples=2000:3";
    let sample = helper.activity(&nvml, calm, "gpus=2\ngpu0.samples=2400:7\ngpu1.samples=hang");
    assert_eq!(sample["gpus"][0]["activity"]["utilization_percent"], 7);
    let other = &sample["gpus"][1];
    assert_eq!((&other["error"]["kind"], &other["activity"]), (&json!("slow"), &Value::Null), "{other:#}");
    let sample = helper.activity(&nvml, calm, "gpus=2\ngpu*.samples=2400:7");
    assert_eq!(sample["gpus"][0]["activity"]["utilization_percent"], 7);
    assert_eq!(sample["gpus"][1]["activity"], Value::Null);
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_ask() {
    let nvml = FakeNvml::new("");
    let mut helper = Helper::start(&nvml);
    // Longer than a GPU has to answer, with time left for the next ask.
    let late = helper.activity(&nvml, BEFORE, "gpu0.samples=sleep:10000");
    assert_eq!(late["gpus"][0]["error"]["kind"], "slow");
    nvml.set("gpu0.samples=2400:7");
    // This mark is not set, because the GPU is still being read.
    assert_eq!(helper.ask(Some("mark"))["gpus"][0]["error"]["kind"], "slow");
    let answered = wait_for("the late answer", || {
        let sample = helper.ask(Some("since_mark"));
        sample["gpus"][0]["error"].is_null().then_some(sample)
    });
    assert_eq!(answered["gpus"][0]["activity"], Value::Null, "{answered:#}");
    assert_eq!(helper.ask(Some("since_mark"))["gpus"][0]["activity"], Value::Null);
    let sample = helper.activity(&nvml, BEFORE, "gpu0.samples=2400:7");
    assert_eq!(sample["gpus"][0]["activity"]["utilization_percent"], 7);
}

#[test]
fn memcheck_finds_nothing_in_these_calls() {
    if !has_valgrind() {
        return;
    }
    let log = folder("memcheck-activity").join("log");
    let mut program = command("valgrind");
    program.arg("-q").arg(format!("--log-file={}", log.display())).arg(env!("CARGO_BIN_EXE_agent-net-nvml"));
    let nvml = FakeNvml::new("");
    let mut helper = Helper::of(program, &nvml);
    // A GPU may be slow below valgrind.
    wait_for("a first sample", || helper.ask(None)["gpus"][0]["error"].is_null().then_some(()));
    for change in
        ["samples=1000:90,2000:3", "samples=claims:3", "samples=2000:3\ngpu0.sample_type=9", "used_by=claims:9"]
    {
        wait_for(change, || {
            let sample = helper.activity(&nvml, BEFORE, &format!("gpu0.{change}\ngpu0.used_by=2300:7:11,2400:8:1"));
            sample["gpus"][0]["activity"].is_object().then_some(())
        });
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
}

/// It would make the GPU slow at each probe.
#[test]
fn a_driver_that_hangs_in_these_calls_is_not_asked_again() {
    let mut scheduler = Scheduler::new(3, vec![Model::generating(MODEL)]);
    scheduler.scale = 50;
    let (fake, _scheduler) = FakeOllama::by(scheduler);
    let nvml = FakeNvml::new("gpu0.samples=hang\ngpu0.processes=");
    let [library, settings] = nvml.settings();
    let worker = probes(&fake, &[library, settings, ("EXPECTED_GPUS", "1")]);
    let reinits = || metric(&worker, "agent_net_nvml_reinits_total");
    // It is slow once; on a busy machine more than one new helper may be tried until it answers.
    wait_for("another helper", || reinits().filter(|count| *count >= 1.0));
    worker.report_when("verdict ok", |report| gpus::is_ok(report) && report["gpus"][0]["temperature_c"].is_u64());
    let before = reinits();
    let probed = || metric(&worker, &format!("agent_net_model_probes_total{{model=\"{MODEL}\",result=\"ok\"}}"));
    let enough = probed().unwrap_or(0.0) + 5.0;
    wait_for("more probes", || probed().filter(|count| *count >= enough));
    let report = worker.report_when("verdict ok", gpus::is_ok);
    assert_eq!(probe_of(&report)["gpu_utilization_percent"], Value::Null);
    assert_eq!((reinits(), worker.log().matches("it is not asked what its GPUs did").count()), (before, 1));
}
