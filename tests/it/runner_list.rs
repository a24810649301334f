//! An operator's own list of runners, whose health_url asks this worker for the readiness of a model.

use serde_json::json;

use crate::fake_ollama::{Answer, FakeOllama, MODEL, PS};
use crate::fake_orchestrator::FakeOrchestrator;
use crate::fake_static_runners::StaticRunners;
use crate::gpus::{is_ok, start};
use crate::harness::wait_for;
use crate::http;
use crate::nvml::FakeNvml;
use crate::runners::with_runners;
use crate::tables::read;

const LABEL: &str = "ollama-codellama-34b";

/// An orchestrator with the example of an operator's own list, in which this replaces some addresses.
fn with_the_example(addresses: &[(&str, &str)]) -> FakeOrchestrator {
    let mut text = read("compose/runners.json");
    for (old, new) in addresses {
        assert!(text.contains(old), "{old} is not in {text}");
        text = text.replace(old, new);
    }
    let listed = StaticRunners::new(&serde_json::from_str(&text).unwrap(), true, 100).unwrap();
    let orchestrator = with_runners();
    orchestrator.runners(|runners| runners.as_mut().unwrap().listed = Some(listed));
    orchestrator
}

#[test]
fn an_app_is_hidden_while_its_model_is_not_on_the_gpu() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let own = format!("//{}/", worker.addr);
    let orchestrator = with_the_example(&[("//agent-net:9876/", &own), ("http://ollama:11434", &ollama.url())]);
    let shown =
        |is: bool| wait_for("the list to change", || (orchestrator.listed(LABEL).is_some() == is).then_some(()));
    let entry = wait_for("the app", || orchestrator.listed(LABEL));
    assert_eq!((&entry["app"], &entry["mode"]), (&json!(format!("ollama/{MODEL}")), &json!("single-shot")));
    for ps in [PS.replace(r#""size_vram":6628048896"#, r#""size_vram":6028048896"#), r#"{"models":[]}"#.into()] {
        ollama.set("/api/ps", Answer::Json(ps));
        shown(false);
        ollama.set("/api/ps", Answer::Json(PS.into()));
        shown(true);
    }
    drop(worker);
    shown(false);
}

#[test]
fn the_token_of_a_worker_fits_into_its_health_url() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[("WORKER_TOKEN", "t0ken")]);
    let bearer = ["Authorization: Bearer t0ken"];
    wait_for("a sample", || (http::request(worker.addr, "GET", "/ready", &bearer, b"").status == 200).then_some(()));
    for (login, is_shown) in [("", false), ("x:wrong@", false), ("x:t0ken@", true)] {
        let own = format!("//{login}{}/", worker.addr);
        let orchestrator = with_the_example(&[("//agent-net:9876/", &own)]);
        assert_eq!(orchestrator.listed(LABEL).is_some(), is_shown, "{login}");
    }
}
