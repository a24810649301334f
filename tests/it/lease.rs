//! Registrations that are lost in every possible way, and come back. Time runs a hundred times faster.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::draining::half_a_job;
use crate::fake_ollama::FakeOllama;
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::http::{self, Connection};
use crate::jobs::{bytes, job};
use crate::nvml::FakeNvml;

const NAME: &str = "agent-net-nyc";
const REGISTER: &str = "/capability/register";
const UNREGISTER: &str = "/capability/unregister";

/// A worker, its orchestrator, and since when they are there.
struct Scene {
    orchestrator: FakeOrchestrator,
    worker: Worker,
    started: Instant,
}

impl Scene {
    fn new(more: &[(&str, &str)]) -> Self {
        Self::at(FakeOrchestrator::new(Behavior::Ok), more)
    }

    fn at(orchestrator: FakeOrchestrator, more: &[(&str, &str)]) -> Self {
        let url = orchestrator.url();
        let mut settings =
            vec![("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", NAME), ("AGENT_NET_FAULT", "hurry:100")];
        settings.extend(more);
        let started = Instant::now();
        Self { worker: Worker::start(&settings), orchestrator, started }
    }

    fn ours(&self) -> String {
        format!(":{}", self.worker.addr.port())
    }

    #[track_caller]
    fn is_registered(&self) {
        wait_for("a registration of ours", || {
            self.orchestrator.registered(NAME).filter(|r| r["url"].as_str().unwrap().ends_with(&self.ours()))
        });
        // Never more than one request a second.
        let seconds = self.started.elapsed().as_secs_f64() * 100.0;
        let count = self.orchestrator.count();
        assert!(count as f64 <= seconds + 2.0, "{count} requests in {seconds} s");
    }

    fn renewals(&self) -> usize {
        self.orchestrator.requests(REGISTER).len()
    }

    #[track_caller]
    fn wait_for_renewals(&self, more: usize) {
        let before = self.renewals();
        wait_for("renewals", || (self.renewals() >= before + more).then_some(()));
    }

    fn row(&self) -> Value {
        self.worker.get("/gpu").json()["registrations"][0].clone()
    }
}

#[test]
fn it_is_renewed_silently_as_long_as_the_worker_lives() {
    let scene = Scene::new(&[]);
    scene.is_registered();
    scene.wait_for_renewals(5);
    scene.is_registered();
    let row = scene.row();
    assert_eq!(
        (&row["state"], &row["protocol"], &row["capability"]),
        (&json!("registered"), &json!("byoc"), &json!(NAME))
    );
    assert!(row["renewals"].as_u64().unwrap() >= 4 && row["last_success"].is_f64() && row["error"].is_null(), "{row}");
    let log = scene.worker.log();
    assert_eq!(log.matches("registered agent-net-nyc").count(), 1, "{log}");
    assert!(scene.orchestrator.requests(REGISTER).iter().all(|r| r.json().get("load").is_none()));
}

#[test]
fn it_registers_again_whatever_makes_the_orchestrator_forget_it() {
    let mut scene = Scene::new(&[]);
    scene.is_registered();
    // It was restarted, or dropped us after one failed job, and says nothing.
    scene.orchestrator.forget();
    scene.is_registered();
    // It is away for a while, and has forgotten all when it comes back.
    scene.orchestrator.stop();
    wait_for("a failed renewal", || (scene.row()["state"] == "failing").then_some(()));
    assert!(scene.row()["failures"]["no_answer"].as_u64().unwrap() >= 1);
    scene.orchestrator.forget();
    scene.orchestrator.start();
    scene.is_registered();
    wait_for("its state", || (scene.row()["state"] == "registered").then_some(()));
    // Another worker takes the name.
    scene.orchestrator.put(NAME, json!({"name": NAME, "url": "http://rival:1"}));
    scene.is_registered();
    let log = scene.worker.log();
    assert_eq!(log.matches("cannot register").count(), 1, "once for each change: {log}");
}

#[test]
fn a_worker_that_was_killed_takes_its_name_again() {
    let scene = Scene::new(&[]);
    scene.is_registered();
    let Scene { orchestrator, worker, .. } = scene;
    worker.signal(Signal::KILL);
    worker.wait();
    Scene::at(orchestrator, &[]).is_registered();
}

#[test]
fn slots_that_vanished_peers_leave_behind_are_given_back() {
    let scene = Scene::new(&[("CAPABILITY_CAPACITY", "3")]);
    scene.is_registered();
    for _ in 0..3 {
        // The orchestrator's client aborts in the middle of its upload.
        let mut connection = Connection::open(scene.worker.addr);
        let head = "POST /gpu-check HTTP/1.1\r\nHost: worker\r\nContent-Length: 100\r\n\r\n{";
        connection.send(head.as_bytes()).unwrap();
        drop(connection);
        scene.orchestrator.leak(NAME);
    }
    wait_for("all slots", || (scene.orchestrator.load(NAME) == Some(0)).then_some(()));
    scene.is_registered();
}

#[test]
fn a_peer_that_hangs_up_brings_the_renewal_forward() {
    const HEAD: &[u8] = b"POST /gpu-check HTTP/1.1\r\nHost: worker\r\nContent-Length: 100\r\n\r\n{";
    let hang_ups: [fn(&mut Connection); 3] = [
        |connection| connection.send(HEAD).unwrap(),
        |connection| connection.send(&bytes("POST", "/gpu-check", &job("gone"))).unwrap(),
        // Its answer is there, and is not read.
        |connection| {
            connection.send(&bytes("POST", "/gpu-check", &job("gone"))).unwrap();
            connection.stream().peek(&mut [0]).unwrap();
        },
    ];
    // In life's own pace the next renewal would be a minute away: 51 s at least.
    let scenes = hang_ups.map(|hang_up| (Scene::new(&[("AGENT_NET_FAULT", "")]), hang_up));
    for (scene, _) in &scenes {
        scene.orchestrator.wait_for(REGISTER, 1);
        scene.worker.report();
    }
    let start = Instant::now();
    for (scene, hang_up) in &scenes {
        hang_up(&mut Connection::open(scene.worker.addr));
    }
    for (at, (scene, _)) in scenes.iter().enumerate() {
        scene.orchestrator.wait_for(REGISTER, 2);
        assert!(start.elapsed() < Duration::from_secs(45), "{at}: {:?}", start.elapsed());
    }
}

#[test]
fn while_jobs_are_in_flight_nothing_is_renewed_without_counting_them() {
    let scene = Scene::new(&[]);
    scene.is_registered();
    let mut slow = half_a_job(&scene.worker);
    wait_for("a renewal that counts it", || {
        scene.orchestrator.requests(REGISTER).iter().any(|r| r.json()["load"] == 1).then_some(())
    });
    let first = scene.orchestrator.requests(REGISTER).iter().position(|r| r.json()["load"] == 1).unwrap();
    scene.wait_for_renewals(2);
    let busy: Vec<Value> =
        scene.orchestrator.requests(REGISTER)[first..].iter().map(|r| r.json()["load"].clone()).collect();
    assert!(busy.len() >= 3 && busy.iter().all(|load| *load == 1), "{busy:?}");
    slow.send(job("late").as_bytes()).unwrap();
    assert_eq!(slow.answer().unwrap().status, 200);
    wait_for("a quiet renewal", || {
        scene.orchestrator.requests(REGISTER).last().is_some_and(|r| r.json().get("load").is_none()).then_some(())
    });
}

#[test]
fn a_wrong_token_makes_it_register_again() {
    let scene = Scene::new(&[("WORKER_TOKEN", "t0ken")]);
    wait_for("a registration", || scene.orchestrator.registered(NAME));
    assert_eq!(scene.orchestrator.registered(NAME).unwrap()["token"], "t0ken");
    // If it was the orchestrator that sent it, it has dropped us now.
    let answer = http::request(scene.worker.addr, "POST", "/gpu-check", &["Authorization: Bearer old"], b"{}");
    assert_eq!(answer.status, 401);
    scene.orchestrator.forget();
    wait_for("a registration", || scene.orchestrator.registered(NAME));
}

#[test]
fn a_secret_that_was_changed_is_read_again() {
    let file = folder("lease-secret").join("secret");
    fs::write(&file, "alpha-s3cret\n").unwrap();
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    orchestrator.demand("alpha-s3cret");
    let scene = Scene::at(orchestrator, &[("ORCH_SECRET_FILE", file.to_str().unwrap())]);
    scene.is_registered();
    // It is restarted with another one, and the operator follows.
    scene.orchestrator.demand("beta-s3cret");
    scene.orchestrator.forget();
    wait_for("a refusal", || scene.row()["failures"]["wrong_secret"].as_u64());
    fs::remove_file(&file).unwrap();
    let said = || scene.worker.log().matches("keeping the previous secret").count();
    wait_for("a word about the file", || (said() > 0).then_some(()));
    let refused = || scene.row()["failures"]["wrong_secret"].as_u64().unwrap_or_default();
    let before = refused();
    wait_for("more refusals", || (refused() >= before + 3).then_some(()));
    assert_eq!(said(), 1, "{}", scene.worker.log());
    fs::write(&file, "beta-s3cret\n").unwrap();
    scene.is_registered();
    wait_for("its state", || (scene.row()["state"] == "registered").then_some(()));
    let text = [scene.worker.log(), scene.worker.get("/metrics").text().into(), scene.row().to_string()].concat();
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn sighup_reads_the_secret_and_registers_at_once() {
    let file = folder("lease-hup").join("secret");
    fs::write(&file, "first").unwrap();
    let scene = Scene::new(&[("ORCH_SECRET_FILE", file.to_str().unwrap()), ("AGENT_NET_FAULT", "")]);
    scene.orchestrator.wait_for(REGISTER, 1);
    fs::write(&file, "second").unwrap();
    scene.worker.signal(Signal::HUP);
    let requests = scene.orchestrator.wait_for(REGISTER, 2);
    assert_eq!(requests[1].header("authorization"), Some("second"));
    assert_eq!(scene.worker.report()["status"], "success");
    let (status, log) = scene.worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(scene.orchestrator.requests(UNREGISTER)[0].header("authorization"), Some("second"));
}

#[test]
fn an_unhealthy_worker_withdraws_and_returns_if_that_is_wanted() {
    for wanted in ["true", "false"] {
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
        let url = ollama.url();
        let mut settings = vec![("OLLAMA_URL", url.as_str()), ("WITHDRAW_WHEN_UNHEALTHY", wanted)];
        settings.extend(nvml.settings());
        let scene = Scene::new(&settings);
        scene.is_registered();
        nvml.set("gpu0.handle=15");
        if wanted == "false" {
            scene.worker.report_when("unhealthy", |r| r["health"]["verdict"] == "unhealthy");
            scene.wait_for_renewals(2);
            assert_eq!(scene.orchestrator.requests(UNREGISTER).len(), 0);
            continue;
        }
        scene.orchestrator.wait_for(UNREGISTER, 1);
        wait_for("its state", || (scene.row()["state"] == "withdrawn").then_some(()));
        assert_eq!(scene.orchestrator.registered(NAME), None);
        // Requests are answered anyway.
        assert_eq!(scene.worker.report()["health"]["verdict"], "unhealthy");
        let metrics = scene.worker.get("/metrics");
        assert!(metrics.text().contains("protocol=\"byoc\",state=\"withdrawn\"} 1\n"), "{}", metrics.text());
        nvml.set("");
        scene.is_registered();
        assert_eq!(scene.orchestrator.requests(UNREGISTER).len(), 1, "taken out once");
    }
}

#[test]
fn operators_see_it_and_clients_do_not() {
    let scene = Scene::new(&[]);
    scene.is_registered();
    wait_for("its state", || (scene.row()["state"] == "registered").then_some(()));
    let ready = scene.worker.get("/ready").json();
    assert_eq!(ready["registrations"][0]["orchestrator"], scene.orchestrator.url());
    assert_eq!(scene.worker.report().get("registrations"), None);
    let text = scene.worker.get("/gpu?format=text");
    assert!(text.text().contains("registrations0_state='registered'\n"), "{}", text.text());
    let labels = format!("{{orchestrator=\"{}\",capability=\"{NAME}\",protocol=\"byoc\"", scene.orchestrator.url());
    let metrics = scene.worker.get("/metrics");
    for line in [
        format!("agent_net_registration{labels}}} 1\n"),
        format!("agent_net_registration_state{labels},state=\"failing\"}} 0\n"),
        format!("agent_net_registration_last_success_timestamp_seconds{labels}}} 1"),
        format!("agent_net_registration_renewals_total{labels}}} "),
    ] {
        assert!(metrics.text().contains(&line), "{line} is not in {}", metrics.text());
    }
}

#[test]
fn a_secret_on_the_command_line_is_warned_of() {
    // An address that is not this machine's ends it at once.
    let (status, _, log) = run(agent_net().args(["serve", "--orch-secret", "s3cret", "--server-host", "192.0.2.1"]));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("ORCH_SECRET was given as a flag") && log.contains("ORCH_SECRET_FILE"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}
