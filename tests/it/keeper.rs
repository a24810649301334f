//! MODEL: pulled when it is missing, loaded, kept loaded, and got back whatever becomes of Ollama.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fake_ollama::{Answer, Gate, Step, VERSION};
use crate::harness::{codes, wait_for};
use crate::model_store::{
    EMPTY, GB, MODEL, becomes, empty, held, json_answer, keeps, layer, loads, metric, pulled, pulls, row, with_model,
};

#[test]
fn a_missing_model_is_pulled_loaded_and_kept() {
    let fake = empty();
    let gate = Gate::default();
    let slow = [
        vec![layer("aa", 14 * GB, 0), layer("aa", 14 * GB, 7 * GB), Step::Gate(gate.clone())],
        vec![layer("aa", 14 * GB, 14 * GB), layer("bb", 206, 206)],
    ];
    fake.set("/api/pull", pulls(slow.concat()));
    let worker = keeps(&fake, &[]);
    let pulling = wait_for("half of it", || Some(row(&worker)).filter(|row| row["percent"] == 50));
    assert_eq!((&pulling["model"], &pulling["state"]), (&json!(MODEL), &json!("pulling")));
    assert_eq!((&pulling["completed_mb"], &pulling["total_mb"]), (&json!((7 * GB) >> 20), &json!((14 * GB) >> 20)));
    let labels = format!("{{model=\"{MODEL}\"}}");
    assert_eq!(metric(&worker, &format!("agent_net_model_pull_ratio{labels}")), Some(0.5));
    assert_eq!(metric(&worker, &format!("agent_net_model_pull_size_bytes{labels}")), Some(14e9));
    assert!(worker.get("/gpu?format=text").text().contains("model_keeper0_percent=50\n"));
    let report = worker.report();
    assert!(codes(&report).contains(&"MODEL_NOT_LOADED"), "{report:#}");
    let job = worker.post("/gpu-check", r#"{"agent_id":"a"}"#).json();
    assert_eq!(job["model_keeper"][0]["percent"], 50, "{job:#}");

    gate.open();
    let kept = becomes(&worker, "loaded");
    for gone in ["percent", "completed_mb", "total_mb", "mb_per_second", "eta_seconds", "error"] {
        assert_eq!(kept[gone], Value::Null, "{gone}: {kept}");
    }
    worker.report_when("no MODEL_NOT_LOADED", |report| !codes(report).contains(&"MODEL_NOT_LOADED"));
    let bodies =
        |path: &str| fake.bodies(path).iter().map(|body| serde_json::from_str(body).unwrap()).collect::<Vec<Value>>();
    assert_eq!(bodies("/api/pull"), [json!({"model": MODEL, "stream": true})]);
    assert_eq!(bodies("/api/generate"), [json!({"model": MODEL, "keep_alive": "15m", "stream": false})]);
    assert_eq!(metric(&worker, &format!("agent_net_model_pulls_total{{model=\"{MODEL}\",result=\"ok\"}}")), Some(1.0));
    assert_eq!(
        metric(&worker, &format!("agent_net_model_keeper_state{{model=\"{MODEL}\",state=\"loaded\"}}")),
        Some(1.0)
    );
    assert_eq!(metric(&worker, &format!("agent_net_model_pull_ratio{labels}")), None);
    // It has fifteen minutes: it is not requested again.
    let looks = fake.requests("/api/ps");
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 20).then_some(()));
    assert_eq!((fake.requests("/api/pull"), fake.requests("/api/generate")), (1, 1));
    let log = worker.log();
    for part in ["lab/big:1: pulling", "lab/big:1: 50 %, 7.0 GB of 14.0 GB", "lab/big:1: pulled", "lab/big:1: loaded"] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
}

#[test]
fn fourteen_gigabytes_with_all_that_may_happen() {
    let fake = empty();
    let mut steps = vec![layer("aa", 14 * GB, 0)];
    // A line each 2 ms; now and then a part is taken back.
    for step in 0..700_u64 {
        let back = if step % 50 == 49 { 30 } else { 0 };
        steps.push(layer("aa", 14 * GB, step.saturating_sub(back) * GB / 50));
        steps.push(Step::Pause(2));
    }
    // Repeated lines, chunks that part a line, an empty line, spaces, an unknown status, small layers or none of them.
    steps.extend([layer("aa", 14 * GB, 14 * GB), layer("aa", 14 * GB, 14 * GB), Step::Bytes(b"\n".to_vec())]);
    steps.extend([Step::Bytes(br#"{"status":"pulling bb","digest":"sha256:bb","#.to_vec()), Step::Pause(50)]);
    steps.extend([Step::Bytes(b"\"total\":12,\"completed\":12}\n{\"status\":\"something new\"}\n".to_vec())]);
    fake.set("/api/pull", pulls(steps));
    let worker = keeps(&fake, &[]);
    let mut shown: (u64, u64) = (0, 0);
    let mut seen = BTreeSet::new();
    loop {
        let row = row(&worker);
        if row["state"] == "loaded" {
            break;
        }
        let number = |name: &str| row[name].as_u64();
        if let Some((percent, completed)) = number("percent").zip(number("completed_mb")) {
            assert!((percent, completed) >= shown, "{row} after {shown:?}");
            assert!(completed <= number("total_mb").unwrap(), "{row}");
            assert!(number("eta_seconds").is_none_or(|eta| eta < 600), "{row}");
            shown = (percent, completed);
            seen.insert(percent);
        }
        assert_ne!(row["state"], "failed", "{row}");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(seen.len() > 20, "{seen:?}");
    let log = worker.log();
    let logged: Vec<&str> = log.lines().filter(|line| line.contains(" GB of 14.0 GB")).collect();
    assert!((15..=20).contains(&logged.len()), "one line for five percent: {logged:#?}");
}

#[test]
fn it_is_asked_for_again_before_it_expires_and_when_it_was_unloaded() {
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", 50));
    let worker = keeps(&fake, &[]);
    wait_for("a refresh", || (fake.requests("/api/generate") == 1).then_some(()));
    becomes(&worker, "loaded");
    // Another client unloads it; Ollama loses its volume; both at once.
    for (tags, pulls) in [(pulled(MODEL, "d"), 0), (json_answer(EMPTY), 1)] {
        let before = fake.requests("/api/generate");
        fake.set("/api/tags", tags);
        fake.set("/api/ps", json_answer(EMPTY));
        wait_for("another load", || (fake.requests("/api/generate") > before).then_some(()));
        becomes(&worker, "loaded");
        assert_eq!(fake.requests("/api/pull"), pulls);
    }
    assert!(worker.log().contains("unloaded by Ollama"), "{}", worker.log());
}

/// A list that never shows our requests does not cause endless ones.
#[test]
fn a_server_that_ignores_how_long_is_not_asked_without_end() {
    let fake = with_model();
    fake.set("/api/ps", held(MODEL, "d", 30));
    fake.set("/api/generate", json_answer(r#"{"done":true,"done_reason":"load"}"#));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loaded");
    let looks = fake.requests("/api/ps");
    wait_for("more looks", || (fake.requests("/api/ps") > looks + 20).then_some(()));
    let (looks, asked) = (fake.requests("/api/ps"), fake.requests("/api/generate"));
    assert!(asked >= 2 && asked * 3 < looks * 2, "{asked} requests for {looks} looks");
}

#[test]
fn an_alias_or_a_shortened_name_is_not_loaded_again_and_again() {
    for (model, listed, loaded) in
        [("registry.ollama.ai/library/Lab", "lab:latest", "lab:latest"), ("lab", "lab:latest", "copy/of-lab:7")]
    {
        let fake = empty();
        let tags = json!({"models": [{"name": listed, "digest": "d"}, {"name": loaded, "digest": "d"}]});
        fake.set("/api/tags", Answer::Json(tags.to_string()));
        fake.set("/api/ps", held(loaded, "d", 900));
        let worker = keeps(&fake, &[("MODEL", model)]);
        becomes(&worker, "loaded");
        let looks = fake.requests("/api/ps");
        wait_for("more looks", || (fake.requests("/api/ps") > looks + 20).then_some(()));
        assert_eq!((fake.requests("/api/generate"), fake.requests("/api/pull")), (0, 0), "{model}");
        assert!(!codes(&worker.report()).contains(&"MODEL_NOT_LOADED"), "{model}");
    }
}

#[test]
fn a_long_load_is_waited_for_and_holds_up_nothing() {
    let fake = with_model();
    fake.set("/api/generate", Answer::Late(4000, Box::new(loads())));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "loading");
    for _ in 0..100 {
        assert_eq!(worker.post("/gpu-check", r#"{"agent_id":"a"}"#).status, 200);
    }
    becomes(&worker, "loaded");
    assert_eq!(fake.requests("/api/generate"), 1, "the one request was let go to its end");
    // The end does not wait for one either.
    fake.set("/api/ps", json_answer(EMPTY));
    fake.set("/api/generate", Answer::Hang);
    becomes(&worker, "loading");
    worker.signal(Signal::TERM);
    let (status, log) = worker.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn an_ollama_that_is_away_or_goes_away_is_waited_for() {
    let mut fake = with_model();
    fake.stop();
    let worker = keeps(&fake, &[]);
    becomes(&worker, "waiting");
    assert!(row(&worker)["error"].as_str().is_some(), "{}", row(&worker));
    fake.start();
    becomes(&worker, "loaded");
    // It is restarted empty, in the middle of a pull.
    fake.set("/api/tags", json_answer(EMPTY));
    fake.set("/api/ps", json_answer(EMPTY));
    let half = vec![layer("aa", 14 * GB, 0), layer("aa", 14 * GB, 7 * GB), Step::Hang];
    fake.set("/api/pull", pulls(half));
    wait_for("half of it", || Some(row(&worker)).filter(|row| row["percent"] == 50));
    fake.stop();
    becomes(&worker, "waiting");
    // What it had is still there.
    let gate = Gate::default();
    let rest = vec![layer("aa", 14 * GB, 7 * GB), Step::Gate(gate.clone()), layer("aa", 14 * GB, 14 * GB)];
    fake.set("/api/pull", pulls(rest));
    fake.start();
    wait_for("half of it at once", || Some(row(&worker)).filter(|row| row["percent"] == 50));
    gate.open();
    becomes(&worker, "loaded");
}

#[test]
fn a_worker_that_was_killed_goes_on_with_the_pull() {
    let fake = empty();
    fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 3 * GB), Step::Hang]));
    let worker = keeps(&fake, &[]);
    becomes(&worker, "pulling");
    worker.signal(Signal::KILL);
    drop(worker);
    fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 3 * GB), layer("aa", 14 * GB, 14 * GB)]));
    becomes(&keeps(&fake, &[]), "loaded");
}

/// A connection does not notice that its peer was moved to another network.
#[test]
fn a_request_to_an_ollama_that_answers_nothing_else_is_given_up() {
    for path in ["/api/pull", "/api/generate"] {
        let fake = if path == "/api/pull" { empty() } else { with_model() };
        fake.set(path, Answer::Hang);
        let worker = keeps(&fake, &[]);
        wait_for("the request", || (fake.requests(path) == 1).then_some(()));
        thread::sleep(Duration::from_secs(1));
        assert_eq!(fake.requests(path), 1, "{path}: it is waited for while Ollama answers");
        fake.set("/api/version", Answer::HangUp);
        wait_for("the end of the request", || worker.log().contains("even to requests for its version").then_some(()));
        fake.set("/api/version", json_answer(VERSION));
        fake.set("/api/pull", pulls(vec![layer("aa", 14 * GB, 14 * GB)]));
        fake.set("/api/generate", loads());
        becomes(&worker, "loaded");
    }
}

#[test]
fn several_models_are_kept_each_by_itself() {
    let fake = empty();
    let both = json!({"models": [{"name": "a:1", "digest": "a"}, {"name": "b:1", "digest": "b"}]});
    fake.set("/api/tags", Answer::Json(both.to_string()));
    fake.set("/api/ps", held("a:1", "a", 900));
    fake.set("/api/generate", Answer::Status(500, r#"{"error":"no room"}"#.into()));
    let worker = keeps(&fake, &[("MODEL", "a:1, b:1,")]);
    let rows = wait_for("both states", || {
        let rows = worker.report()["model_keeper"].clone();
        (rows[0]["state"] == "loaded" && rows[1]["state"] == "failed").then_some(rows)
    });
    assert_eq!(rows[1]["error"], "Ollama answered 500: no room");
    let report = worker.report_when("MODEL_NOT_LOADED", |report| codes(report).contains(&"MODEL_NOT_LOADED"));
    let reasons = report["health"]["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|r| r["code"] == "MODEL_NOT_LOADED").unwrap();
    assert_eq!((&reason["message"], &reason["severity"]), (&json!("Model b:1 is not loaded"), &json!("degraded")));
    fake.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    let both = "Models missing: a:1 is not loaded, b:1 is not loaded";
    worker.report_when(both, |report| report["health"]["reasons"].to_string().contains(both));
}

#[test]
fn without_models_there_is_no_keeper() {
    let fake = empty();
    let worker = keeps(&fake, &[("MODEL", "")]);
    let report = worker.report();
    assert!(report.get("model_keeper").is_none(), "{report:#}");
    assert_eq!((fake.requests("/api/pull"), fake.requests("/api/generate")), (0, 0));
    assert!(!worker.get("/metrics").text().contains("agent_net_model_keeper"));
}
