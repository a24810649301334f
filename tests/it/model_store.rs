//! An Ollama that pulls and loads one model, and a worker that is to keep it.

use serde_json::{Value, json};

use crate::dates::rfc3339;
use crate::fake_ollama::{Answer, FakeOllama, Step};
use crate::harness::{Worker, wait_for};

pub const MODEL: &str = "lab/big:1";
pub const EMPTY: &str = r#"{"models":[]}"#;
pub const GB: u64 = 1_000_000_000;

pub fn json_answer(body: &str) -> Answer {
    Answer::Json(body.into())
}

/// `/api/tags` with this model, of this digest.
pub fn pulled(name: &str, digest: &str) -> Answer {
    Answer::Json(json!({"models": [{"name": name, "model": name, "size": 14 * GB, "digest": digest}]}).to_string())
}

/// `/api/ps` with this model until this many seconds from now.
pub fn held(name: &str, digest: &str, seconds: i64) -> Answer {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = rfc3339(i64::try_from(at).unwrap() + seconds);
    let model = json!({
        "name": name, "model": name, "size": 9, "size_vram": 9, "digest": digest, "expires_at": at,
        "context_length": 4096
    });
    Answer::Json(json!({"models": [model]}).to_string())
}

/// A load that works, after which `/api/ps` lists the model.
pub fn loads() -> Answer {
    let done = format!(r#"{{"model":"{MODEL}","created_at":"x","response":"","done":true,"done_reason":"load"}}"#);
    Answer::Then(vec![("/api/ps", held(MODEL, "d", 900))], Box::new(Answer::Json(done)))
}

pub fn line(text: &str) -> Step {
    Step::Line(text.into())
}

pub fn layer(digest: &str, total: u64, completed: u64) -> Step {
    let completed = if completed == 0 { String::new() } else { format!(r#","completed":{completed}"#) };
    Step::Line(format!(r#"{{"status":"pulling {digest}","digest":"sha256:{digest}","total":{total}{completed}}}"#))
}

/// What Ollama says at the end of a good pull.
pub fn end() -> Vec<Step> {
    vec![
        line(r#"{"status":"verifying sha256 digest"}"#),
        line(r#"{"status":"writing manifest"}"#),
        line(r#"{"status":"removing unused layers"}"#),
        Step::Set("/api/tags", pulled(MODEL, "d")),
        line(r#"{"status":"success"}"#),
    ]
}

pub fn pulls(steps: Vec<Step>) -> Answer {
    Answer::Stream([vec![line(r#"{"status":"pulling manifest"}"#)], steps, end()].concat())
}

/// An Ollama without models that can pull and load the one.
pub fn empty() -> FakeOllama {
    let fake = FakeOllama::new();
    fake.set("/api/tags", json_answer(EMPTY));
    fake.set("/api/ps", json_answer(EMPTY));
    fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 14 * GB)]));
    fake.set("/api/generate", loads());
    fake
}

/// One that has it.
pub fn with_model() -> FakeOllama {
    let fake = empty();
    fake.set("/api/tags", pulled(MODEL, "d"));
    fake
}

/// A worker that keeps the model and runs fifty times faster; it sends no probes, which most fakes cannot answer.
pub fn keeps(fake: &FakeOllama, more: &[(&str, &str)]) -> Worker {
    let url = fake.url();
    let settings = [
        ("OLLAMA_URL", url.as_str()),
        ("MODEL", MODEL),
        ("EXPECTED_GPUS", "0"),
        ("AGENT_NET_FAULT", "hurry:50"),
        ("PROBE_INTERVAL", "off"),
    ];
    Worker::start(&[&settings[..], more].concat())
}

pub fn row(worker: &Worker) -> Value {
    // 503: there is no first sample yet.
    let answer = worker.get("/gpu");
    if answer.status == 200 { answer.json()["model_keeper"][0].clone() } else { Value::Null }
}

#[track_caller]
pub fn becomes(worker: &Worker, state: &str) -> Value {
    wait_for(&format!("the state {state}"), || Some(row(worker)).filter(|row| row["state"] == state))
}

#[track_caller]
pub fn fails(worker: &Worker, part: &str) -> Value {
    wait_for(&format!("the error {part:?}"), || {
        let row = row(worker);
        let reported = row["error"].as_str().is_some_and(|error| error.contains(part));
        (row["state"] == "failed" && reported).then_some(row)
    })
}

pub fn metric(worker: &Worker, name: &str) -> Option<f64> {
    let answer = worker.get("/metrics");
    answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
