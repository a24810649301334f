//! The keeper beside clients with wishes of their own, and beside models that leave each other no room.

use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, codes, wait_for};
use crate::http;
use crate::model_store::{GB, MODEL, becomes, empty, fails, held, keeps, layer, pulls, row, with_model};
use crate::rules::reason;
use crate::scheduler::model::Model;
use crate::scheduler::{Scheduler, Served};

/// A load of any real model takes longer.
const LOAD: Duration = Duration::from_millis(1500);
const SAME_RUNNER: Duration = Duration::from_millis(250);

/// An Ollama that has pulled these models.
fn ollama(most_loaded: usize, load: Duration, models: &[&str]) -> Scheduler {
    let model = |name: &&str| Model { load, noise: 0, ..Model::generating(name) };
    Scheduler::new(most_loaded, models.iter().map(model).collect())
}

/// A client's request, which takes this many milliseconds once the model is loaded.
fn ask(fake: &FakeOllama, millis: u64, keep_alive: &str, options: &Value) {
    let mut body = json!({
        "model": MODEL, "prompt": "a", "stream": false, "keep_alive": keep_alive, "options": options
    });
    body["options"]["num_predict"] = millis.into();
    let answer = http::request(fake.addr(), "POST", "/api/generate", &[], body.to_string().as_bytes());
    assert!(answer.json()["load_duration"].is_u64(), "{answer:?}");
}

fn split(all: Vec<Served>) -> (Vec<Served>, Vec<Served>) {
    all.into_iter().partition(Served::is_of_a_client)
}

#[test]
fn a_client_with_a_context_of_its_own_is_never_reloaded() {
    let (fake, scheduler) = FakeOllama::by(ollama(3, LOAD, &[MODEL]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    for _ in 0..30 {
        ask(&fake, 50, "5s", &json!({"num_ctx": 8192}));
        thread::sleep(Duration::from_millis(150));
    }
    let (clients, _) = split(scheduler.served());
    let reloads: Vec<&Served> = clients.iter().skip(1).filter(|served| served.load > SAME_RUNNER).collect();
    assert!(reloads.is_empty(), "{reloads:?}");
    // The client is gone: it stays loaded, as the client had it.
    let kept = wait_for("a renewal", || {
        let (_, ours) = split(scheduler.served());
        ours.into_iter().rev().find(|served| served.num_ctx.is_some())
    });
    assert_eq!((kept.model.as_str(), kept.num_ctx), (MODEL, Some(8192)));
    assert!(kept.load < SAME_RUNNER, "{kept:?}");
}

/// Ollama lists no num_thread: that a request of ours reloads shows only in its time.
#[test]
fn what_cannot_be_seen_is_reloaded_once_and_then_left_to_the_client() {
    // The worker waits twice as long as its own load took: a machine that stands still for a load's time hides the client.
    let undisturbed = (0..5).any(|_| {
        let (clients, slowest) = reloads_of_a_client();
        let disturbed = slowest > LOAD * 3 / 2;
        let reloads = clients.iter().filter(|served| served.load > SAME_RUNNER).count();
        assert!(disturbed || reloads == 2, "the first of all, and the one after our request: {clients:?}");
        !disturbed
    });
    assert!(undisturbed, "each of 5 tries had an answer that took more than {:?}", LOAD * 3 / 2);
}

/// What a client was served whose options Ollama does not list, and how long its longest request took. After its last
/// one the model is loaded again.
fn reloads_of_a_client() -> (Vec<Served>, Duration) {
    let (fake, scheduler) = FakeOllama::by(ollama(3, LOAD, &[MODEL]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    let options = json!({"num_thread": 8});
    ask(&fake, 10, "6s", &options);
    wait_for("the reload", || worker.log().contains("Leaving it to clients for a day").then_some(()));
    let mut slowest = Duration::ZERO;
    for _ in 0..8 {
        let began = Instant::now();
        ask(&fake, 10, "6s", &options);
        slowest = slowest.max(began.elapsed());
        thread::sleep(Duration::from_millis(600));
    }
    let (clients, before) = split(scheduler.served());
    let loads = |ours: &[Served]| ours.iter().filter(|served| served.load > SAME_RUNNER).count();
    // Gone with its time, it is loaded again.
    wait_for("our load", || (loads(&split(scheduler.served()).1) > loads(&before)).then_some(()));
    (clients, slowest)
}

#[test]
fn where_the_context_is_not_listed_what_a_client_loaded_is_let_go() {
    let mut old = ollama(3, LOAD, &[MODEL]);
    old.reports_context = false;
    let (fake, scheduler) = FakeOllama::by(old);
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    for _ in 0..8 {
        ask(&fake, 10, "5s", &json!({"num_ctx": 8192}));
        thread::sleep(Duration::from_millis(400));
    }
    let (clients, _) = split(scheduler.served());
    assert!(clients.iter().skip(1).all(|served| served.load < SAME_RUNNER), "{clients:?}");
    wait_for("our load", || {
        let (_, ours) = split(scheduler.served());
        (ours.iter().filter(|served| served.load > SAME_RUNNER).count() == 2).then_some(())
    });
}

/// ollama#7779, #14364, #13234.
#[test]
fn a_runner_that_hangs_is_unhealthy_until_it_answers() {
    let (fake, scheduler) = FakeOllama::by(ollama(3, Duration::ZERO, &[MODEL]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    scheduler.hang(true);
    // At first it may serve a long request.
    let severity = |report: &Value| reason(report, "MODEL_STUCK").map(|stuck| stuck["severity"].clone());
    worker.report_when("a first request", |report| severity(report) == Some(json!("degraded")));
    let report = worker.report_when("a second one", |report| severity(report) == Some(json!("unhealthy")));
    assert!(reason(&report, "MODEL_STUCK").unwrap()["message"].as_str().unwrap().contains(MODEL), "{report:#}");
    assert_eq!(report["health"]["verdict"], "unhealthy", "{report:#}");
    assert!(fails(&worker, "its runner hangs")["error"].as_str().unwrap().contains("Restart Ollama"));
    assert_eq!(worker.log().matches("its runner hangs").count(), 1, "{}", worker.log());
    scheduler.hang(false);
    worker.report_when("no MODEL_STUCK", |report| !codes(report).contains(&"MODEL_STUCK"));
    becomes(&worker, "loaded");
}

/// A stream that lasts holds the expiry where it was.
#[test]
fn a_model_past_its_time_is_busy() {
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", -30));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    let looks = fake.requests("/api/ps");
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 20).then_some(()));
    assert_eq!(fake.requests("/api/generate"), 0);
    // For minutes: it is asked, and goes on with the time that it had.
    fake.set("/api/ps", held(MODEL, "d", -330));
    wait_for("a question", || (fake.requests("/api/generate") == 1).then_some(()));
    let asked: Value = serde_json::from_str(&fake.bodies("/api/generate")[0]).unwrap();
    assert_eq!(asked, json!({"model": MODEL, "stream": false, "options": {"num_ctx": 4096}}));
    assert!(!codes(&worker.report()).contains(&"MODEL_STUCK"));
}

#[test]
fn models_that_displace_each_other_are_named() {
    let (fake, scheduler) = FakeOllama::by(ollama(1, Duration::from_millis(100), &["a:1", "b:1"]));
    let worker = keeps(&fake, &[("MODEL", "a:1,b:1")]);
    let report = worker.report_when("MODELS_DISPLACED", |report| codes(report).contains(&"MODELS_DISPLACED"));
    let displaced = reason(&report, "MODELS_DISPLACED").unwrap();
    assert_eq!(displaced["severity"], "degraded");
    assert!(
        displaced["message"].as_str().unwrap().starts_with("Models a:1 and b:1 displace each other"),
        "{displaced:#}"
    );
    assert!(displaced["action"].as_str().unwrap().contains("OLLAMA_MAX_LOADED_MODELS"), "{displaced:#}");
    let rows = |worker: &Worker| worker.report()["model_keeper"].as_array().unwrap().clone();
    let displaced = wait_for("the one without room", || {
        rows(&worker).into_iter().find(|row| row["state"] == "waiting" && row["error"].is_string())
    });
    let other = if displaced["model"] == "a:1" { "b:1" } else { "a:1" };
    assert!(displaced["error"].as_str().unwrap().contains(&format!("for {other}: no room for both")), "{displaced}");
    assert!(worker.log().contains("unloaded by Ollama for "), "{}", worker.log());
    scheduler.most_loaded.store(2, SeqCst);
    worker.report_when("no MODELS_DISPLACED", |report| !codes(report).contains(&"MODELS_DISPLACED"));
    wait_for("both", || rows(&worker).iter().all(|row| row["state"] == "loaded").then_some(()));
}

#[test]
fn a_model_of_the_cloud_is_neither_pulled_nor_loaded() {
    let fake = empty();
    let far = json!({"name": MODEL, "model": MODEL, "remote_model": "big:1", "remote_host": "https://ollama.com:443",
        "size": 384, "digest": "d"});
    fake.set("/api/tags", Answer::Json(json!({"models": [far]}).to_string()));
    let worker = keeps(&fake, &[]);
    fails(&worker, "runs in Ollama's cloud");
    let report = worker.report_when("MODEL_NOT_LOADED", |report| codes(report).contains(&"MODEL_NOT_LOADED"));
    let missed = reason(&report, "MODEL_NOT_LOADED").unwrap();
    assert!(missed["message"].as_str().unwrap().contains("in Ollama's cloud (https://ollama.com:443)"), "{missed:#}");
    let looks = fake.requests("/api/ps");
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 20).then_some(()));
    assert_eq!((fake.requests("/api/generate"), fake.requests("/api/pull")), (0, 0));
    assert_eq!(worker.log().matches("runs in Ollama's cloud").count(), 1, "{}", worker.log());
}

#[test]
fn a_model_deleted_while_it_is_loaded_is_pulled_at_once() {
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", 900));
    fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 14 * GB)]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    fake.set("/api/tags", Answer::Json(r#"{"models":[]}"#.into()));
    wait_for("the pull", || (fake.requests("/api/pull") == 1).then_some(()));
    becomes(&worker, "loaded");
    assert_eq!(fake.requests("/api/generate"), 0, "{}", row(&worker));
}
