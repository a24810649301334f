//! GET /ready?model=NAME: each condition alone, the names of a model, and what is refused.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::draining::half_a_job;
use crate::fake_ollama::{Answer, FakeOllama, MODEL, PS, TAGS, VERSION};
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, wait_for};
use crate::http::Response;
use crate::nvml::FakeNvml;
use crate::probe_command::good;

fn ask(worker: &Worker, query: &str) -> Response {
    worker.get(&format!("/ready?model={query}"))
}

/// The sentences of an answer that has what belongs to its status.
#[track_caller]
fn why(answer: &Response) -> Vec<String> {
    let body = answer.json();
    let why: Vec<String> = serde_json::from_value(body["why"].clone()).unwrap_or_else(|why| panic!("{why}: {body:#}"));
    let expect = if why.is_empty() { (200, "ready") } else { (503, "not_ready") };
    assert_eq!((answer.status, body["status"].as_str().unwrap()), expect, "{body:#}");
    assert!(body["reasons"].is_array() && body["registrations"].is_array() && body["verdict"].is_string(), "{body:#}");
    assert!(why.iter().all(|text| text.ends_with('.') && text.chars().any(char::is_whitespace)), "{why:?}");
    why
}

/// Waits until this is all that is said.
#[track_caller]
fn becomes(worker: &Worker, query: &str, expect: &[&str]) -> Value {
    // Before the first sample there is no list.
    let is = |answer: &Response| answer.json()["why"].is_array() && why(answer) == expect;
    wait_for(&format!("{expect:?}"), || Some(ask(worker, query)).filter(is)).json()
}

/// A list of loaded models: name, digest, bytes, bytes on GPUs.
fn ps(models: &[(&str, &str, Value, u64)]) -> Answer {
    let row = |(name, digest, size, vram): &(&str, &str, Value, u64)| {
        json!({"name": name, "model": name, "digest": digest, "size": size, "size_vram": vram,
            "expires_at": "2319-03-05T01:02:03.123456789Z", "context_length": 4096})
    };
    Answer::Json(json!({"models": models.iter().map(row).collect::<Vec<_>>()}).to_string())
}

fn tags(models: &[(&str, &str)]) -> Answer {
    let row = |(name, digest): &(&str, &str)| json!({"name": name, "model": name, "digest": digest, "size": 9});
    Answer::Json(json!({"models": models.iter().map(row).collect::<Vec<_>>()}).to_string())
}

/// A worker where all is well.
fn well(more: &[(&str, &str)]) -> (FakeOllama, FakeNvml, Worker) {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[&[("SAMPLE_INTERVAL", "100ms")], more].concat());
    worker.report_when("verdict ok", is_ok);
    (ollama, nvml, worker)
}

#[test]
fn each_condition_counts_alone() {
    let (mut ollama, nvml, worker) = well(&[]);
    let body = becomes(&worker, MODEL, &[]);
    let model = json!({"name": MODEL, "pulled": true, "loaded": true, "on_gpu_percent": 100, "required_gpu_percent": 100, "probe": null});
    assert_eq!(body["model"], model);

    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    let body = becomes(&worker, MODEL, &[&format!("{MODEL} is pulled, but not loaded.")]);
    assert_eq!((&body["model"]["pulled"], &body["model"]["loaded"]), (&json!(true), &json!(false)));
    ollama.set("/api/ps", Answer::Json(PS.replace(r#""size_vram":6628048896"#, r#""size_vram":0"#)));
    becomes(&worker, MODEL, &[&format!("{MODEL} runs on the CPU; 100 % on the GPU is required.")]);
    ollama.set("/api/ps", Answer::Json(PS.into()));
    becomes(&worker, MODEL, &[]);
    becomes(&worker, "llama3", &["llama3 is not pulled into Ollama."]);

    for (library, code) in [
        ("gpu0.handle=15", "GPU_LOST"),
        ("gpu0.recovery=1", "RESET_REQUIRED"),
        ("init=999\ncount=999", "NVML_INIT_UNKNOWN"),
    ] {
        nvml.set(library);
        let answer = wait_for(code, || Some(ask(&worker, MODEL)).filter(|answer| answer.text().contains(code)));
        let body = answer.json();
        let message = |reason: &Value| format!("{}.", reason["message"].as_str().unwrap());
        let unhealthy = |reason: &&Value| reason["severity"] == "unhealthy";
        let expect: Vec<String> = body["reasons"].as_array().unwrap().iter().filter(unhealthy).map(message).collect();
        assert_eq!(why(&answer), expect, "{body:#}");
        nvml.set("");
        becomes(&worker, MODEL, &[]);
    }
    // Degraded is not unhealthy.
    nvml.set("gpu0.temperature=95");
    worker.report_when("TEMP_HIGH", has("TEMP_HIGH"));
    assert_eq!(why(&ask(&worker, MODEL)), [""; 0]);

    ollama.stop();
    let answer = wait_for("an outage", || Some(ask(&worker, MODEL)).filter(|answer| answer.status == 503));
    let (body, said) = (answer.json(), why(&answer));
    assert!(said.len() == 1 && said[0].starts_with("Ollama is not responding: "), "{said:?}");
    assert_eq!((&body["model"]["pulled"], &body["model"]["loaded"]), (&Value::Null, &Value::Null), "{body:#}");
    ollama.start();
    becomes(&worker, MODEL, &[]);
}

#[test]
fn one_lost_poll_is_not_an_outage() {
    let (ollama, _nvml, worker) = well(&[]);
    for answer in [Answer::HangUp, Answer::Status(500, VERSION.into())] {
        let before = ollama.requests("/api/version");
        ollama.set_once("/api/version", answer);
        wait_for("polls after the lost one", || {
            assert_eq!(why(&ask(&worker, MODEL)), [""; 0]);
            (ollama.requests("/api/version") >= before + 3).then_some(())
        });
    }
}

#[test]
fn a_part_of_it_may_be_enough() {
    let (ollama, _nvml, worker) = well(&[]);
    let holds = |size: Value, vram| ollama.set("/api/ps", ps(&[(MODEL, "d", size, vram)]));
    let query = |percent: u8| format!("{MODEL}&gpu={percent}");
    holds(json!(1000), 600);
    let body = becomes(&worker, &query(61), &[&format!("Only 60 % of {MODEL} is on the GPU; 61 % is required.")]);
    assert_eq!((&body["model"]["on_gpu_percent"], &body["model"]["required_gpu_percent"]), (&json!(60), &json!(61)));
    assert_eq!(why(&ask(&worker, &query(60))), [""; 0]);
    // All is more than what rounds to it.
    holds(json!(1000), 999);
    becomes(&worker, MODEL, &[&format!("Only 99 % of {MODEL} is on the GPU; 100 % is required.")]);
    assert_eq!(why(&ask(&worker, &query(99))), [""; 0]);
    for size in [json!(0), Value::Null] {
        holds(size, 5);
        let body =
            becomes(&worker, &query(1), &[&format!("The share of {MODEL} on the GPU is unknown; 1 % is required.")]);
        assert_eq!(body["model"]["on_gpu_percent"], Value::Null);
        assert_eq!(why(&ask(&worker, &query(0))), [""; 0]);
    }
}

#[test]
fn a_model_has_many_names() {
    let (ollama, _nvml, worker) = well(&[]);
    ollama.set(
        "/api/tags",
        tags(&[("LLama3:latest", "a"), ("alias:1", "a"), ("hf.co/org/repo:Q4", "b"), ("idle:1", "c")]),
    );
    ollama.set("/api/ps", ps(&[("LLama3:latest", "a", json!(9), 9), ("hf.co/org/repo:Q4", "b", json!(9), 9)]));
    becomes(&worker, "hf.co%2Forg%2frepo%3AQ4", &[]);
    for name in [
        "llama3",
        "LLAMA3:LATEST",
        "registry.ollama.ai/library/llama3",
        "library%2Fllama3",
        "alias:1",
        "hf.co/org/repo:q4",
        "%6clama3&x=y",
    ] {
        assert_eq!(why(&ask(&worker, name)), [""; 0], "{name}");
    }
    for name in ["llama3:8b", "llama", "hf.co/org/repo"] {
        assert_eq!(why(&ask(&worker, name)), [format!("{name} is not pulled into Ollama.")]);
    }
    assert_eq!(why(&ask(&worker, "idle:1")), ["idle:1 is pulled, but not loaded."]);
    // Ollama lists it as if it were here.
    let cloud =
        json!({"models": [{"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443", "size": 384}]});
    ollama.set("/api/tags", Answer::Json(cloud.to_string()));
    ollama.set("/api/ps", Answer::Json(cloud.to_string()));
    let cloud = "gpt-oss:120b-cloud runs in Ollama's cloud (https://ollama.com:443), not on this machine's GPU.";
    becomes(&worker, "gpt-oss:120b-cloud&gpu=0", &[cloud]);
}

#[test]
fn bad_questions_are_refused() {
    let (_ollama, _nvml, worker) = well(&[]);
    let long = format!("model={}", "x".repeat(257));
    for query in [
        "model=",
        "model",
        "model=&model=a",
        "model=a%",
        "model=a%zz",
        "model=a%ff",
        "model=a+b",
        "model=a%00",
        "model=a:",
        "model=http://a/b",
        "model=-a",
        &long,
    ] {
        let answer = worker.get(&format!("/ready?{query}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_model"), "{query}: {answer:?}");
    }
    for query in [
        "model=a&gpu=",
        "model=a&gpu=101",
        "model=a&gpu=-1",
        "model=a&gpu=%2B1",
        "model=a&gpu=1.0",
        "model=a&gpu=%",
        "model=a&gpu=x&gpu=1",
        "gpu=50",
        "gpu=x",
    ] {
        let answer = worker.get(&format!("/ready?{query}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_gpu"), "{query}: {answer:?}");
    }
    // Of two the first counts, and what is unknown does not.
    assert_eq!(worker.get(&format!("/ready?model={MODEL}&model=&gpu=1&gpu=")).status, 200);
    let plain = worker.get("/ready?other=1").json();
    assert_eq!((&plain["status"], plain.get("why"), plain.get("model")), (&json!("ready"), None, None));
}

#[test]
fn a_worker_that_drains_or_has_just_begun_is_not_ready() {
    let (_ollama, _nvml, worker) = well(&[]);
    let stalled = half_a_job(&worker);
    worker.signal(Signal::TERM);
    let answer = wait_for("a 503", || Some(ask(&worker, MODEL)).filter(|answer| answer.status == 503));
    assert_eq!((answer.code().as_str(), ask(&worker, "a%").status), ("draining", 400), "{answer:?}");
    drop(stalled);

    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("at_init=hang"));
    ollama.set_all(&Answer::Hang);
    let worker = start(&ollama, &nvml, &[]);
    let answer = ask(&worker, MODEL);
    // On a busy machine the first sample has been given up meanwhile.
    let said = if answer.json()["code"] == "no_sample" { Vec::new() } else { why(&answer) };
    assert!(answer.status == 503 && said.iter().all(|text| text.starts_with("Ollama ")), "{answer:?}");
    becomes(&worker, MODEL, &["Ollama has not answered yet."]);
}

#[test]
fn a_list_that_cannot_be_read_is_trusted_only_if_it_was_read_before() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    ollama.set("/api/ps", Answer::Status(500, "broken".into()));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("OLLAMA_LIST_FAILED", has("OLLAMA_LIST_FAILED"));
    let said = why(&ask(&worker, MODEL));
    assert!(said.len() == 1 && said[0].starts_with("Ollama cannot list its models: "), "{said:?}");
    ollama.set("/api/ps", Answer::Json(PS.into()));
    becomes(&worker, MODEL, &[]);
    ollama.set("/api/ps", Answer::Status(500, "broken".into()));
    worker.report_when("OLLAMA_LIST_FAILED", has("OLLAMA_LIST_FAILED"));
    assert_eq!(why(&ask(&worker, MODEL)), [""; 0]);
}

/// Its runner hangs, that of the other model does not.
#[test]
fn a_model_whose_probes_hang_is_not_ready_and_others_are() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    ollama.set("/api/generate", Answer::Hang);
    ollama.set("/api/tags", tags(&[(MODEL, "a"), ("alias:1", "a"), ("other:1", "b")]));
    ollama.set("/api/ps", ps(&[(MODEL, "a", json!(9), 9), ("other:1", "b", json!(9), 9)]));
    let more = [("MODEL", MODEL), ("PROBE_INTERVAL", "30s"), ("AGENT_NET_FAULT", "hurry:50")];
    let worker = start(&ollama, &nvml, &more);
    let report = worker.report_when("MODEL_HANGS", has("MODEL_HANGS"));
    let results = |report: &Value| -> Vec<Option<Value>> {
        let models = report["models"].as_array().unwrap();
        models.iter().map(|model| model.get("probe").map(|probe| probe["result"].clone())).collect()
    };
    let hangs = Some(json!("hangs"));
    assert_eq!(results(&report), [hangs.clone(), hangs.clone(), None], "{report:#}");
    assert_eq!(results(&worker.get("/models").json()), [hangs.clone(), hangs, None]);
    let text = worker.get("/gpu?format=text").text().to_owned();
    assert!(text.contains("model0_probe_result='hangs'\n"), "{text}");
    assert_eq!(worker.get("/history").json()["models"], json!([]));

    assert_eq!(worker.get("/ready").status, 503);
    for name in [MODEL, "alias:1"] {
        let (answer, start) = (ask(&worker, name), format!("{name} did not answer "));
        let (body, said) = (answer.json(), why(&answer));
        assert!(said.len() == 1 && said[0].starts_with(&start) && said[0].contains(" probes in a row ("), "{said:?}");
        assert_eq!(body["model"]["probe"]["result"], "hangs", "{body:#}");
    }
    let body = becomes(&worker, "other:1", &[]);
    assert_eq!((&body["verdict"], &body["model"]["probe"]), (&json!("unhealthy"), &Value::Null));

    ollama.set("/api/generate", good());
    let body = becomes(&worker, MODEL, &[]);
    assert_eq!(body["model"]["probe"]["result"], "ok", "{body:#}");
    // The speeds are a curve for operators: jobs and clients that poll do not carry it.
    let history = worker.get("/history").json();
    for (row, name) in [MODEL, "alias:1"].iter().enumerate() {
        let row = &history["models"][row];
        assert_eq!((&row["model"], &row["tokens_per_second"][0]), (&json!(name), &json!(1271.8)), "{history:#}");
    }
    let sent = worker.post("/gpu-check", r#"{"agent_id":"a"}"#);
    let probe = sent.json()["models"][0]["probe"].clone();
    assert!(probe["result"] == "ok" && probe.as_object().unwrap().values().all(|value| !value.is_array()), "{probe:#}");
}

#[test]
fn the_worker_as_a_whole_is_asked_as_before() {
    let (ollama, _nvml, worker) = well(&[]);
    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    ollama.set("/api/tags", Answer::Json(TAGS.into()));
    becomes(&worker, MODEL, &[&format!("{MODEL} is pulled, but not loaded.")]);
    let answer = worker.get("/ready");
    let mut keys: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(
        (answer.status, keys),
        (200, ["reasons", "registrations", "status", "verdict"].map(str::to_owned).to_vec())
    );
}
