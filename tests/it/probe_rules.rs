//! What probes find: reasons that come and clear, metrics, and usual speeds that outlive a restart.

use std::fs;

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, codes, folder, wait_for};
use crate::model_store::{MODEL, held, keeps, metric, with_model};
use crate::rules::reason;

/// 16 tokens at this speed, in the fields and with the small times of an answer of 0.33.0-rc2 to a probe.
fn answers(tokens_per_second: u64) -> Answer {
    let eval = 16_000_000_000 / tokens_per_second;
    let body = json!({
        "model": MODEL, "created_at": "2026-11-27T07:00:00.123456789Z", "response": " 9, 10, 11, 12,", "done": true,
        "done_reason": "length", "total_duration": eval + 6_000_000, "load_duration": 4_000_000, "prompt_eval_count": 23,
        "prompt_eval_duration": 2_000_000, "eval_count": 16, "eval_duration": eval
    });
    Answer::Late(10, Box::new(Answer::Json(body.to_string())))
}

/// An Ollama that holds the model for long: all requests for it are probes.
fn loaded(answer: Answer) -> FakeOllama {
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", 400 * 86_400));
    fake.set("/api/generate", answer);
    fake
}

/// A worker that probes five times a second.
fn probes(fake: &FakeOllama, more: &[(&str, &str)]) -> Worker {
    let settings = [("AGENT_NET_FAULT", "hurry:150"), ("PROBE_INTERVAL", "30s"), ("PROBE_TIMEOUT", "150s")];
    keeps(fake, &[&settings[..], more].concat())
}

fn of_model(name: &str) -> String {
    format!("agent_net_model_{name}{{model=\"{MODEL}\"}}")
}

#[track_caller]
fn finds(worker: &Worker, code: &str) -> Value {
    reason(&worker.report_when(code, |report| reason(report, code).is_some()), code).unwrap().clone()
}

#[track_caller]
fn clears(worker: &Worker, code: &str) {
    worker.report_when(&format!("no {code}"), |report| !codes(report).contains(&code));
}

#[test]
fn a_model_that_does_not_answer_probes_is_unhealthy() {
    let fake = loaded(Answer::Hang);
    let worker = probes(&fake, &[]);
    let found = finds(&worker, "MODEL_HANGS");
    assert_eq!(found["severity"], "unhealthy");
    let message = found["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("Model {MODEL} did not answer ")), "{message}");
    assert!(message.contains("probes in a row (no answer within "), "{message}");
    assert!(metric(&worker, &of_model("probes_unanswered")).unwrap() >= 2.0);
    for absent in ["probe_tokens_per_second", "probe_load_seconds", "probe_last_answer_timestamp_seconds"] {
        assert_eq!(metric(&worker, &of_model(absent)), None, "{absent}");
    }
    fake.set("/api/generate", answers(100));
    clears(&worker, "MODEL_HANGS");
    wait_for("a speed", || (metric(&worker, &of_model("probe_tokens_per_second")) == Some(100.0)).then_some(()));
    assert_eq!(metric(&worker, &of_model("probes_unanswered")), Some(0.0));
    assert_eq!(metric(&worker, &of_model("probe_load_seconds")), Some(0.004));
    let error = r#"{"error":"llama runner process has terminated: exit status 2"}"#;
    fake.set("/api/generate", Answer::Status(500, error.into()));
    let message = finds(&worker, "MODEL_HANGS")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("llama runner process has terminated: exit status 2"), "{message}");
    fake.set("/api/generate", answers(100));
    clears(&worker, "MODEL_HANGS");
    let count = |result: &str| {
        let name = format!("agent_net_model_probes_total{{model=\"{MODEL}\",result=\"{result}\"}}");
        metric(&worker, &name).unwrap()
    };
    assert!(count("ok") >= 2.0 && count("hangs") >= 2.0 && count("failed") >= 2.0);
    assert_eq!(count("slow"), 0.0);
}

/// Slower than the other tests: what was counted lasts for half an hour of the worker's.
#[test]
fn a_runner_that_died_in_three_probes_is_degraded_once_it_answers() {
    let error = r#"{"error":"llama runner process has terminated: exit status 2"}"#;
    let fake = loaded(Answer::Status(500, error.into()));
    let worker = probes(&fake, &[("AGENT_NET_FAULT", "hurry:10")]);
    let unanswered = || metric(&worker, &of_model("probes_unanswered")).is_some_and(|count| count >= 3.0);
    wait_for("three probes", || unanswered().then_some(()));
    assert_eq!(finds(&worker, "MODEL_HANGS")["severity"], "unhealthy");
    fake.set("/api/generate", answers(100));
    let degraded = |report: &Value| reason(report, "MODEL_HANGS").is_some_and(|found| found["severity"] == "degraded");
    let report = worker.report_when("degraded", degraded);
    let message = reason(&report, "MODEL_HANGS").unwrap()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(&format!("Model {MODEL} lost its runner ")) && message.contains("status 2"),
        "{message}"
    );
}

#[test]
fn a_model_that_was_deleted_hangs_no_more() {
    let fake = loaded(Answer::Hang);
    let worker = probes(&fake, &[]);
    finds(&worker, "MODEL_HANGS");
    // Its pull does not end.
    fake.set("/api/pull", Answer::Hang);
    fake.set("/api/tags", Answer::Json(r#"{"models":[]}"#.into()));
    fake.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    clears(&worker, "MODEL_HANGS");
    finds(&worker, "MODEL_NOT_LOADED");
    assert_eq!(metric(&worker, &of_model("probes_unanswered")), Some(0.0));
}

#[test]
fn a_model_below_half_of_its_usual_speed_is_degraded() {
    let fake = loaded(answers(1000));
    let dir = folder("usual-speed");
    let file = dir.join("speeds.json");
    let settings = [("STATE_DIR", dir.to_str().unwrap())];
    let worker = probes(&fake, &settings);
    let usual = |worker: &Worker| metric(worker, &of_model("probe_usual_tokens_per_second"));
    wait_for("a usual speed", || (usual(&worker) == Some(1000.0)).then_some(()));
    assert!(!codes(&worker.report()).contains(&"MODEL_SLOW"));
    fake.set("/api/generate", answers(100));
    let found = finds(&worker, "MODEL_SLOW");
    assert_eq!(
        (&found["severity"], &found["value"], &found["threshold"]),
        (&json!("degraded"), &json!(100.0), &json!(500.0))
    );
    let message = format!("Model {MODEL} (100.0 of its usual 1000.0 tokens/s) is slow");
    assert_eq!(found["message"], message);
    wait_for("the file", || fs::read_to_string(&file).ok()?.contains("\"slow\":true").then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    // The next worker knows its usual speed, and that it is slow until it is at 60 %.
    fake.set("/api/generate", answers(550));
    let worker = probes(&fake, &settings);
    let name = format!("agent_net_model_probes_total{{model=\"{MODEL}\",result=\"slow\"}}");
    wait_for("six answers", || (metric(&worker, &name)? >= 6.0).then_some(()));
    assert_eq!((finds(&worker, "MODEL_SLOW")["value"].clone(), usual(&worker)), (json!(550.0), Some(1000.0)));
    fake.set("/api/generate", answers(700));
    clears(&worker, "MODEL_SLOW");
    assert_eq!(usual(&worker), Some(1000.0));
}

#[test]
fn a_file_of_speeds_that_cannot_be_written_is_one_warning() {
    let fake = loaded(answers(1000));
    let dir = folder("speeds-in-the-way");
    let file = dir.join("speeds.json");
    fs::create_dir(&file).unwrap();
    let worker = probes(&fake, &[("STATE_DIR", dir.to_str().unwrap())]);
    let usual = of_model("probe_usual_tokens_per_second");
    wait_for("a usual speed", || (metric(&worker, &usual) == Some(1000.0)).then_some(()));
    let warning = format!("cannot write {}: not a regular file; usual speeds stay in memory", file.display());
    assert_eq!(worker.log().matches(&warning).count(), 1, "{}", worker.log());
    fs::remove_dir(&file).unwrap();
    wait_for("the file", || fs::read_to_string(&file).ok()?.contains("\"best\":1000.0").then_some(()));
    wait_for("the log line", || worker.log().contains("speeds.json can be written again").then_some(()));
    assert_eq!(worker.log().matches("cannot write").count(), 1, "{}", worker.log());
}
