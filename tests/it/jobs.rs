//! The routes as orchestrators, scripts and load balancers see them.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama, MODEL};
use crate::gpus;
use crate::harness::{Worker, codes, folder, verdict, wait_for};
use crate::http::{self, Connection, Response};
use crate::nvml::FakeNvml;
use crate::ollama::helper;

const ROUTES: [&str; 4] = ["/gpu", "/models", "/ready", "/health"];

pub fn job(agent_id: &str) -> String {
    json!({"agent_id": agent_id}).to_string()
}

/// A whole request, ready to send.
pub fn bytes(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: worker\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A worker beside a good Ollama, without a GPU and content with that; its first sample is there.
pub fn beside(fake: &FakeOllama, settings: &[(&str, &str)]) -> Worker {
    let url = fake.url();
    let all = [&[("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0")], settings].concat();
    let worker = Worker::start(&all);
    first_sample(&worker);
    worker
}

/// Waits for a sample in which Ollama and the helper have both been heard.
fn first_sample(worker: &Worker) {
    wait_for("the first sample of both", || {
        let token = ["Authorization: Bearer s3cret"];
        let report = http::request(worker.addr, "POST", "/gpu-check", &token, job("a").as_bytes()).json();
        let reachable = report["ollama"]["reachable"] == true;
        (reachable && !codes(&report).contains(&"NO_SAMPLE")).then_some(())
    });
}

#[test]
fn the_report_begins_with_the_seven_keys_in_their_order() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    for path in ["/gpu-check", "/agent-net"] {
        let answer = worker.post(path, &job("demo-agent"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let start = format!(
            r#"{{"status":"success","agent_id":"demo-agent","model_name":"{MODEL}","vram_usage_mb":6321,"total_models":1,"timestamp":"#
        );
        let rest = answer.text().strip_prefix(&start).unwrap_or_else(|| panic!("{}", answer.text()));
        let (timestamp, rest) = rest.split_once(',').expect("more keys");
        assert!(rest.starts_with(r#""gpu_count":1,"#), "{rest}");
        let timestamp: f64 = timestamp.parse().expect("a number");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - timestamp).abs() < 3600.0, "{timestamp} is not Unix time in seconds");

        let report = answer.json();
        assert_eq!((verdict(&report), codes(&report)), ("ok", vec![]));
        assert_eq!(report["gpus"], json!([]));
        let model = &report["models"][0];
        assert_eq!(model["name"], MODEL);
        assert_eq!((&model["size_mb"], &model["vram_mb"]), (&json!(19283), &json!(6321)));
        assert_eq!((&model["loaded"], &model["on_gpu_percent"]), (&json!(true), &json!(100)));
        assert_eq!(report["ollama"], json!({"reachable": true, "version": "0.32.4"}));
        assert_eq!((&report["source"], &report["version"]), (&json!("ollama"), &json!(env!("CARGO_PKG_VERSION"))));
        assert!(report["sample_age_ms"].is_u64() && report["uptime"]["process_seconds"].is_u64(), "{report}");
    }
}

#[test]
fn a_report_of_nothing_still_has_the_seven_keys() {
    let report = Worker::start(&[]).report();
    assert_eq!((&report["model_name"], &report["vram_usage_mb"]), (&json!(""), &json!(0)));
    assert_eq!((&report["total_models"], &report["gpu_count"]), (&json!(0), &json!(0)));
    assert_ne!(verdict(&report), "ok");
    assert!(!codes(&report).is_empty(), "{report}");
}

#[test]
fn no_agent_id_breaks_out_of_x_metadata() {
    #[track_caller]
    fn check(worker: &Worker, agent_id: &str) {
        let answer = worker.post("/gpu-check", &job(agent_id));
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.retain(|name| !matches!(*name, "date" | "server" | "connection"));
        assert_eq!(names, ["content-length", "content-type", "x-metadata"], "{answer:?}");
        let text = answer.header("x-metadata").expect("it is there");
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        assert!(text.starts_with(r#"{"capability":"gpu-check","agent_id":""#), "{text}");
        let metadata: Value = serde_json::from_str(text).expect("JSON");
        let report = answer.json();
        assert_eq!((&metadata["agent_id"], &report["agent_id"]), (&json!(agent_id), &json!(agent_id)));
        for key in ["timestamp", "source"] {
            assert_eq!(metadata[key], report[key], "{text}");
        }
        assert_eq!(metadata["verdict"], report["health"]["verdict"], "{text}");
        assert_eq!(metadata.as_object().map(|m| m.len()), Some(5), "{text}");
        let at = |key: &str| text.find(key).expect(key);
        assert!(at("\"timestamp\":") < at("\"source\":") && at("\"source\":") < at("\"verdict\":"), "{text}");
    }
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    for agent_id in
        ["demo-agent", "a\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK", "\0\u{1}\t\u{7f}\u{85}\u{2028}", "\"\\/'`${}%0d%0a"]
    {
        check(&worker, agent_id);
    }
    for agent_id in ["Ünïcödé 日本語", "😀🇩🇪👩‍👩‍👧", " ", "\u{feff}", "\u{202e}gnp.exe"] {
        check(&worker, agent_id);
    }
    check(&worker, &"a".repeat(256));
    check(&worker, &"😀".repeat(256));
    check(&worker, &"\n".repeat(256));
}

#[test]
fn get_gpu_is_the_report_without_an_agent() {
    let fake = FakeOllama::new();
    let gpus = json!([{"index": 0, "uuid": "GPU-1", "name": "NVIDIA L4", "vram_total_bytes": 24_152_899_584_u64,
        "vram_used_bytes": 7_352_614_912_u64, "temperature_c": 41, "power_mw": 63_249, "power_limit_mw": 72_000,
        "utilization_percent": 3, "gaps": {"unsupported": ["memory_utilization_percent"]}}]);
    let helper = helper("gpu-json", &gpus);
    let worker = beside(&fake, &[("NVML_HELPER", helper.to_str().unwrap()), ("EXPECTED_GPUS", "1")]);
    worker.report_when("a GPU", |r| r["gpus"][0]["temperature_c"] == 41);
    let answer = worker.get("/gpu?x=1");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("x-metadata"), None);
    let report = answer.json();
    assert_eq!((&report["status"], report.get("agent_id")), (&json!("success"), None));
    assert_eq!((verdict(&report), &report["gpu_count"], &report["source"]), ("ok", &json!(1), &json!("nvml+ollama")));
    let gpu = &report["gpus"][0];
    assert_eq!(
        (&gpu["vram_total_mb"], &gpu["vram_used_mb"], &gpu["power_w"]),
        (&json!(23034), &json!(7012), &json!(63.2))
    );
    assert_eq!(
        (&gpu["memory_utilization_percent"], &gpu["unsupported"]),
        (&Value::Null, &json!(["memory_utilization_percent"]))
    );
    assert_eq!((&gpu["verdict"], &gpu["uuid"], &gpu["power_limit_w"]), (&json!("ok"), &json!("GPU-1"), &json!(72.0)));
}

#[test]
fn the_text_form_is_safe_to_eval_whatever_things_are_called() {
    const EVIL: &str = "$(touch pwned)'x'\"`touch pwned`\"\\; touch pwned\n touch pwned\r#é";
    let fake = FakeOllama::new();
    let tags = json!({"models": [{"name": EVIL, "size": 5_000_000_000_u64}, {"name": "b", "size": 1}]});
    fake.set("/api/tags", Answer::Json(tags.to_string()));
    fake.set("/api/ps", Answer::Json(json!({"models": [{"name": EVIL, "size": 10, "size_vram": 10}]}).to_string()));
    fake.set("/api/version", Answer::Json(json!({"version": "$(touch pwned)'"}).to_string()));
    let helper = helper(
        "gpu-text",
        &json!([{"index": 0, "uuid": "GPU-$(touch pwned)'", "name": "a'$(touch pwned)", "temperature_c": 41}]),
    );
    let worker = beside(&fake, &[("NVML_HELPER", helper.to_str().unwrap())]);
    worker.report_when("a GPU", |r| r["gpus"][0]["temperature_c"] == 41);
    let answer = worker.get("/gpu?format=text");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    for line in answer.text().lines() {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?}"));
        assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{line}");
        assert!(!value.is_empty() && value != "null", "{line}");
    }
    let cwd = folder("eval");
    let shown = EVIL.replace(['\n', '\r'], " ");
    for shell in ["/bin/sh", "dash", "bash", "busybox"] {
        let applet: &[&str] = if shell == "busybox" { &["sh"] } else { &[] };
        let script =
            "eval \"$1\"; printf '%s|%s|%s|%s' \"$model0_name\" \"$gpu0_temperature_c\" \"$verdict\" \"$gpu0_name\"";
        let ran = Command::new(shell).args(applet).args(["-c", script, "x", answer.text()]).current_dir(&cwd).output();
        let Ok(ran) = ran else {
            assert_ne!(shell, "/bin/sh");
            println!("skipped: there is no {shell}");
            continue;
        };
        let expected = format!("{shown}|41|{}|a'$(touch pwned)", verdict(&worker.get("/gpu").json()));
        assert_eq!(String::from_utf8_lossy(&ran.stdout), expected, "{shell}: {ran:?}\n{}", answer.text());
        assert_eq!(String::from_utf8_lossy(&ran.stderr), "", "{shell}");
    }
    assert_eq!(std::fs::read_dir(&cwd).unwrap().count(), 0, "something was executed");
}

#[test]
fn text_or_json_is_chosen_by_query_then_by_accept() {
    #[track_caller]
    fn check(worker: &Worker, target: &str, accept: &str, text: bool) {
        let answer = http::request(worker.addr, "GET", target, &[&format!("Accept: {accept}")], b"");
        let is_text = answer.header("content-type").is_some_and(|t| t.starts_with("text/plain"));
        assert_eq!((answer.status, is_text), (200, text), "{target} {accept}: {answer:?}");
    }
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    check(&worker, "/gpu", "*/*", false);
    check(&worker, "/gpu", "text/plain", true);
    check(&worker, "/gpu?format=json", "text/plain", false);
    check(&worker, "/gpu?format=text", "application/json", true);
    check(&worker, "/gpu?a=b&format=text", "*/*", true);
    check(&worker, "/gpu", "text/html,application/xhtml+xml,*/*;q=0.8", false);
    check(&worker, "/gpu", "application/json, text/plain, */*", false);
}

#[test]
fn get_models_is_the_catalogue() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let catalogue = worker.get("/models").json();
    assert_eq!((&catalogue["status"], &catalogue["model_name"]), (&json!("success"), &json!(MODEL)));
    assert_eq!((&catalogue["vram_usage_mb"], &catalogue["total_models"]), (&json!(6321), &json!(1)));
    assert_eq!(catalogue["models"][0]["name"], MODEL);
    assert_eq!(catalogue["ollama"]["version"], "0.32.4");
}

#[test]
fn ready_says_why_not() {
    let mut fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let answer = worker.get("/ready");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ready")), "{answer:?}");
    fake.stop();
    let body = wait_for("a 503 of /ready", || {
        let answer = worker.get("/ready");
        (answer.status == 503).then(|| answer.json())
    });
    assert_eq!((&body["verdict"], &body["reasons"][0]["code"]), (&json!("unhealthy"), &json!("OLLAMA_DOWN")), "{body}");
    assert_eq!(worker.get("/health").json(), json!({"status": "ok"}));
    fake.start();
    wait_for("a 200 of /ready", || (worker.get("/ready").status == 200).then_some(()));
}

#[test]
fn before_the_first_sample_only_jobs_wait() {
    let fake = FakeOllama::new();
    fake.set_all(&Answer::Hang);
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url())]);
    assert_eq!(worker.get("/health").status, 200);
    for route in ["/gpu", "/models", "/ready"] {
        let answer = worker.get(route);
        // The first sample may have come by now, if the machine is slow.
        if answer.status == 503 && answer.json()["status"] == "error" {
            assert_eq!(answer.code(), "no_sample", "{answer:?}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        } else {
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        }
    }
    let report = worker.report();
    assert_ne!(verdict(&report), "ok", "{report}");
}

#[test]
fn head_works_where_get_does() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    for route in ROUTES {
        connection.send(format!("HEAD {route} HTTP/1.1\r\nHost: worker\r\n\r\n").as_bytes()).unwrap();
        let answer = connection.answer_to_head().unwrap_or_else(|why| panic!("{route}: {why}"));
        assert_eq!(answer.status, 200, "{route}: {answer:?}");
        let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
        assert!(length > 0, "{route}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{route}");
        // The next answer on this connection would be broken by a body.
        connection.send(&bytes("GET", "/health", "")).unwrap();
        assert_eq!(connection.answer().unwrap_or_else(|why| panic!("after HEAD {route}: {why}")).status, 200);
    }
    for (route, status) in [("/gpu-check", 405), ("/nothing", 404)] {
        connection.send(format!("HEAD {route} HTTP/1.1\r\nHost: worker\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.answer_to_head().unwrap().status, status, "{route}");
    }
}

#[test]
fn with_a_token_every_route_but_health_asks_for_it() {
    #[track_caller]
    fn check(answer: &Response) {
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{answer:?}");
        assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
        assert!(!answer.text().contains("s3cret"), "{answer:?}");
    }
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("WORKER_TOKEN", "s3cret")]);
    let wrong = [
        "X: y",
        "Authorization: Bearer s3cre",
        "Authorization: Bearer s3cret2",
        "Authorization: s3cret",
        "Authorization: Basic s3cret",
    ];
    for header in wrong {
        check(&http::request(worker.addr, "POST", "/gpu-check", &[header], job("a").as_bytes()));
        check(&http::request(worker.addr, "POST", "/agent-net", &[header], b"{"));
        for route in ["/gpu", "/gpu?format=text", "/models", "/ready"] {
            check(&http::request(worker.addr, "GET", route, &[header], b""));
        }
        assert_eq!(http::request(worker.addr, "GET", "/health", &[header], b"").status, 200);
    }
    for header in
        ["Authorization: Bearer s3cret", "authorization: bearer s3cret", "Authorization: Basic dXNlcjpzM2NyZXQ="]
    {
        assert_eq!(http::request(worker.addr, "POST", "/gpu-check", &[header], job("a").as_bytes()).status, 200);
        for route in ROUTES {
            assert_eq!(http::request(worker.addr, "GET", route, &[header], b"").status, 200, "{route}");
        }
    }
    assert!(!worker.log().contains("s3cret"));
}

#[test]
fn strangers_reach_the_job_routes_and_nothing_else() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    for header in ["Livepeer-Runner-Route: agentnet-1", "livepeer-runner-route: x", "LIVEPEER-RUNNER-ROUTE:"] {
        for path in ["/gpu-check", "/agent-net", "/"] {
            let answer = http::request(worker.addr, "POST", path, &[header], job("a").as_bytes());
            assert_eq!(answer.status, 200, "{header} {path}: {answer:?}");
        }
        for path in ["/gpu", "/gpu?format=text", "/models", "/health", "/ready", "/metrics", "/capabilities"] {
            let answer = http::request(worker.addr, "GET", path, &[header], b"");
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{header} {path}: {answer:?}");
        }
    }
}

/// As pytrickle's workers answer, which other tools of the network ask for.
#[test]
fn other_livepeer_tools_see_what_runs_here() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2\ngpu1.compute=err:3"));
    let worker = gpus::start(&ollama, &nvml, &[("CAPABILITY_NAME", "agent-net-nyc,other")]);
    worker.report_when("two GPUs and a model", |r| r["gpu_count"] == 2 && r["model_name"] == MODEL);
    let version = json!({"pipeline": "agent-net-nyc", "model_id": MODEL, "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(worker.get("/version").json(), version);
    let gpu = |index: usize, major: Option<i32>, minor: Option<i32>| {
        json!({
            "id": format!("GPU-00000000-0000-0000-0000-{index:012}"), "name": format!("Fake RTX {index}"),
            "memory_total": 24_u64 << 30, "memory_free": 17_052_u64 << 20, "major": major, "minor": minor,
        })
    };
    let gpus = json!({"0": gpu(0, Some(8), Some(9)), "1": gpu(1, None, None)});
    let hardware = json!({"pipeline": "agent-net-nyc", "model_id": MODEL, "gpu_info": gpus});
    assert_eq!(worker.get("/hardware/info").json(), hardware);
    let gpu = |index: usize, memory: Option<u32>| {
        json!({
            "id": format!("GPU-00000000-0000-0000-0000-{index:012}"), "name": format!("Fake RTX {index}"),
            "memory_total": 24_u64 << 30, "memory_free": 17_052_u64 << 20, "utilization_compute": 3,
            "utilization_memory": memory,
        })
    };
    let stats = json!({"0": gpu(0, Some(1)), "1": gpu(1, Some(1))});
    let stats = json!({"pipeline": "agent-net-nyc", "model_id": MODEL, "gpu_stats": stats});
    assert_eq!(worker.get("/hardware/stats").json(), stats);
    // Known from the start, while there is no sample yet.
    let blind = Worker::start(&[]);
    assert_eq!(blind.get("/version").json()["pipeline"], "agent-net");
}
