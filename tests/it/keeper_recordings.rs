//! What real servers answered to pulls and loads, and what becomes of it.

use serde_json::Value;

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{Worker, wait_for};
use crate::recordings::{OllamaAnswer, dechunk, find, folder};

/// What became of a recorded pull or load: an error of Ollama's, in its own words, or nothing of the kind.
fn outcome(answer: &OllamaAnswer) -> Result<(), String> {
    let Some(end) = find(&answer.bytes, b"\r\n\r\n") else { return Err(String::new()) };
    let head = String::from_utf8_lossy(&answer.bytes[..end]).into_owned();
    let body = &answer.bytes[end + 4..];
    let cut = head.contains("chunked") && !answer.bytes.ends_with(b"0\r\n\r\n");
    let body = if head.contains("chunked") && !cut { dechunk(body) } else { body.to_vec() };
    let text = String::from_utf8_lossy(&body).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = lines.filter_map(|line| line["error"].as_str().map(str::to_owned)).next();
    match said {
        Some(error) => Err(error.chars().map(|c| if c.is_control() { ' ' } else { c }).take(40).collect()),
        None if cut => Err(String::new()),
        None => Ok(()),
    }
}

/// A worker that wants a model makes the same of it as its operator would have.
fn keeps(answer: &OllamaAnswer) {
    let fake = FakeOllama::new();
    let listed = r#"{"models":[{"name":"lab:latest","digest":"d"}]}"#;
    let tags = if answer.path == "/api/pull" { r#"{"models":[]}"# } else { listed };
    fake.set("/api/tags", Answer::Json(tags.into()));
    fake.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    if answer.path == "/api/embed" {
        fake.set("/api/generate", Answer::Status(400, r#"{"error":"does not support generate"}"#.into()));
    }
    fake.set(&answer.path, Answer::Raw { bytes: answer.bytes.clone(), close: true });
    let url = fake.url();
    let worker = Worker::start(&[("OLLAMA_URL", &url), ("MODEL", "lab"), ("AGENT_NET_FAULT", "hurry:50")]);
    let done = if answer.path == "/api/pull" { "pulled" } else { "loaded" };
    let (good, bad) =
        (format!("lab: {done}\n"), format!("lab: cannot {} it: ", if done == "pulled" { "pull" } else { "load" }));
    let log = wait_for(&format!("the end of {}", answer.name), || {
        let log = worker.log();
        (log.contains(&good) || log.contains(&bad)).then_some(log)
    });
    match outcome(answer) {
        Ok(()) => assert!(log.contains(&good), "{}: {log}", answer.name),
        // A model that cannot embed either: the error of generate is shown.
        Err(_) if answer.path == "/api/embed" => assert!(log.contains("does not support generate"), "{log}"),
        Err(said) => assert!(!log.contains(&good) && log.contains(&said), "{}: {said:?}: {log}", answer.name),
    }
}

/// How many pulls and loads of a version there are, and how many of them failed.
fn keep_all(version: &str) -> (usize, usize) {
    let all: Vec<OllamaAnswer> = OllamaAnswer::all(version).into_iter().filter(OllamaAnswer::is_of_a_keeper).collect();
    for some in all.chunks(8) {
        std::thread::scope(|scope| {
            for answer in some {
                scope.spawn(move || keeps(answer));
            }
        });
    }
    (all.len(), all.iter().filter(|answer| outcome(answer).is_err()).count())
}

#[test]
fn every_recorded_pull_and_load_has_its_end() {
    assert_eq!(keep_all("v0.5.13"), (51, 26));
    assert_eq!(keep_all("v0.32.15"), (51, 26));
    assert_eq!(keep_all("v0.32.15-alias"), (7, 0));
    assert_eq!(keep_all("v0.32.15-extra"), (6, 4));
}

/// All names of one set of weights are loaded when one of them is, however it is written.
#[test]
fn recorded_aliases_are_known_as_loaded() {
    let body = |version: &str, file: &str| std::fs::read(folder("ollama").join(version).join(file)).unwrap();
    let fake = FakeOllama::new();
    let whole = |bytes: Vec<u8>| Answer::Raw { bytes, close: false };
    fake.set("/api/tags", whole(body("v0.32.15", "118-tags-several.http")));
    fake.set("/api/ps", whole(body("v0.32.15-alias", "002-ps-1.http")));
    let names = "lab-tiny,LAB-TINY:latest,registry.ollama.ai/library/lab-tiny,zeta,ns/model";
    let url = fake.url();
    let worker = Worker::start(&[("OLLAMA_URL", &url), ("MODEL", names), ("AGENT_NET_FAULT", "hurry:50")]);
    wait_for("all of them", || {
        let answer = worker.get("/gpu");
        let rows = if answer.status == 200 { answer.json()["model_keeper"].clone() } else { Value::Null };
        let rows = rows.as_array()?.clone();
        (rows.len() == 5 && rows.iter().all(|row| row["state"] == "loaded")).then_some(())
    });
    assert_eq!((fake.requests("/api/generate"), fake.requests("/api/pull")), (0, 0));
}

/// From the answer to an unload until the model is gone, as two servers listed it meanwhile.
#[test]
fn a_recorded_unload_is_followed_by_another_load() {
    for version in ["v0.5.13", "v0.32.15"] {
        let ps = |file: &str| Answer::Raw {
            bytes: std::fs::read(folder("ollama").join(version).join(format!("{file}.http"))).unwrap(),
            close: false,
        };
        let fake = FakeOllama::new();
        fake.set("/api/tags", Answer::Json(r#"{"models":[{"name":"lab-big:latest"}]}"#.into()));
        fake.set("/api/ps", ps("186-ps-bigload-1"));
        fake.set("/api/generate", Answer::Json(r#"{"done":true,"done_reason":"load"}"#.into()));
        let url = fake.url();
        let worker = Worker::start(&[("OLLAMA_URL", &url), ("MODEL", "lab-big"), ("AGENT_NET_FAULT", "hurry:50")]);
        let looked = || {
            let before = fake.requests("/api/ps");
            wait_for("more looks", || (fake.requests("/api/ps") > before + 4).then_some(()));
        };
        looked();
        assert_eq!((fake.requests("/api/generate"), fake.requests("/api/pull")), (0, 0), "{version}: {}", worker.log());
        for step in 0..8 {
            fake.set("/api/ps", ps(&format!("{}-ps-unloading-{step}", 188 + step)));
            looked();
        }
        wait_for("another load", || (fake.requests("/api/generate") > 0).then_some(()));
        assert_eq!(fake.requests("/api/pull"), 0, "{version}");
    }
}
