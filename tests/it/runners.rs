//! The worker as a live runner: lost in every possible way, and back. Time runs a hundred times faster.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::draining::half_a_job;
use crate::fake_orchestrator::{Behavior, FakeOrchestrator, Request};
use crate::fake_runners::Runners;
use crate::harness::{agent_net, folder, run, wait_for};
use crate::http::Connection;
use crate::jobs::job;
use crate::nvml::FakeNvml;
use crate::visibility;

const ID: &str = "agent-net-nyc";
const BEAT: &str = "/runners/heartbeat";
const LEAVE: &str = "/runners/agent-net-nyc/unregister";

/// A worker with a GPU and an Ollama at an orchestrator with a Live Runner registry.
struct Scene {
    inner: visibility::Scene,
    orchestrator: FakeOrchestrator,
}

pub fn with_runners() -> FakeOrchestrator {
    let orchestrator = FakeOrchestrator::new(Behavior::NoByoc);
    orchestrator.runners(|runners| *runners = Some(Runners::new("orch-s3cret")));
    orchestrator
}

impl Scene {
    fn new(more: &[(&str, &str)]) -> Self {
        Self::at(with_runners(), more)
    }

    fn at(orchestrator: FakeOrchestrator, more: &[(&str, &str)]) -> Self {
        let inner = visibility::Scene::new(&[&orchestrator], &[&[("ORCH_PROTOCOL", "live-runner")], more].concat());
        Self { inner, orchestrator }
    }

    fn alive(&self) -> Option<Value> {
        let port = format!(":{}", self.inner.worker.addr.port());
        let mut found = None;
        self.orchestrator.runners(|runners| found = runners.as_ref().and_then(|r| r.alive(ID)));
        found.filter(|body| body["runner_url"].as_str().unwrap().ends_with(&port))
    }

    #[track_caller]
    fn is_ready(&self) -> Value {
        wait_for("a live runner that is ready", || self.alive().filter(|body| body["status"] == "ready"))
    }

    fn beats(&self) -> Vec<Request> {
        self.orchestrator.requests(BEAT)
    }

    /// The row of this protocol.
    fn row(&self) -> Value {
        let report = self.inner.worker.get("/gpu").json();
        // Before the first sample there is no report.
        let mut rows = report["registrations"].as_array().into_iter().flatten();
        rows.find(|row| row["protocol"] == "live-runner").cloned().unwrap_or_default()
    }

    #[track_caller]
    fn state(&self, state: &str) {
        wait_for(state, || (self.row()["state"] == state).then_some(()));
    }
}

#[test]
fn each_beat_says_everything() {
    let scene = Scene::new(&[("RUNNER_PRICE", "0.0005usd/fixed"), ("CAPABILITY_CAPACITY", "4")]);
    scene.inner.worker.report_when("a GPU", |r| r["gpu_count"] == 1 && r["ollama"]["reachable"] == true);
    let beats = scene.beats().len();
    wait_for("more beats", || (scene.beats().len() >= beats + 5).then_some(()));
    let all = scene.beats();
    assert_eq!(all[0].header("authorization"), Some("orch-s3cret"));
    assert!(all[1..].iter().all(|r| r.header("authorization") == Some("heartbeat-s3cret-1")));
    for beat in &all[beats + 1..] {
        let mut body = beat.json();
        let metadata: Value = serde_json::from_str(body["metadata"].as_str().unwrap()).unwrap();
        assert_eq!(metadata, json!({"v": 1, "verdict": "ok", "gpus": 1, "driver": "550.54.14", "ollama": "0.32.4"}));
        body["metadata"] = Value::Null;
        let expect = json!({
            "runner_id": ID, "runner_url": body["runner_url"], "app": "agent-net/gpu-check", "mode": "single-shot",
            "capacity": 4, "status": "ready", "version": env!("CARGO_PKG_VERSION"), "metadata": null,
            "gpu": {"id": "GPU-00000000-0000-0000-0000-000000000000", "name": "Fake RTX 0", "vram_mb": 24576},
            "price_info": {"price": "0.0005", "currency": "usd", "unit": "fixed"}
        });
        assert_eq!(body, expect);
    }
    scene.state("registered");
    // Jobs of the registry's proxy come to the job routes.
    assert_eq!(scene.row()["capability"], ID);
    let log = scene.inner.worker.log();
    assert_eq!(log.matches("registered live runner").count(), 1, "{log}");
    assert!(!log.contains("s3cret") && !scene.inner.worker.get("/metrics").text().contains("s3cret"), "{log}");
}

#[test]
fn it_registers_again_whatever_makes_the_registry_forget_it() {
    let mut scene = Scene::new(&[]);
    scene.is_ready();
    // A restart.
    scene.orchestrator.runners(|runners| runners.as_mut().unwrap().forget());
    scene.is_ready();
    // Away for longer than it keeps a silent runner.
    scene.orchestrator.stop();
    scene.state("failing");
    scene.orchestrator.start();
    scene.is_ready();
    scene.state("registered");
    // A restart with another secret, which the operator fixes at the orchestrator.
    scene.orchestrator.runners(|runners| {
        let runners = runners.as_mut().unwrap();
        runners.forget();
        runners.secret = "another".into();
    });
    wait_for("a refusal", || scene.row()["failures"]["wrong_secret"].as_u64());
    scene.orchestrator.runners(|runners| runners.as_mut().unwrap().secret = "orch-s3cret".into());
    scene.is_ready();
    // Its registry is switched off for a while.
    scene.orchestrator.runners(|runners| runners.as_mut().unwrap().enabled = false);
    wait_for("no registry", || scene.row()["failures"]["absent"].as_u64());
    scene.orchestrator.runners(|runners| runners.as_mut().unwrap().enabled = true);
    scene.is_ready();
    assert_eq!(scene.inner.worker.report()["status"], "success");
}

#[test]
fn a_worker_that_was_killed_gets_its_id_back() {
    let scene = Scene::new(&[]);
    scene.is_ready();
    let Scene { orchestrator, inner } = scene;
    let worker = inner.worker;
    // The next life begins before this one is forgotten.
    orchestrator.runners(|runners| runners.as_mut().unwrap().time_scale = 10);
    worker.signal(Signal::KILL);
    worker.wait();
    let scene = Scene::at(orchestrator, &[]);
    // Its earlier life is registered until it has been silent for long enough.
    wait_for("the id to be held", || scene.row()["failures"]["held"].as_u64());
    scene.is_ready();
    scene.state("registered");
}

#[test]
fn another_worker_with_the_same_id_is_reported() {
    let orchestrator = with_runners();
    let scene = Scene::at(orchestrator, &[]);
    scene.is_ready();
    scene.orchestrator.runners(|runners| runners.as_mut().unwrap().put(ID, json!({"runner_url": "http://rival:1"})));
    wait_for("a word about it", || {
        // The rival beats on.
        scene.orchestrator.runners(|r| r.as_mut().unwrap().put(ID, json!({"runner_url": "http://rival:1"})));
        scene.inner.worker.log().contains("another worker holds this RUNNER_ID").then_some(())
    });
    scene.is_ready();
}

#[test]
fn an_unhealthy_worker_says_so_at_once_and_keeps_beating() {
    let scene = Scene::new(&[("WITHDRAW_WHEN_UNHEALTHY", "true")]);
    scene.is_ready();
    scene.inner.nvml.set("gpu0.handle=15");
    wait_for("unavailable", || scene.alive().filter(|body| body["status"] == "unavailable"));
    scene.state("withdrawn");
    let beats = scene.beats().len();
    wait_for("more beats", || (scene.beats().len() >= beats + 3).then_some(()));
    scene.inner.nvml.set("");
    scene.is_ready();
    assert_eq!(scene.orchestrator.requests(LEAVE).len(), 0, "it was never taken out");
}

#[test]
fn it_drains_before_it_leaves() {
    let scene = Scene::new(&[]);
    scene.is_ready();
    let mut slow = half_a_job(&scene.inner.worker);
    scene.inner.worker.signal(Signal::TERM);
    wait_for("draining", || scene.alive().filter(|body| body["status"] == "draining"));
    assert_eq!(scene.orchestrator.requests(LEAVE).len(), 0);
    slow.send(job("late").as_bytes()).unwrap();
    assert_eq!(slow.answer().unwrap().status, 200);
    let Scene { orchestrator, inner } = scene;
    let worker = inner.worker;
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let left = orchestrator.requests(LEAVE);
    assert_eq!((left.len(), left[0].header("authorization")), (1, Some("heartbeat-s3cret-1")));
    assert_eq!(orchestrator.requests(BEAT).iter().filter(|r| r.json()["status"] == "ready").count(), {
        let all = orchestrator.requests(BEAT);
        all.iter().position(|r| r.json()["status"] == "draining").unwrap()
    });
}

#[test]
fn without_a_job_it_leaves_immediately() {
    let scene = Scene::new(&[]);
    scene.is_ready();
    let Scene { orchestrator, inner } = scene;
    let (status, log) = inner.worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(orchestrator.requests(LEAVE).len(), 1, "no beat must follow");
    orchestrator.runners(|runners| assert_eq!(runners.as_ref().and_then(|r| r.alive(ID)), None));
}

#[test]
fn an_orchestrator_that_hangs_delays_no_job_and_no_end() {
    let orchestrator = FakeOrchestrator::new(Behavior::Hang);
    let scene = Scene::at(orchestrator, &[]);
    assert_eq!(scene.inner.worker.report()["status"], "success");
    wait_for("a beat", || scene.beats().first().cloned());
    let (status, log) = scene.inner.worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn both_are_kept_and_byoc_alone_knows_no_registry() {
    let start = |protocol: &str| {
        let orchestrator = FakeOrchestrator::new(Behavior::Ok);
        orchestrator.runners(|runners| *runners = Some(Runners::new("orch-s3cret")));
        Scene::at(orchestrator, &[("ORCH_PROTOCOL", protocol), ("RUNNER_ID", ID)])
    };
    let scene = start("both");
    scene.is_ready();
    wait_for("a registration", || scene.orchestrator.registered(ID));
    scene.state("registered");
    let (status, _) = scene.inner.worker.stop();
    assert_eq!(status.code(), Some(0));
    assert_eq!(scene.orchestrator.requests(LEAVE).len(), 1);
    assert_eq!(scene.orchestrator.requests("/capability/unregister").len(), 1);
    let scene = start("byoc");
    wait_for("renewals", || (scene.orchestrator.requests("/capability/register").len() >= 3).then_some(()));
    assert_eq!(scene.beats().len(), 0);
}

#[test]
fn a_token_and_a_live_runner_exclude_each_other() {
    for protocol in ["live-runner", "both"] {
        let (status, _, err) = run(agent_net().arg("serve").envs([
            ("ORCH_URL", "http://o:1"),
            ("CAPABILITY_NAME", "a"),
            ("ORCH_PROTOCOL", protocol),
            ("WORKER_TOKEN", "t0ken"),
        ]));
        assert_eq!(status.code(), Some(78), "{err}");
        assert!(err.contains("WORKER_TOKEN") && !err.contains("t0ken"), "{err}");
    }
}

/// A client's job comes through the registry's proxy: with its headers, its body in chunks, and the client's own.
#[test]
fn jobs_of_the_proxy_reach_the_job_routes_and_nothing_else() {
    let scene = Scene::new(&[("HOSTNAME", "127.0.0.1")]);
    let url = scene.is_ready()["runner_url"].as_str().unwrap().to_owned();
    let addr = url.trim_start_matches("http://").parse().unwrap();
    let ask = |line: &str, body: &str| {
        let mut connection = Connection::open(addr);
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {addr}\r\nLivepeer-Runner-Route: {ID}\r\nLivepeer-Session-Id: s\r\n\
             Livepeer-Session-Token: t\r\nLivepeer-Session-Control: c\r\nLivepeer-Payment: {}\r\nCookie: a=b\r\n\
             Authorization: Bearer of-the-client\r\nTransfer-Encoding: chunked\r\n\r\n",
            "A".repeat(40_000)
        );
        connection.send(head.as_bytes()).unwrap();
        connection.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).unwrap();
        connection.answer().unwrap()
    };
    let answer = ask("POST /gpu-check", r#"{"agent_id":"a client"}"#);
    assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!("a client")), "{answer:?}");
    for line in ["GET /gpu", "GET /metrics", "GET /agents", "GET /uptime", "POST /../gpu"] {
        assert_eq!(ask(line, "{}").status, 404, "{line}");
    }
    let log = scene.inner.worker.log();
    assert!(!log.contains("AAAA") && !log.contains("of-the-client"), "{log}");
}

/// What `config --runner-json` prints, and what it complains of.
fn runner_json(nvml: &FakeNvml, more: &[(&str, &str)]) -> (Value, String) {
    let (status, out, err) = run(agent_net()
        .args(["config", "--runner-json", "--runner-price", "0.0005usd/fixed"])
        .envs(nvml.settings())
        .envs([
            ("CAPABILITY_NAME", "agent-net.nyc"),
            ("CAPABILITY_URL", "http://10.0.0.5:9876"),
            ("CAPABILITY_CAPACITY", "4"),
            ("OLLAMA_URL", "http://127.0.0.1:9"),
        ])
        .envs(more.iter().copied()));
    assert_eq!(status.code(), Some(0), "{err}");
    (serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}")), err)
}

#[test]
fn the_operators_own_list_gets_an_entry() {
    let (mut list, err) = runner_json(&FakeNvml::new(""), &[]);
    assert_eq!(err, "");
    let metadata = list["runners"][0]["metadata"].take();
    // What is true now may not be when it is read.
    assert_eq!(
        serde_json::from_str::<Value>(metadata.as_str().unwrap()).unwrap(),
        json!({"v": 1, "gpus": 1, "driver": "550.54.14"})
    );
    let expect = json!({"runners": [{
        "label": "agent-net-nyc", "routing": "label", "runner_url": "http://10.0.0.5:9876", "health_url": "/ready",
        "healthy_status_code": 200, "app": "agent-net/gpu-check", "version": env!("CARGO_PKG_VERSION"),
        "metadata": null, "mode": "single-shot", "capacity": 4,
        "gpu": {"id": "GPU-00000000-0000-0000-0000-000000000000", "name": "Fake RTX 0", "vram_mb": 24576},
        "price_info": {"price": "0.0005", "currency": "usd", "unit": "fixed"}
    }]});
    assert_eq!(list, expect);
    // What keeps it from being found is said.
    let lib = ("NVML_LIB", "/nonexistent/libnvidia-ml.so.1");
    let (list, err) = runner_json(
        &FakeNvml::new(""),
        &[lib, ("WORKER_TOKEN", "t0ken"), ("CAPABILITY_URL", "http://[::ffff:127.0.0.1]:9876")],
    );
    assert!(list["runners"][0].get("gpu").is_none() && list["runners"][0]["metadata"].is_string(), "{list}");
    assert!(
        ["cannot read a GPU", "WORKER_TOKEN is set", "CAPABILITY_URL is"].iter().all(|part| err.contains(part)),
        "{err}"
    );
}

#[test]
fn different_gpus_are_all_in_the_metadata() {
    let names = "gpus=3\ngpu1.name=Fake A100\ngpu2.name=Fake A100";
    let (list, _) = runner_json(&FakeNvml::new(names), &[]);
    let entry = &list["runners"][0];
    let metadata: Value = serde_json::from_str(entry["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(entry["gpu"]["name"], "Fake RTX 0");
    assert_eq!(metadata["gpus"], 3);
    let kinds: Vec<_> =
        metadata["kinds"].as_array().unwrap().iter().map(|k| (k["name"].clone(), k["count"].clone())).collect();
    assert_eq!(kinds, [(json!("Fake RTX 0"), json!(1)), (json!("Fake A100"), json!(2))]);
}

#[test]
fn the_secret_of_a_file_is_read_again() {
    let file = folder("runner-secret").join("secret");
    fs::write(&file, "old-s3cret").unwrap();
    let scene = Scene::new(&[("ORCH_SECRET", ""), ("ORCH_SECRET_FILE", file.to_str().unwrap())]);
    let refusals = || scene.row()["failures"]["wrong_secret"].as_u64();
    let before = wait_for("a refusal", refusals);
    // A pipe without a writer, like a shell's after the start, blocks nothing.
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    wait_for("more refusals", || refusals().filter(|now| *now >= before + 3));
    fs::remove_file(&file).unwrap();
    fs::write(&file, "orch-s3cret").unwrap();
    scene.is_ready();
}
