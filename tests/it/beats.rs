//! What a beat says and when, where it goes, and what its refusals lead to. Time runs a hundred times faster, unless it
//! is about the pace.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake_orchestrator::Behavior;
use crate::fake_runners::{Kind, Runners};
use crate::harness::wait_for;
use crate::visibility::{Scene, change, orchestrator};

const ID: &str = "agent-net-nyc";
const BEAT: &str = "/runners/heartbeat";

#[test]
fn the_first_beat_has_the_gpu_and_a_real_verdict_and_news_is_sent_at_once() {
    let orchestrator = orchestrator(Behavior::NoByoc, true);
    // The next beat would be minutes away.
    change(&orchestrator, |runners| (runners.time_scale, runners.interval) = (1, Duration::from_secs(300)));
    let life = ("AGENT_NET_FAULT", "");
    let scene = Scene::new(&[&orchestrator], &[life, ("SAMPLE_INTERVAL", "100ms"), ("ORCH_PROTOCOL", "live-runner")]);
    let first = orchestrator.wait_for(BEAT, 1).remove(0).json();
    let verdict = |body: &Value| {
        let metadata: Value = serde_json::from_str(body["metadata"].as_str().unwrap()).unwrap();
        metadata["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!((&first["gpu"]["name"], verdict(&first).as_str()), (&json!("Fake RTX 0"), "ok"));
    let entry = || orchestrator.listed(ID);
    wait_for("the entry", entry);
    scene.nvml.set("gpu0.temperature=95");
    wait_for("the verdict", || entry().filter(|entry| verdict(entry) == "degraded"));
    scene.nvml.set("gpu0.handle=15");
    // An unusable GPU is not listed.
    wait_for("no GPU", || entry().filter(|entry| entry.get("gpu").is_none() && verdict(entry) == "unhealthy"));
    scene.nvml.set("");
    wait_for("the GPU", || entry().filter(|entry| entry["gpu"]["name"] == "Fake RTX 0"));
    let beats = orchestrator.requests(BEAT).len();
    assert!(beats <= 12, "news and not more: {beats}");
}

#[test]
fn a_driver_that_starts_again_hides_no_gpu() {
    let orchestrator = orchestrator(Behavior::NoByoc, true);
    let scene = Scene::new(&[&orchestrator], &[]);
    wait_for("the entry", || orchestrator.listed(ID));
    let helper = wait_for("a helper", || scene.worker.helpers().first().copied());
    rustix::process::kill_process(helper, Signal::KILL).unwrap();
    wait_for("another helper", || scene.worker.helpers().first().filter(|pid| **pid != helper).copied());
    let beats = orchestrator.requests(BEAT).len();
    orchestrator.wait_for(BEAT, beats + 2);
    assert!(orchestrator.requests(BEAT).iter().all(|beat| beat.json()["gpu"]["name"] == "Fake RTX 0"));
}

#[test]
fn beats_go_where_the_answer_says_and_the_secret_stays() {
    let (front, process) = (orchestrator(Behavior::NoByoc, true), orchestrator(Behavior::NoByoc, true));
    change(&front, |runners| runners.orchestrator = Some(process.url()));
    // The same registry by another address: what the first takes the second knows.
    let scene = Scene::new(&[&front], &[("ORCH_PROTOCOL", "live-runner")]);
    let secret = wait_for("a secret", || {
        let beats = process.requests(BEAT);
        beats.first()?.header("authorization").map(str::to_owned)
    });
    // It does not know this runner: beats come back, with the entry's own secret.
    assert_eq!(secret, "heartbeat-s3cret-1");
    scene.says("beats go back to");
    let beats = front.requests(BEAT).len();
    front.wait_for(BEAT, beats + 3);
    assert_eq!((process.requests(BEAT).len(), scene.worker.log().matches("beats go back to").count()), (1, 1));
    drop(scene);

    let (front, process) = (orchestrator(Behavior::NoByoc, true), orchestrator(Behavior::NoByoc, true));
    change(&front, |runners| runners.orchestrator = Some(process.url()));
    change(&process, |runners| (runners.time_scale = 1, runners.adopt("heartbeat-s3cret-1", ID)).1);
    let scene = Scene::new(&[&front], &[("ORCH_PROTOCOL", "live-runner")]);
    scene.says(&format!("beats go to {}", process.url()));
    process.wait_for(BEAT, 5);
    assert_eq!(front.requests(BEAT).len(), 1);
    // A restart there: the first beat is for ORCH_URL again, and so is its secret.
    change(&process, Runners::forget);
    front.wait_for(BEAT, 2);
    let all = process.requests(BEAT);
    assert!(all.iter().all(|beat| beat.header("authorization").unwrap().starts_with("heartbeat-s3cret")), "{all:?}");
}

#[test]
fn an_address_that_cannot_be_reached_or_trusted_costs_nothing() {
    for (named, words) in [
        ("http://127.0.0.1:9", "from http://127.0.0.1:9: connection refused"),
        ("https://o.invalid:8935", "from https://o.invalid:8935: cannot resolve o.invalid"),
        ("https://0.0.0.0:8935", "which is not used: from here that is this machine"),
        ("orchestrator:8935", "which is not used"),
        ("https://user:passw0rd@o:8935", "which is not used"),
    ] {
        let orchestrator = orchestrator(Behavior::NoByoc, true);
        // The look-up may be slow.
        change(&orchestrator, |runners| (runners.orchestrator, runners.time_scale) = (Some(named.into()), 5));
        let scene = Scene::new(&[&orchestrator], &[("ORCH_PROTOCOL", "live-runner")]);
        scene.says(words);
        let beats = orchestrator.requests(BEAT).len();
        orchestrator.wait_for(BEAT, beats + 5);
        assert!(orchestrator.listed(ID).is_some());
        let log = scene.worker.log();
        let said = log.matches("not used").count() + log.matches("beats go back to").count();
        assert_eq!((said, log.contains("passw0rd")), (1, false), "{log}");
    }
}

#[test]
fn a_refusal_that_may_mean_two_things_names_both() {
    let orchestrator = orchestrator(Behavior::NoByoc, true);
    change(&orchestrator, |runners| runners.kind = Kind::Node);
    let scene = Scene::new(&[&orchestrator], &[("ORCH_SECRET", "wrong-s3cret")]);
    let first = scene.says("may still be registered from before a crash, or ORCH_SECRET is wrong");
    assert!(first.contains("invalid runner credential"), "{first}");
    scene.says("ORCH_SECRET differs from the orchestrator's secret, or another worker holds this RUNNER_ID");
    // TTL and two intervals are six beats.
    assert!(orchestrator.requests(BEAT).len() >= 7);
    change(&orchestrator, |runners| runners.secret = "wrong-s3cret".into());
    wait_for("the entry", || orchestrator.listed(ID));
}

#[test]
fn a_rejected_price_names_its_setting() {
    for (kind, price, words) in [
        (Kind::OnChain, "", "price_info.price is required. Set RUNNER_PRICE, e.g. 0.0005usd/fixed"),
        (Kind::Node, "1usd/720p", "Use fixed or hour in RUNNER_PRICE: livepeer/node does not know 720p."),
    ] {
        let orchestrator = orchestrator(Behavior::Ok, true);
        change(&orchestrator, |runners| runners.kind = kind);
        let scene = Scene::new(&[&orchestrator], &[("RUNNER_PRICE", price)]);
        scene.says(words);
        scene.says("has BYOC and has Live Runner, which rejects it: this worker is visible as BYOC capability");
        orchestrator.wait_for(BEAT, 3);
        assert_eq!(scene.worker.log().matches(words).count(), 1);
    }
}
