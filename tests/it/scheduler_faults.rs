//! What goes wrong in the scheduler's Ollama on demand. Recorded are killed and stopped runners
//! (`scheduler_recordings`); of the rest, users report it, or the facts of a test say it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::dates::unix_seconds;
use crate::fake_ollama::FakeOllama;
use crate::harness::wait_for;
use crate::ollama_client::{Call, Reply};
use crate::scheduler::model::Model;
use crate::scheduler::{End, Scheduler};

const SCALE: u32 = 20;
/// 32 tokens take 0.32 s.
const WRITE: Duration = Duration::from_millis(10);

fn start(change: impl FnOnce(&mut Model)) -> (FakeOllama, Arc<Scheduler>) {
    let mut model = Model { write: WRITE, ..Model::generating("m") };
    change(&mut model);
    let others = ["n", "o"].map(Model::generating);
    let mut scheduler = Scheduler::new(2, std::iter::once(model).chain(others).collect());
    scheduler.scale = SCALE;
    FakeOllama::by(scheduler)
}

fn ask(fake: &FakeOllama, body: &Value) -> Call {
    Call::send(fake.addr(), "/api/generate", Some(body))
}

fn load(fake: &FakeOllama, model: &str, keep_alive: &str) {
    let reply = ask(fake, &json!({"model": model, "keep_alive": keep_alive, "stream": false})).reply();
    assert_eq!(reply.last()["done_reason"], "load");
}

fn unload(fake: &FakeOllama, model: &str) {
    ask(fake, &json!({"model": model, "keep_alive": 0})).reply();
}

/// A probe, as a worker sends it.
fn probe(fake: &FakeOllama) -> Reply {
    let options = json!({"num_predict": 16, "temperature": 0, "seed": 1, "num_ctx": 4096});
    ask(fake, &json!({"model": "m", "prompt": "abc", "raw": true, "stream": false, "options": options})).reply()
}

fn speed(reply: &Reply) -> f64 {
    reply.last()["eval_count"].as_f64().unwrap() / reply.time("eval_duration").as_secs_f64()
}

fn listed(fake: &FakeOllama) -> Vec<Value> {
    Call::send(fake.addr(), "/api/ps", None).reply().last()["models"].as_array().unwrap().clone()
}

fn names(fake: &FakeOllama) -> Vec<String> {
    listed(fake).iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_model_that_fell_to_the_cpu_is_slow_until_it_is_loaded_again() {
    let (fake, scheduler) = start(|_| {});
    load(&fake, "m", "10m");
    let fast = speed(&probe(&fake));
    scheduler.fall_to_cpu("m");
    assert_eq!(listed(&fake)[0]["size_vram"], 0);
    let slow = speed(&probe(&fake));
    assert!((5.0..20.0).contains(&(fast / slow)), "{fast} {slow}");
    unload(&fake, "m");
    load(&fake, "m", "10m");
    assert_ne!(listed(&fake)[0]["size_vram"], 0);
    assert!(speed(&probe(&fake)) > 5.0 * slow);
}

#[test]
fn some_models_stay_on_the_cpu_and_others_claim_a_gpu() {
    let (fake, _) = start(|model| model.stays_on_cpu = true);
    load(&fake, "m", "10m");
    assert_eq!(listed(&fake)[0]["size_vram"], 0);
    let (claims, _) = start(|model| model.pretends = true);
    load(&claims, "m", "10m");
    assert_ne!(listed(&claims)[0]["size_vram"], 0);
    assert!(speed(&probe(&claims)) < 20.0);
}

#[test]
fn answers_without_truth_are_sent_as_they_are_set() {
    let (fake, scheduler) = start(|_| {});
    let untrue = r#"{"model":"","created_at":"0001-01-01T00:00:00Z","response":"","done":false}"#;
    scheduler.answer_prompts_with(Some(untrue));
    assert_eq!(probe(&fake).last().to_string(), serde_json::from_str::<Value>(untrue).unwrap().to_string());
    scheduler.answer_prompts_with(None);
    assert_eq!(probe(&fake).last()["done"], true);
}

/// ollama/runner ends an answer that repeats one token more than 30 times.
#[test]
fn one_token_again_and_again_ends_without_done() {
    let (fake, _) = start(|model| model.repeats = true);
    assert_eq!(probe(&fake).last()["done"], true);
    let body = json!({"model": "m", "prompt": "abc", "raw": true, "stream": false, "options": {"num_predict": 40}});
    let reply = ask(&fake, &body).reply();
    assert_eq!((&reply.last()["done"], &reply.last()["eval_count"]), (&json!(false), &Value::Null));
    let mut body = body;
    body["stream"] = true.into();
    let reply = ask(&fake, &body).reply();
    assert!(reply.lines.len() == 30 && reply.lines.iter().all(|line| line["done"] == false), "{reply:?}");
}

#[test]
fn a_model_ends_its_answers_itself() {
    let (fake, _) = start(|model| model.answer_tokens = Some(3));
    let reply = probe(&fake);
    assert_eq!((&reply.last()["done_reason"], &reply.last()["eval_count"]), (&json!("stop"), &json!(3)));
}

#[test]
fn a_client_that_hangs_up_ends_its_answer() {
    let (fake, scheduler) = start(|_| {});
    load(&fake, "m", "10m");
    // 200 s.
    let mut stream = ask(&fake, &json!({"model": "m", "prompt": "a", "options": {"num_predict": 20_000}}));
    stream.begins();
    drop(stream);
    wait_for("its end", || scheduler.served().iter().any(|served| served.end == End::Gone).then_some(()));
    assert!(!probe(&fake).reloaded());
    let silent = ask(&fake, &json!({"model": "m", "prompt": "a", "stream": false, "options": {"num_predict": 20_000}}));
    wait_for("the request", || scheduler.is_busy("m").then_some(()));
    drop(silent);
    wait_for("its end", || {
        (scheduler.served().iter().filter(|served| served.end == End::Gone).count() == 2).then_some(())
    });
}

#[test]
fn a_runner_killed_under_an_answer_that_is_not_a_stream_is_an_error() {
    let (fake, scheduler) = start(|_| {});
    load(&fake, "m", "10m");
    let call = ask(&fake, &json!({"model": "m", "prompt": "a", "stream": false, "options": {"num_predict": 20_000}}));
    wait_for("the request", || scheduler.is_busy("m").then_some(()));
    scheduler.kill_runner("m");
    let reply = call.reply();
    assert_eq!(reply.status, 500, "{reply:?}");
    assert!(probe(&fake).reloaded());
}

#[test]
fn a_stopped_runner_that_is_resumed_answers_without_a_reload() {
    let (fake, scheduler) = start(|_| {});
    load(&fake, "m", "10m");
    scheduler.stop_runner("m");
    let fake = &fake;
    let reply = thread::scope(|scope| {
        let probe = scope.spawn(|| probe(fake));
        wait_for("the probe", || scheduler.is_busy("m").then_some(()));
        scheduler.resume_runner("m");
        probe.join().unwrap()
    });
    assert!(reply.time("load_duration") < Duration::from_secs(20), "{reply:?}");
    assert!(scheduler.served().iter().all(|served| served.end == End::Done));
}

#[test]
fn a_model_leaves_with_its_time_or_for_another_one() {
    let (fake, _) = start(|_| {});
    load(&fake, "m", "1s");
    wait_for("its end", || names(&fake).is_empty().then_some(()));
    load(&fake, "m", "10m");
    load(&fake, "n", "5m");
    // The one with the shorter time makes room.
    load(&fake, "o", "10m");
    assert_eq!(names(&fake), ["m:latest", "o:latest"]);
}

/// A load without a keep-alive: five minutes, and a later one that names none changes nothing.
#[test]
fn a_request_without_a_keep_alive_goes_on_with_the_one_before() {
    let (fake, _) = start(|_| {});
    let left = |reply: &Reply| {
        let ended = unix_seconds(reply.last()["created_at"].as_str().unwrap());
        (unix_seconds(listed(&fake)[0]["expires_at"].as_str().unwrap()) - ended).round()
    };
    let plain = |keep_alive: Value| {
        ask(&fake, &json!({"model": "m", "prompt": "a", "stream": false, "keep_alive": keep_alive})).reply()
    };
    assert_eq!(left(&plain(Value::Null)), 300.0);
    assert_eq!(left(&plain(json!("30s"))), 30.0);
    assert_eq!(left(&probe(&fake)), 30.0);
    assert_eq!(left(&plain(json!(90))), 90.0);
}
