//! GET /openapi.json: complete, and true of what the worker answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fake_ollama::{FakeOllama, MODEL};
use crate::gpus::{is_ok, start};
use crate::harness::{Worker, command, folder, skip};
use crate::http::{self, Response};
use crate::nvml::FakeNvml;
use crate::tidy::routes;

fn document(worker: &Worker) -> Value {
    let answer = worker.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// What `reference` names, with what stands beside it, if it is one.
fn resolved(document: &Value, value: &Value) -> Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("it is there").clone(),
        None => value.clone(),
    }
}

/// Objects may hold what is named, and nothing else: what the document forgets is found.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".into(), false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with a value, by a schema of the document.
#[track_caller]
fn check(document: &Value, schema: &Value, value: &Value, what: &str) {
    let mut components = document["components"]["schemas"].clone();
    close(&mut components);
    let whole = json!({ "allOf": [schema], "components": { "schemas": components } });
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    let wrong: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}\n{value:#}");
}

/// Every answer of every operation: path, method, status and the answer.
fn answers(document: &Value) -> Vec<(String, String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                all.push((path.clone(), method.clone(), status.clone(), resolved(document, answer)));
            }
        }
    }
    assert!(all.len() > 50, "{}", all.len());
    all
}

#[test]
fn it_names_every_route_with_its_method() {
    let worker = Worker::start(&[]);
    let document = document(&worker);
    assert_eq!(
        (&document["openapi"], &document["info"]["version"]),
        (&json!("3.1.0"), &json!(env!("CARGO_PKG_VERSION")))
    );
    let named: BTreeSet<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let routes = routes();
    assert_eq!(named, routes.iter().map(String::as_str).collect());
    for path in named {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let allowed = document["paths"][path][method.to_lowercase()].is_object();
            let status = http::request(worker.addr, method, path, &[], b"{}").status;
            assert_eq!(status != 405, allowed, "{method} {path}: {status}");
        }
    }
}

#[test]
fn its_examples_are_true_to_its_schemas() {
    let worker = Worker::start(&[]);
    let document = document(&worker);
    let mut checked = 0;
    for (path, method, status, answer) in answers(&document) {
        let Some(content) = answer["content"].as_object() else { continue };
        for (kind, media) in content {
            let examples = media["examples"].as_object().into_iter().flat_map(|all| all.values());
            let examples = examples.map(|example| resolved(&document, example)["value"].clone());
            for example in examples.chain(media.get("example").cloned()) {
                check(&document, &media["schema"], &example, &format!("{method} {path} {status} {kind}"));
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "{checked}");
    let job = &document["components"]["requestBodies"]["Job"]["content"]["application/json"];
    check(&document, &job["schema"], &job["example"], "a job");
}

/// An answer of the worker, by what the document says of it.
#[track_caller]
fn check_answer(document: &Value, method: &str, path: &str, answer: &Response) {
    let what = format!("{method} {path}: {}", answer.status);
    let route = path.split('?').next().expect("a path");
    let known = &document["paths"][route][method.to_lowercase()]["responses"];
    let known = known.get(answer.status.to_string()).or_else(|| known.get("default"));
    let known = resolved(document, known.unwrap_or_else(|| panic!("{what} is not in the document")));
    let kind = answer.header("content-type").expect("a kind").split(';').next().expect("a kind").to_owned();
    let media = known["content"].get(&kind).unwrap_or_else(|| panic!("{what}: {kind} is not in the document"));
    let value = if kind.ends_with("json") { answer.json() } else { Value::String(answer.text().to_owned()) };
    check(document, &media["schema"], &value, &what);
    for header in known["headers"].as_object().into_iter().flat_map(|all| all.keys()) {
        assert!(answer.header(&header.to_lowercase()).is_some(), "{what} lacks {header}");
    }
}

#[test]
fn what_the_worker_answers_is_what_it_says() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let models = format!("other:1b,{MODEL}");
    let more = [("ORCH_URL", "http://127.0.0.1:9"), ("CAPABILITY_NAME", "a"), ("MODEL", models.as_str())];
    // The model is probed within a second.
    let probes = [("PROBE_INTERVAL", "30s"), ("AGENT_NET_FAULT", "hurry:50")];
    let worker = start(&ollama, &nvml, &[&more[..], &probes].concat());
    worker.report_when("GPUs, a wanted model and a probe", |r| {
        let probed = r["models"][0]["probe"]["result"].is_string();
        r["gpu_count"] == 2 && r["model_keeper"][0]["error"].is_string() && probed
    });
    let document = document(&worker);
    let ask = |worker: &Worker, method: &str, path: &str, headers: &[&str], body: &str| {
        check_answer(&document, method, path, &http::request(worker.addr, method, path, headers, body.as_bytes()));
    };
    let everything = |worker: &Worker| {
        for body in [r#"{"agent_id":"a","x":1}"#, "{}", "junk", r#"{"agent_id":7}"#] {
            ask(worker, "POST", "/gpu-check", &[], body);
            ask(worker, "POST", "/agent-net", &[], body);
            ask(worker, "POST", "/", &[], body);
        }
        ask(worker, "POST", "/gpu-check", &[], &"x".repeat(70_000));
        ask(worker, "POST", "/gpu-check", &["Authorization: Bearer wrong"], r#"{"agent_id":"a"}"#);
        for path in document["paths"].as_object().expect("paths").keys() {
            if document["paths"][path]["get"].is_object() {
                ask(worker, "GET", path, &[], "");
            }
        }
        for path in [
            "/gpu?format=text",
            "/gpu?format=x",
            "/uptime?window=30d&step=1d",
            "/uptime?window=x",
            "/uptime?step=x",
            &format!("/ready?model={MODEL}&gpu=50"),
            "/ready?model=other:1b",
            "/ready?model=",
            "/ready?gpu=x",
        ] {
            ask(worker, "GET", path, &[], "");
        }
        ask(worker, "GET", "/metrics", &["Accept: application/openmetrics-text"], "");
    };
    everything(&worker);
    // Hot, lost, with errors of every kind, and what has been seen of them.
    nvml.set("gpus=2\ngpu0.temperature=96\ngpu0.power=err:3\ngpu0.utilization=err:999\ngpu1.handle=15");
    worker.report_when("a lost GPU", |report| report["gpu_count"] == 1);
    everything(&worker);
    // Without anything, and with a token.
    everything(&Worker::start(&[("WORKER_TOKEN", "a-token-of-its-own")]));
    let alone = Worker::start(&[]);
    alone.report_when("a verdict", |report| !is_ok(report));
    everything(&alone);
}

/// A model that is not ready is a 503, and OpenAPI cannot say that gpu needs model.
const TESTER_SETTINGS: &str = r#"
[[operations]]
include-path = "/ready"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 503]
"#;

#[test]
fn a_schema_tester_finds_nothing() {
    let Some(program) = schemathesis() else { return };
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2"));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let cases = std::env::var("AGENT_NET_CASES").unwrap_or_else(|_| "50".into());
    let mut tester = command(program);
    tester.args(["run", "--no-color", "--max-examples", &cases, "--seed", "1", "--checks", "all"]);
    tester.arg(format!("http://{}/openapi.json", worker.addr));
    // It leaves its notes where it is started, and finds its settings there.
    let folder = folder("schemathesis");
    fs::write(folder.join("schemathesis.toml"), TESTER_SETTINGS).expect("its settings can be written");
    let done = tester.current_dir(folder).output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    println!("{}", out.lines().skip_while(|line| !line.contains("SUMMARY")).collect::<Vec<_>>().join("\n"));
}

/// Where scripts/test.sh puts it, or on the PATH; None, with a line that says so, if it is missing.
fn schemathesis() -> Option<PathBuf> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.run/schemathesis/bin/schemathesis"));
    let there = [own, PathBuf::from("schemathesis")];
    let found = there.into_iter().find(|program| command(program).arg("--version").output().is_ok());
    if found.is_none() {
        skip("schemathesis is missing");
    }
    found
}
