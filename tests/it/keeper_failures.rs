//! Failures of pulls and loads are reported, and tried again until they work.

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, Step};
use crate::harness::{codes, wait_for};
use crate::model_store::{GB, MODEL, becomes, empty, fails, held, keeps, layer, line, loads, pulls, with_model};
use crate::rules::reason;

#[test]
fn a_failed_pull_is_reported_and_retried() {
    let manifest = line(r#"{"status":"pulling manifest"}"#);
    let error = |text: &str| line(&json!({"error": text}).to_string());
    for (answer, part) in [
        (
            Answer::Stream(vec![manifest.clone(), error("pull model manifest: file does not exist")]),
            "does not have this model",
        ),
        (Answer::Stream(vec![manifest.clone(), error("write /root/x: no space left on device")]), "disk is full"),
        (Answer::Stream(vec![error("odd"), line(r#"{"status":"success"}"#)]), "odd"),
        (Answer::Stream(vec![manifest.clone()]), "ended the pull early"),
        (Answer::Stream(vec![manifest.clone(), layer("aa", 14 * GB, GB), Step::Cut]), ""),
        (Answer::Stream(vec![line("<html>")]), "not a line of a pull"),
        (Answer::Stream(vec![Step::Bytes(vec![b'x'; 100_000]), Step::Hang]), "not a line of a pull"),
        (Answer::Status(400, r#"{"error":"invalid model name"}"#.into()), "invalid model name"),
        (Answer::Status(500, "<h1>oh</h1>".into()), "500: <h1>oh</h1>"),
        (Answer::Status(301, String::new()), "301"),
        (Answer::HangUp, ""),
        (Answer::Json(r#"{"status":"success"}"#.into()), "does not list it"),
    ] {
        let fake = empty();
        fake.set("/api/pull", answer.clone());
        let worker = keeps(&fake, &[]);
        let failed = fails(&worker, part);
        assert!(!failed["error"].as_str().unwrap().is_empty(), "{answer:?}");
        assert_eq!(failed["percent"], Value::Null, "{answer:?}");
        assert_eq!(fake.requests("/api/generate"), 0, "{answer:?}");
        // It recovers.
        fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 14 * GB)]));
        becomes(&worker, "loaded");
    }
}

#[test]
fn a_failed_load_is_reported_and_retried() {
    for (answer, part) in [
        (
            Answer::Status(500, r#"{"error":"model requires more system memory (9 GiB) than is available"}"#.into()),
            "more system memory",
        ),
        (
            Answer::Status(
                503,
                r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#.into(),
            ),
            "busy",
        ),
        (Answer::Status(404, r#"{"error":"model 'x' not found"}"#.into()), "not found"),
        (Answer::Json(r#"{"error":"strange"}"#.into()), "strange"),
        (Answer::HangUp, ""),
        (Answer::Huge(1 << 20), ""),
    ] {
        let fake = with_model();
        fake.set("/api/generate", answer.clone());
        let worker = keeps(&fake, &[]);
        fails(&worker, part);
        assert_eq!(fake.requests("/api/embed"), 0, "{answer:?}");
        if part == "not found" {
            // It is listed and not found: its files are not whole.
            wait_for("a pull", || (fake.requests("/api/pull") > 0).then_some(()));
        } else {
            assert_eq!(fake.requests("/api/pull"), 0, "{answer:?}");
        }
        fake.set("/api/generate", loads());
        becomes(&worker, "loaded");
    }
}

/// Unhealthy while no load succeeds, degraded for half an hour after that.
#[test]
fn a_runner_that_dies_at_each_load_is_reported() {
    let fake = with_model();
    let error = r#"{"error":"llama runner process has terminated: signal: killed"}"#;
    fake.set("/api/generate", Answer::Status(500, error.into()));
    let worker = keeps(&fake, &[]);
    let severity = |report: &Value| reason(report, "MODEL_HANGS").map(|reason| reason["severity"].clone());
    let report = worker.report_when("MODEL_HANGS", |report| severity(report) == Some("unhealthy".into()));
    let found = reason(&report, "MODEL_HANGS").unwrap().to_string();
    assert!(found.contains("signal: killed") && found.contains("dmesg"), "{found}");
    fake.set("/api/generate", loads());
    becomes(&worker, "loaded");
    worker.report_when("its end", |report| severity(report) != Some("unhealthy".into()));
}

#[test]
fn a_model_for_embeddings_only_is_loaded_by_embed() {
    let fake = with_model();
    fake.set("/api/generate", Answer::Status(400, format!(r#"{{"error":"\"{MODEL}\" does not support generate"}}"#)));
    let embedded = Answer::Json(format!(r#"{{"model":"{MODEL}","embeddings":[]}}"#));
    fake.set("/api/embed", Answer::Then(vec![("/api/ps", held(MODEL, "d", 900))], Box::new(embedded)));
    let worker = keeps(&fake, &[("MODEL_KEEP_ALIVE", "-1")]);
    becomes(&worker, "loaded");
    let body: Value = serde_json::from_str(&fake.bodies("/api/embed")[0]).unwrap();
    assert_eq!(body, json!({"model": MODEL, "keep_alive": -1, "stream": false}));
}

#[test]
fn files_that_are_missing_on_disk_are_pulled_again() {
    let fake = with_model();
    let refused = || Answer::Status(400, format!(r#"{{"error":"\"{MODEL}\" does not support generate"}}"#));
    fake.set("/api/generate", refused());
    fake.set("/api/embed", refused());
    let repaired = Step::Set("/api/generate", loads());
    fake.set("/api/pull", pulls(vec![repaired]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    assert_eq!(fake.requests("/api/pull"), 1);
}

/// A firewall for web applications, or a gateway that lets a worker read and no more.
#[test]
fn an_answer_in_ollamas_place_says_nothing_of_the_models_files() {
    for (answer, part) in [
        (Answer::Json("OK".into()), "200: OK"),
        (Answer::Json(String::new()), "200"),
        (Answer::Status(400, "<html><h1>400 Bad Request</h1></html>".into()), "400"),
        (Answer::Status(400, r#"{"message":"blocked"}"#.into()), "blocked"),
    ] {
        let fake = with_model();
        fake.set("/api/generate", answer.clone());
        fake.set("/api/embed", answer.clone());
        let worker = keeps(&fake, &[]);
        fails(&worker, part);
        wait_for("another try", || (fake.requests("/api/generate") > 2).then_some(()));
        assert_eq!((fake.requests("/api/embed"), fake.requests("/api/pull")), (0, 0), "{answer:?}");
        assert!(!worker.log().contains(": loaded"), "{}", worker.log());
        fake.set("/api/generate", loads());
        becomes(&worker, "loaded");
    }
}

#[test]
fn a_proxy_that_refuses_other_questions_ends_no_pull() {
    let fake = empty();
    let refused = Step::Set("/api/version", Answer::Status(429, "slow down".into()));
    // So long that the pull would be given up six times.
    fake.set(
        "/api/pull",
        pulls(vec![refused, layer("aa", 14 * GB, GB), Step::Pause(2500), layer("aa", 14 * GB, 14 * GB)]),
    );
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    assert_eq!(fake.requests("/api/pull"), 1, "{}", worker.log());
}

/// nginx answers 504 after 60 s (proxy_read_timeout), and immediately where it cannot resolve Ollama's name.
#[test]
fn a_proxys_timeout_is_not_taken_for_the_runners_answer() {
    let gateway = || Answer::Status(504, "<html><h1>504 Gateway Time-out</h1></html>".into());
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", -400));
    fake.set("/api/generate", gateway());
    let worker = keeps(&fake, &[]);
    wait_for("renewals", || (fake.requests("/api/generate") > 2).then_some(()));
    assert!(!codes(&worker.report()).contains(&"MODEL_STUCK"), "{:#}", worker.report());
    fake.set("/api/generate", Answer::Late(1500, Box::new(gateway())));
    fails(&worker, "its runner hangs");
    worker.report_when("MODEL_STUCK", |report| codes(report).contains(&"MODEL_STUCK"));
    assert!(worker.log().contains("the proxy in front of Ollama timed out after"), "{}", worker.log());

    // A load that outlasts the proxy's timeout does not mean that Ollama is down.
    let fake = with_model();
    fake.set("/api/generate", Answer::Late(1000, Box::new(gateway())));
    fails(&keeps(&fake, &[]), "(nginx: proxy_read_timeout)");
}
