//! The reason codes for people and programs: GET /codes, `explain`, and the links of reasons.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, agent_net, run, wait_for};
use crate::http;
use crate::nvml::FakeNvml;
use crate::{fake_ollama::FakeOllama, tidy};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";

fn names(codes: &Value) -> BTreeSet<String> {
    codes.as_array().expect("a list").iter().map(|entry| entry["code"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn they_are_json_for_programs_and_a_page_for_browsers() {
    let worker = Worker::start(&[]);
    let all: BTreeSet<String> = tidy::codes().into_iter().collect();
    let answer = worker.get("/codes");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(names(&answer.json()["codes"]), all);
    let page = http::request(worker.addr, "GET", "/codes", &[BROWSER], b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"), "{policy}");
    assert_eq!(
        (page.header("x-content-type-options"), page.header("vary")),
        (Some("nosniff"), Some("Accept, Accept-Encoding"))
    );
    for code in &all {
        assert!(page.text().contains(&format!("id=\"{code}\"")), "{code} has no anchor");
    }
    assert!(page.text().starts_with("<!doctype html>") && !page.text().contains("<script"));
    assert_eq!(http::request(worker.addr, "HEAD", "/codes", &[BROWSER], b"").status, 200);
    assert_eq!(http::request(worker.addr, "POST", "/codes", &[], b"{}").header("allow"), Some("GET, HEAD"));
    assert_eq!(http::request(worker.addr, "GET", "/codes", &["Livepeer-Runner-Route: x"], b"").status, 404);
}

#[test]
fn they_need_the_token_as_other_routes_do() {
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    assert_eq!(worker.get("/codes").status, 401);
    let asked = http::request(worker.addr, "GET", "/codes", &["Authorization: Bearer s3cret", BROWSER], b"");
    assert_eq!(asked.status, 200);
}

#[test]
fn a_reason_links_to_its_code_wherever_it_is_shown() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.temperature=95"));
    let worker = start(&ollama, &nvml, &[]);
    let report = worker.report_when("TEMP_HIGH", has("TEMP_HIGH"));
    let help = |reasons: &Value| reasons[0]["help"].as_str().map(str::to_owned);
    assert_eq!(help(&report["health"]["reasons"]), Some("/codes#TEMP_HIGH".into()));
    assert_eq!(help(&worker.get("/ready").json()["reasons"]), Some("/codes#TEMP_HIGH".into()));
    let job = http::request(worker.addr, "POST", "/gpu-check", &[], br#"{"agent_id":"a"}"#).json();
    assert_eq!(help(&job["health"]["reasons"]), Some("/codes#TEMP_HIGH".into()));
    // The message is a state, the action a sentence of its own, and the log has both in lines of their own.
    let reason = &report["health"]["reasons"][0];
    assert_eq!(reason["message"], "GPU 0: 95 °C (limit 91 °C)");
    let lines = [
        "degraded TEMP_HIGH: GPU 0: 95 °C (limit 91 °C)\n".to_owned(),
        format!("what to do about TEMP_HIGH: {}\n", reason["action"].as_str().unwrap()),
    ];
    wait_for("both log lines", || lines.iter().all(|line| worker.log().contains(line)).then_some(()));
    nvml.set("");
    worker.report_when("verdict ok", is_ok);
}

/// Kubernetes is the one place that its environment alone decides.
#[test]
fn actions_fit_where_the_worker_runs() {
    let nvml = FakeNvml::new("");
    let settings = [&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")][..], &nvml.settings()[..]].concat();
    let worker = Worker::start(&settings);
    worker.report_when("a GPU", |report| report["gpu_count"] == 1);
    nvml.set("gpu0.handle=16");
    let report = worker.report_when("RESET_REQUIRED", has("RESET_REQUIRED"));
    let reasons = report["health"]["reasons"].as_array().expect("reasons");
    let reason = reasons.iter().find(|reason| reason["code"] == "RESET_REQUIRED").expect("it is there");
    assert!(
        reason["action"].as_str().unwrap().contains("`nvidia-smi -i 00000000:01:00.0 -r` on the host"),
        "{reason:#}"
    );
    let mut doctor = agent_net();
    doctor.args(["doctor"]).envs(settings.iter().copied()).env("HOST_ROOT", crate::doctor::machine("codes-pod"));
    let (_, out, err) = run(doctor.env("SERVER_PORT", "9").env("STATE_DIR", "").env("NVML_LIB", "/nonexistent"));
    assert!(out.contains("runtimeClassName: nvidia") && !out.contains("compose/"), "{out}{err}");
}

/// Exit code, stdout and stderr of `explain`, with settings that cannot be used: it needs none.
fn explain(args: &[&str]) -> (i32, String, String) {
    let (status, out, err) = run(agent_net().arg("explain").args(args).env("SERVER_PORT", "x"));
    (status.code().expect("it exits"), out, err)
}

#[test]
fn a_name_is_explained() {
    for args in [&["TEMP_HIGH"][..], &["temp_high"]] {
        let (rc, out, err) = explain(args);
        assert_eq!((rc, err.as_str()), (0, ""));
        assert!(out.starts_with("TEMP_HIGH: reason code\n\nseverity:\n  degraded\n"), "{out}");
        assert!(out.contains("\naction:\n  Check fans") && out.lines().all(|line| line.chars().count() <= 80), "{out}");
    }
    let (rc, out, _) = explain(&["TEMP_HIGH", "--json"]);
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((rc, &json["name"], &json["kind"]), (0, &"TEMP_HIGH".into(), &"reason code".into()));
    for (args, expect) in [
        (&["GET", "/gpu"][..], "/gpu: route\n\nGET:\n"),
        (&["get /gpu"], "/gpu: route\n"),
        (&["/ready?model=NAME"], "/ready: route\n"),
        (&["vendor"], "vendor: JSON field\n\nGpu:\n  One of: nvidia, amd."),
        (&["failed"], "failed: JSON field\n\nGpu:\n  Readings that failed"),
        (&["temperature_c"], "temperature_c: reading\n"),
    ] {
        let (rc, out, err) = explain(args);
        assert!(rc == 0 && out.starts_with(expect), "{args:?}: {out}{err}");
    }
    let (rc, out, err) = explain(&["TEMP_HIHG"]);
    assert_eq!((rc, out.as_str(), err.lines().count()), (64, "", 1));
    assert!(err.contains("unknown name \"TEMP_HIHG\"; did you mean TEMP_HIGH"), "{err}");
    let (rc, out, err) = explain(&["zzzzzzzzzzzz\n"]);
    assert_eq!((rc, out.as_str(), err.lines().count()), (64, "", 1), "{err}");
    for args in [&["--jsn"][..], &["TEMP_HIGH", "NO_GPU"], &["GET", "/gpu", "/gpu"]] {
        assert_eq!(explain(args).0, 64, "{args:?}");
    }
}

#[test]
fn without_a_name_all_are_listed() {
    let all = tidy::codes();
    let (rc, out, err) = explain(&[]);
    assert_eq!((rc, err.as_str()), (0, ""));
    assert!(out.starts_with("reason codes:\n") && all.iter().all(|code| out.contains(&format!("  {code}\n"))), "{out}");
    let json: Value = serde_json::from_str(&explain(&["--json"]).1).expect("JSON");
    assert_eq!(
        (&json["kinds"][0]["kind"], json["kinds"][0]["names"].as_array().map(Vec::len)),
        (&"reason code".into(), Some(all.len()))
    );
}
