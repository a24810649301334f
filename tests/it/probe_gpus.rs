//! Probes beside the GPUs: what they did meanwhile, when they are left to others, and models that fell to the CPU.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, codes, wait_for};
use crate::model_store::metric;
use crate::nvml::FakeNvml;
use crate::ollama_client::Call;
use crate::probes::{MODEL, ends, probe_of, probes, sent};
use crate::rules::reason;
use crate::scheduler::Scheduler;
use crate::scheduler::model::Model;

const IDLE: &str = "gpu0.utilization=3/1\ngpu0.samples=3\ngpu0.used_by=err:6\ngpu0.processes=4200042:6321";
const HEALED: &str = "agent_net_model_heals_total{model=\"lab:1\",kind=\"reload\",result=\"ok\"}";
const NOT_HEALED: &str = "agent_net_model_heals_total{model=\"lab:1\",kind=\"reload\",result=\"failed\"}";

/// `scale`: of Ollama's times.
fn start(scale: u32, nvml: &FakeNvml, change: impl FnOnce(&mut Model)) -> (FakeOllama, Arc<Scheduler>, Worker) {
    let mut model = Model::generating(MODEL);
    change(&mut model);
    let mut scheduler = Scheduler::new(3, vec![model]);
    scheduler.scale = scale;
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let [library, settings] = nvml.settings();
    let worker = probes(&fake, &[library, settings, ("EXPECTED_GPUS", "1")]);
    (fake, scheduler, worker)
}

/// Unloads so far.
fn unloads(fake: &FakeOllama) -> usize {
    fake.bodies("/api/generate").iter().filter(|body| body.contains("\"keep_alive\":0")).count()
}

fn report_with(worker: &Worker, code: &str) -> Value {
    worker.report_when(code, |report| codes(report).contains(&code))
}

#[test]
fn a_gpu_that_worked_during_a_probe_is_the_proof() {
    // There is a sample each 100 ms: a shorter probe waits for one.
    let nvml = FakeNvml::new("gpu0.utilization=3/1\ngpu0.samples=97");
    let (_fake, _scheduler, worker) = start(50, &nvml, |_| {});
    assert_eq!(ends(&worker, "ok")["gpu_utilization_percent"], 97);
}

/// Ollama lists it on the GPU, and it computes on the CPU.
#[test]
fn gpus_that_do_not_work_during_probes_are_a_reason_with_numbers() {
    let nvml = FakeNvml::new(IDLE);
    // At its own pace: the window of a GPU's samples is not hurried. A tenth of the speed is 0.64 s for 16 tokens.
    let (fake, _scheduler, worker) = start(1, &nvml, |model| {
        (model.pretends, model.write) = (true, Duration::from_millis(4));
    });
    let report = report_with(&worker, "MODEL_ON_CPU");
    let message = reason(&report, "MODEL_ON_CPU").unwrap()["message"].as_str().unwrap().to_owned();
    for part in [
        MODEL,
        "no GPU worked during two probes: GPU 0 at most 3 % in ",
        " W",
        ". VRAM: process 4200042 holds 6321 MiB",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let probes = &report["models"][0];
    assert_eq!((&probes["on_gpu_percent"], &probe_of(&report)["gpu_utilization_percent"]), (&json!(100), &json!(3)));
    assert_eq!(worker.get("/ready?model=lab").status, 503);
    // No GPU here has worked for it: Ollama may run on another machine, and nothing is unloaded there.
    let lists = fake.requests("/api/ps") + 60;
    wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
    assert_eq!(unloads(&fake), 0);
    // A GPU that works takes the reason back.
    nvml.set("gpu0.utilization=3/1\ngpu0.samples=97");
    worker.report_when("its end", |report| !codes(report).contains(&"MODEL_ON_CPU"));
    // When none does any more, the model fell to the CPU.
    nvml.set(IDLE);
    wait_for("the load", || (metric(&worker, HEALED) == Some(1.0)).then_some(()));
    // That did not help. It is not repeated before a GPU has worked.
    report_with(&worker, "MODEL_ON_CPU");
    let lists = fake.requests("/api/ps") + 60;
    wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
    assert_eq!(unloads(&fake), 1);
}

#[test]
fn no_probe_is_sent_while_a_gpu_is_in_use() {
    let nvml = FakeNvml::new("gpu0.utilization=87/50");
    let (_fake, scheduler, worker) = start(50, &nvml, |_| {});
    assert_eq!(ends(&worker, "skipped")["why"], "GPU 0 is in use: 87 %");
    assert!(sent(&scheduler).is_empty());
    nvml.set(IDLE);
    ends(&worker, "ok");
}

#[test]
fn a_model_that_fell_to_the_cpu_is_loaded_again() {
    let nvml = FakeNvml::new(IDLE);
    let (fake, scheduler, worker) = start(50, &nvml, |_| {});
    ends(&worker, "ok");
    scheduler.fall_to_cpu(MODEL);
    wait_for("the load", || (metric(&worker, HEALED) == Some(1.0)).then_some(()));
    worker.report_when("the GPU", |report| report["models"][0]["on_gpu_percent"] == 100);
    assert_eq!(unloads(&fake), 1);
    let log = worker.log();
    assert!(log.contains("it runs on the CPU although a GPU has room for it"), "{log}");
    // Once an hour, which is 72 s here.
    scheduler.fall_to_cpu(MODEL);
    report_with(&worker, "MODEL_ON_CPU");
    let lists = fake.requests("/api/ps") + 50;
    wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
    assert_eq!(unloads(&fake), 1);
}

#[test]
fn a_load_that_does_not_help_is_counted_and_not_repeated() {
    let nvml = FakeNvml::new(IDLE);
    let (fake, _scheduler, worker) = start(50, &nvml, |model| model.stays_on_cpu = true);
    wait_for("the try", || (metric(&worker, NOT_HEALED) == Some(1.0)).then_some(()));
    assert!(worker.log().contains("Ollama loaded it on the CPU again"), "{}", worker.log());
    let lists = fake.requests("/api/ps") + 50;
    wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
    assert_eq!(unloads(&fake), 1);
}

#[test]
fn nothing_is_unloaded_without_room_or_a_healthy_gpu() {
    // 900 MiB free of 1 GiB, and a GPU that the driver wants to reset.
    for gpus in [&format!("{IDLE}\ngpu0.memory=1024/100/24"), &format!("{IDLE}\ngpu0.recovery=1"), "gpus=0"] {
        let nvml = FakeNvml::new(gpus);
        let (fake, _scheduler, worker) = start(50, &nvml, |model| {
            (model.stays_on_cpu, model.size) = (true, 2 << 30);
        });
        if gpus.contains("recovery") {
            report_with(&worker, "RESET_REQUIRED");
        }
        let lists = fake.requests("/api/ps") + 60;
        wait_for("many looks", || (fake.requests("/api/ps") >= lists).then_some(()));
        assert_eq!(unloads(&fake), 0, "{gpus}");
    }
}

#[test]
fn nothing_is_unloaded_under_a_client() {
    let nvml = FakeNvml::new(IDLE);
    let scheduler = Scheduler::new(3, vec![Model::generating(MODEL)]);
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let [library, settings] = nvml.settings();
    let worker = probes(&fake, &[library, settings, ("EXPECTED_GPUS", "1"), ("AGENT_NET_FAULT", "hurry:10")]);
    ends(&worker, "ok");
    let ask = || {
        let body = json!({"model": MODEL, "prompt": "tell me", "stream": false, "options": {"num_ctx": 4096}});
        assert_eq!(Call::send(fake.addr(), "/api/generate", Some(&body)).reply().status, 200);
    };
    ask();
    scheduler.fall_to_cpu(MODEL);
    report_with(&worker, "MODEL_ON_CPU");
    // The keeper sees a use by the second; 180 s without one are 18 s here.
    for _ in 0..8 {
        ask();
        thread::sleep(Duration::from_millis(700));
        assert_eq!(unloads(&fake), 0);
    }
    wait_for("the load", || (metric(&worker, HEALED) == Some(1.0)).then_some(()));
}
