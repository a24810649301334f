//! Livepeer's own Python SDK, `livepeer-gateway` 1.0.0 from PyPI, against the real worker. What stands between them is the
//! tests' orchestrator: of the real one it has what [`crate::fake_proxy`] says.
//!
//! Not run here, since they need what no worker has: `submit_training_job` (`/process/train`, which go-livepeer lacks),
//! `start_lv2v`, `start_scope` and trickle channels (video), `reserve_session` (persistent runners). Payments are made up:
//! a real ticket needs a chain.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::fake_ollama::{FakeOllama, MODEL};
use crate::fake_orchestrator::{Behavior, FakeOrchestrator, Request};
use crate::fake_proxy::FakeProxy;
use crate::fake_runners::Runners;
use crate::gpus;
use crate::harness::{Worker, command, from_env, run, wait_for};
use crate::nvml::FakeNvml;
use crate::tls;

const NAME: &str = "agent-net-nyc";
const BEAT: &str = "/runners/heartbeat";

/// A Python that has the SDK, or None, with a line that says so.
fn python() -> Option<String> {
    let python = from_env("AGENT_NET_SDK_PYTHON")?;
    assert_eq!(call(&python, "sdk_version", &json!({})).unwrap(), "1.0.0");
    Some(python)
}

/// What the SDK returns, or the type and text of what it raises.
fn call(python: &str, name: &str, arguments: &Value) -> Result<Value, (String, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sdk/calls.py");
    let mut program: Command = command(python);
    let (status, out, err) = run(program.args([script, name, &arguments.to_string()]));
    assert!(status.success(), "{name}: {out}{err}");
    let mut result: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{name}: {why}: {out}{err}"));
    println!("{name}: {result}");
    match result["error"].as_str() {
        Some(error) => Err((result["type"].as_str().expect("a type").into(), error.into())),
        None => Ok(result["ok"].take()),
    }
}

/// A worker with a GPU and a model, registered with an orchestrator in both ways.
struct Scene {
    worker: Worker,
    proxy: FakeProxy,
    orchestrator: Arc<FakeOrchestrator>,
    _ollama: FakeOllama,
    _nvml: FakeNvml,
}

impl Scene {
    fn new(protocol: &str, more: &[(&str, &str)]) -> Self {
        let orchestrator = Arc::new(FakeOrchestrator::new(Behavior::Ok));
        if protocol != "byoc" {
            orchestrator.runners(|runners| *runners = Some(Runners::new("orch-s3cret")));
        }
        let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
        let url = orchestrator.url();
        let own = [
            ("ORCH_URL", url.as_str()),
            ("ORCH_SECRET", "orch-s3cret"),
            ("ORCH_PROTOCOL", protocol),
            ("CAPABILITY_NAME", NAME),
            ("RUNNER_ID", NAME),
            ("HOSTNAME", "127.0.0.1"),
            ("AGENT_NET_FAULT", "hurry:100"),
        ];
        let worker = gpus::start(&ollama, &nvml, &[&own, more].concat());
        let proxy = FakeProxy::new(&orchestrator, NAME);
        let scene = Self { worker, proxy, orchestrator, _ollama: ollama, _nvml: nvml };
        if protocol != "live-runner" {
            wait_for("a registration", || scene.orchestrator.registered(NAME));
        }
        if protocol != "byoc" {
            wait_for("a beat with a GPU", || scene.beat().filter(|beat| beat["gpu"].is_object()));
        }
        scene
    }

    /// The worker's entry in the Live Runner registry, while it is ready.
    fn beat(&self) -> Option<Value> {
        let mut found = None;
        self.orchestrator.runners(|runners| found = runners.as_ref().and_then(|runners| runners.alive(NAME)));
        found.filter(|beat| beat["status"] == "ready")
    }
}

#[test]
fn submit_byoc_job_reaches_the_worker_by_its_name() {
    let Some(python) = python() else { return };
    let scene = Scene::new("byoc", &[]);
    let url = scene.proxy.url();
    let arguments = json!({"capability": NAME, "payload": {"agent_id": "sdk"}, "orch_url": url});
    let done = call(&python, "submit_byoc_job", &arguments).unwrap();
    assert_eq!(scene.proxy.sent(), [format!("POST /{NAME}")]);
    assert_eq!((&done["status"], &done["data"]["agent_id"], &done["url"]), (&json!(200), &json!("sdk"), &json!(url)));
    assert_eq!((&done["data"]["gpu_count"], &done["data"]["model_name"]), (&json!(1), &json!(MODEL)));
    let metadata: Value = serde_json::from_str(done["headers"]["X-Metadata"].as_str().unwrap()).unwrap();
    assert_eq!((&metadata["agent_id"], &metadata["verdict"]), (&json!("sdk"), &json!("ok")));
    // What the worker refuses comes through, and is final for the SDK.
    let arguments = json!({"capability": NAME, "payload": {}, "orch_url": url});
    let (kind, error) = call(&python, "submit_byoc_job", &arguments).unwrap_err();
    assert_eq!(kind, "LivepeerGatewayError");
    assert!(error.contains("HTTP 400") && error.contains("missing_agent_id"), "{error}");
    let arguments = json!({"capability": "unknown", "payload": {"agent_id": "sdk"}, "orch_url": url});
    let (kind, _) = call(&python, "submit_byoc_job", &arguments).unwrap_err();
    assert_eq!(kind, "NoOrchestratorAvailableError");
}

#[test]
fn every_name_that_is_accepted_is_one_that_the_sdk_reaches() {
    let Some(python) = python() else { return };
    let names = [NAME, "Org/GPU.v1", "a{b}", "a+b=c;d", "@nyc!", "gpu-check", "a/"];
    let scene = Scene::new("byoc", &[("CAPABILITY_NAME", &names.join(","))]);
    for name in names {
        wait_for("a registration", || scene.orchestrator.registered(name));
        let arguments = json!({"capability": name, "payload": {"agent_id": name}, "orch_url": scene.proxy.url()});
        let done = call(&python, "submit_byoc_job", &arguments).unwrap();
        assert_eq!(done["data"]["agent_id"], name);
    }
    assert_eq!(scene.proxy.sent()[2], "POST /a%7Bb%7D");
}

#[test]
fn submit_byoc_job_with_a_worker_token_and_without_it() {
    let Some(python) = python() else { return };
    let scene = Scene::new("byoc", &[("WORKER_TOKEN", "t0ken")]);
    let arguments = json!({"capability": NAME, "payload": {"agent_id": "sdk"}, "orch_url": scene.proxy.url()});
    assert_eq!(call(&python, "submit_byoc_job", &arguments).unwrap()["status"], 200);
    // As go-livepeer before v0.8.11 registers it. A renewal may come in between.
    wait_for("a warning", || {
        let mut registered = scene.orchestrator.registered(NAME)?;
        registered.as_object_mut().unwrap().remove("token");
        scene.orchestrator.put(NAME, registered);
        let _ = call(&python, "submit_byoc_job", &arguments);
        scene.worker.log().contains("without WORKER_TOKEN").then_some(())
    });
}

/// On chain the SDK has its job signed, asks the orchestrator's gRPC port for ticket parameters, and pays if there are any.
/// Paying itself would need a chain: this orchestrator works for nothing.
#[test]
fn a_worker_without_settings_of_its_own_is_called_in_both_ways() {
    let Some(python) = python() else { return };
    let scene = Scene::new("auto", &[]);
    let (url, discovery) = (scene.proxy.url(), format!("{}/discovery", scene.proxy.url()));
    let job = json!({"capability": NAME, "payload": {"agent_id": "byoc"}, "orch_url": url});
    assert_eq!(call(&python, "submit_byoc_job", &job).unwrap()["data"]["agent_id"], "byoc");
    let wanted = json!({"discovery_url": discovery, "app": "agent-net/gpu-check", "gpu": "Fake RTX 0"});
    let found = call(&python, "discover_runners", &wanted).unwrap();
    let runner = found[0]["runners"][0]["url"].as_str().unwrap();
    let job = json!({"runner_url": format!("{runner}/gpu-check"), "payload": {"agent_id": "runner"}});
    assert_eq!(call(&python, "call_runner", &job).unwrap()["data"]["agent_id"], "runner");
    assert_eq!(scene.proxy.sent(), [format!("POST /{NAME}"), "POST /gpu-check".to_owned()]);
}

#[test]
fn submit_byoc_job_with_a_signature() {
    let Some(python) = python() else { return };
    let scene = Scene::new("byoc", &[]);
    let grpc = json!({
        "host": scene.proxy.host(), "certificate": tls::file("orchestrator.pem"), "key": tls::file("orchestrator.key"),
    });
    let arguments = json!({
        "capability": NAME, "payload": {"agent_id": "sdk"}, "orch_url": scene.proxy.url(), "signed": true, "grpc": grpc,
    });
    let done = call(&python, "submit_byoc_job", &arguments).unwrap();
    assert_eq!(done["data"]["agent_id"], "sdk");
}

#[test]
fn list_capabilities_reads_the_workers_own_list() {
    let Some(python) = python() else { return };
    let scene = Scene::new("byoc", &[]);
    let arguments = json!({"adapter_url": format!("http://{}", scene.worker.addr)});
    let expect = json!([{"name": NAME, "model_id": MODEL, "capacity": 10}]);
    assert_eq!(call(&python, "list_capabilities", &arguments).unwrap(), expect);
}

#[test]
fn discovery_finds_the_worker_by_app_and_gpu() {
    let Some(python) = python() else { return };
    let scene = Scene::new("live-runner", &[]);
    let (url, discovery) = (scene.proxy.url(), format!("{}/discovery", scene.proxy.url()));
    let found = call(&python, "discover_orchestrators", &json!({"discovery_url": discovery})).unwrap();
    assert_eq!(found, json!([url]));
    let runners = |filter: Value| {
        let mut arguments = json!({"discovery_url": discovery});
        arguments.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
        call(&python, "discover_runners", &arguments).unwrap()
    };
    let found = runners(json!({"app": "agent-net/gpu-check", "gpu": "Fake RTX 0"}));
    assert_eq!(found[0]["runners"][0]["url"], format!("{url}/apps/{NAME}/app"));
    assert_eq!(runners(json!({"app": "other/app"})), json!([]));
    assert_eq!(runners(json!({"gpu": "NVIDIA H100"})), json!([]));
    // An orchestrator without live runners says so.
    let scene = Scene::new("byoc", &[]);
    let arguments = json!({"discovery_url": format!("{}/discovery", scene.proxy.url())});
    let (_, error) = call(&python, "discover_runners", &arguments).unwrap_err();
    assert!(error.contains("live runners are not supported"), "{error}");
}

#[test]
fn call_runner_reaches_the_worker_by_a_path_and_by_a_slash() {
    let Some(python) = python() else { return };
    let scene = Scene::new("live-runner", &[]);
    let app = format!("{}/apps/{NAME}/app", scene.proxy.url());
    for (path, sent) in
        [("/gpu-check", "POST /gpu-check"), ("/", "POST /"), (&*format!("/{NAME}"), "POST /agent-net-nyc")]
    {
        let arguments = json!({"runner_url": format!("{app}{path}"), "payload": {"agent_id": "sdk"}});
        let done = call(&python, "call_runner", &arguments).unwrap();
        assert_eq!((&done["data"]["agent_id"], &done["content_type"]), (&json!("sdk"), &json!("application/json")));
        assert_eq!(scene.proxy.sent(), [sent]);
    }
    // The URL of its entry as it is: the POST is redirected and arrives as GET, without its body. The report has no
    // agent_id then.
    let arguments = json!({"runner_url": app, "payload": {"agent_id": "sdk"}});
    let done = call(&python, "call_runner", &arguments).unwrap();
    assert_eq!((&done["data"]["gpu_count"], &done["data"]["agent_id"]), (&json!(1), &Value::Null));
    assert_eq!(scene.proxy.sent(), ["GET /"]);
    // So does the SDK's own selection, which takes the URL as it is.
    let arguments =
        json!({"orchestrators": scene.proxy.url(), "app": "agent-net/gpu-check", "body": {"agent_id": "sdk"}});
    let selected = call(&python, "select_runner", &arguments).unwrap();
    assert_eq!((&selected["found"][0]["url"], &selected["found"][0]["mode"]), (&json!(app), &json!("single-shot")));
    assert_eq!((&selected["data"]["gpu_count"], &selected["data"]["agent_id"]), (&json!(1), &Value::Null));
    // Where the redirect keeps the method, the body comes along.
    scene.proxy.redirect_with_307();
    scene.proxy.sent();
    let selected = call(&python, "select_runner", &arguments).unwrap();
    assert_eq!((&selected["data"]["agent_id"], scene.proxy.sent()), (&json!("sdk"), vec!["POST /".to_owned()]));
    // A client's own words reach no other route.
    let arguments = json!({"runner_url": format!("{app}/metrics"), "method": "GET"});
    let (_, error) = call(&python, "call_runner", &arguments).unwrap_err();
    assert!(error.contains("HTTP 404"), "{error}");
}

#[test]
fn call_runner_pays_when_it_is_asked_to() {
    let Some(python) = python() else { return };
    let scene = Scene::new("live-runner", &[("RUNNER_PRICE", "0.0005usd/fixed")]);
    scene.proxy.ask_for_payment();
    let url = format!("{}/apps/{NAME}/app/gpu-check", scene.proxy.url());
    let arguments = json!({"runner_url": url, "payload": {"agent_id": "sdk"}, "paid": true});
    let done = call(&python, "call_runner", &arguments).unwrap();
    assert_eq!((&done["data"]["agent_id"], &done["session_id"]), (&json!("sdk"), &json!("session_lsk22g32")));
    assert_eq!(scene.proxy.sent(), ["POST /gpu-check"]);
    assert!(!scene.worker.log().contains("cGF5"), "a payment is in the log");
}

/// Name and kind of each field, those of objects within as well.
fn fields(body: &Value) -> Map<String, Value> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut all = Map::new();
    for (name, value) in body.as_object().expect("an object") {
        all.insert(name.clone(), kind(value).into());
        for (inner, value) in value.as_object().into_iter().flatten() {
            all.insert(format!("{name}.{inner}"), kind(value).into());
        }
    }
    all
}

#[test]
fn heartbeats_have_the_fields_of_live_runner_registration() {
    let Some(python) = python() else { return };
    let scene = Scene::new("live-runner", &[("RUNNER_PRICE", "0.0005usd/fixed")]);
    let own = wait_for("beats", || Some(scene.orchestrator.requests(BEAT)).filter(|all| all.len() > 3));
    let card = json!({"id": "GPU-00000000-0000-0000-0000-000000000000", "name": "Fake RTX 0", "vram_mb": 24576});
    let registry = FakeOrchestrator::new(Behavior::NoByoc);
    registry.runners(|runners| *runners = Some(Runners::new("orch-s3cret")));
    let beat = scene.beat().unwrap();
    let arguments = json!({
        "orchestrator_url": registry.url(), "secret": "orch-s3cret", "runner_url": beat["runner_url"], "gpu": card,
        "app": "agent-net/gpu-check", "price": 0.0005, "unit": "fixed", "runner_id": NAME, "mode": "single-shot",
        "version": env!("CARGO_PKG_VERSION"), "metadata": beat["metadata"], "capacity": 10, "beats": 1,
    });
    let registered = call(&python, "register_runner", &arguments).unwrap();
    assert_eq!(registered["runner_id"], NAME);
    let theirs = registry.wait_for(BEAT, 1).remove(0);
    let own = own.last().unwrap();
    let (ours, sdks) = (fields(&beat), fields(&theirs.json()));
    // What differs, and why that is right.
    let differences = [
        // go-livepeer takes a number or its text. As text the operator's digits are sent as they were written.
        ("price_info.price", json!("string"), json!("number")),
        // The sessions that a persistent runner holds. go-livepeer stores them and has no use for them; a single-shot
        // runner has none.
        ("session_ids", Value::Null, json!("array")),
    ];
    let mut names: Vec<&String> = ours.keys().chain(sdks.keys()).collect();
    names.sort();
    names.dedup();
    let kind = |of: &Map<String, Value>, name: &str| of.get(name).cloned().unwrap_or_default();
    let differing = names.into_iter().filter(|name| kind(&ours, name) != kind(&sdks, name));
    let differing: Vec<_> = differing.map(|name| (name.as_str(), kind(&ours, name), kind(&sdks, name))).collect();
    assert_eq!(differing, differences);
    // The values are the same as well.
    let (mut ours, mut sdks) = (beat, theirs.json());
    for body in [&mut ours, &mut sdks] {
        body["price_info"]["price"] = Value::Null;
        body.as_object_mut().unwrap().remove("session_ids");
    }
    assert_eq!(ours, sdks);
    // And what goes with them.
    let headers = |request: &Request| {
        let content_type = request.header("content-type").unwrap_or_default();
        (request.method.clone(), content_type.split(';').next().unwrap_or_default().to_owned())
    };
    assert_eq!(headers(own), headers(&theirs));
    assert_eq!(theirs.header("authorization"), Some("orch-s3cret"));
    assert_eq!(scene.orchestrator.requests(BEAT)[0].header("authorization"), Some("orch-s3cret"));
}
