//! Jobs by the name of their capability, as go-livepeer sends those of Livepeer's Python SDK, and what such tools ask.

use serde_json::{Value, json};

use crate::fake_ollama::{FakeOllama, MODEL};
use crate::harness::{Worker, agent_net, run, wait_for};
use crate::http;
use crate::jobs::{beside, job};

#[test]
fn every_name_is_a_job_route_and_so_is_the_root() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("CAPABILITY_NAME", "agent-net-nyc, Org/GPU.v1, a{b}, agent-net")]);
    let jobs = |route: &str, code: u16| {
        let line = format!("agent_net_jobs_total{{route=\"{route}\",code=\"{code}\"}} ");
        let metrics = worker.get("/metrics").text().to_owned();
        metrics.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |count| count.parse::<u64>().unwrap())
    };
    // As Go writes them: escaped once on the way of BYOC, twice through the proxy of Live Runner.
    for (path, route) in [
        ("/agent-net-nyc", "/agent-net-nyc"),
        ("/agent-net-nyc?x=1", "/agent-net-nyc"),
        ("/Org/GPU.v1", "/Org/GPU.v1"),
        ("/a%7Bb%7D", "/a{b}"),
        ("/a%257Bb%257D", "/a{b}"),
        ("/agent-net", "/agent-net"),
        ("/", "/"),
        ("/?x=1", "/"),
    ] {
        for headers in [&["X: y"][..], &["Livepeer-Runner-Route: x"][..]] {
            let before = jobs(route, 200);
            let answer = http::request(worker.addr, "POST", path, headers, job("sdk").as_bytes());
            assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!("sdk")), "{path}: {answer:?}");
            assert!(answer.header("x-metadata").is_some());
            assert_eq!(jobs(route, 200), before + 1, "{path}");
        }
    }
    let answer = worker.post("/agent-net-nyc", "{}");
    assert_eq!((answer.status, answer.code().as_str()), (400, "missing_agent_id"));
    assert_eq!(jobs("/agent-net-nyc", 400), 1);
    assert_eq!(worker.post("/", &"x".repeat(70_000)).status, 413);
    // Nothing else has become a route, and nothing new is counted.
    for path in ["/org/GPU.v1", "/agent-net-nyc/", "/nyc", "/Org", "/a%25257Bb%7D", "//agent-net-nyc", "/%2F"] {
        assert_eq!(worker.post(path, &job("a")).status, 404, "{path}");
    }
    assert_eq!(worker.get("/").header("content-type").map(|kind| kind.starts_with("text/html")), Some(true));
    let wrong = |method: &str, path: &str, headers: &[&str]| {
        let answer = http::request(worker.addr, method, path, headers, b"");
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        answer.header("allow").unwrap().to_owned()
    };
    assert_eq!(wrong("PUT", "/", &[]), "GET, HEAD, POST");
    assert_eq!(wrong("GET", "/agent-net-nyc", &[]), "POST");
    assert_eq!(wrong("PUT", "/", &["Livepeer-Runner-Route: x"]), "GET, HEAD, POST");
    // A POST to the runner's own URL, as go-livepeer redirects it: the report, and a job like others.
    let before = jobs("/", 200);
    let redirected = http::request(worker.addr, "GET", "/", &["Livepeer-Runner-Route: x"], b"").json();
    assert_eq!((&redirected["status"], &redirected["agent_id"]), (&json!("success"), &Value::Null));
    assert_eq!(jobs("/", 200), before + 1);
    assert_eq!(wrong("GET", "/agent-net-nyc", &["Livepeer-Runner-Route: x"]), "POST");
    let metrics = worker.get("/metrics").text().to_owned();
    let counted = metrics.lines().filter(|line| line.starts_with("agent_net_jobs_total{route=\"/org")).count();
    assert_eq!(counted, 0, "{metrics}");
}

/// go-livepeer puts the path of the URL before that of the job. A reverse proxy may take it off again.
#[test]
fn jobs_come_below_the_path_of_capability_url() {
    let fake = FakeOllama::new();
    let url = "http://127.0.0.1:9876/gpu-check";
    let worker = beside(&fake, &[("CAPABILITY_NAME", "agent-net-nyc"), ("CAPABILITY_URL", url)]);
    for path in ["/gpu-check/agent-net-nyc", "/gpu-check/gpu-check", "/gpu-check/", "/gpu-check", "/agent-net-nyc"] {
        assert_eq!(worker.post(path, &job("a")).status, 200, "{path}");
    }
    for path in ["/gpu-check/gpu", "/gpu-check/health", "/gpu-checkagent-net-nyc"] {
        assert_eq!((worker.post(path, &job("a")).status, worker.get(path).status), (404, 404), "{path}");
    }
    // go-livepeer redirects a POST to a runner's own URL, and it arrives as GET.
    let redirected = |path| http::request(worker.addr, "GET", path, &["Livepeer-Runner-Route: nyc"], b"").status;
    wait_for("a sample", || (worker.get("/gpu").status == 200).then_some(()));
    assert_eq!((redirected("/gpu-check/"), redirected("/"), worker.get("/gpu-check/").status), (200, 200, 405));
}

#[test]
fn a_name_that_no_job_could_reach_is_refused_at_the_start() {
    for (name, words) in [
        ("metrics", "its jobs would arrive at /metrics, another route"),
        ("good,hardware/stats", "CAPABILITY_NAME=\"hardware/stats\": its jobs would arrive at /hardware/stats"),
        ("capabilities", "another route of this worker"),
        ("openapi.json", "another route of this worker"),
        ("a%41", "?, # or %"),
        ("a/../b", "between slashes"),
    ] {
        let (status, _, err) = run(agent_net().arg("serve").env("CAPABILITY_NAME", name));
        assert_eq!((status.code(), err.contains(words)), (Some(78), true), "{name}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn capabilities_are_listed_as_the_sdk_reads_them() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("CAPABILITY_NAME", "agent-net-nyc,other"), ("CAPABILITY_CAPACITY", "3")]);
    let row = |name: &str, model: Value| json!({"name": name, "model_id": model, "capacity": 3});
    let expect = json!({"capabilities": [row("agent-net-nyc", json!(MODEL)), row("other", json!(MODEL))]});
    wait_for("the model", || (worker.get("/capabilities").json() == expect).then_some(()));
    // Without Ollama the model is unknown; without a name there is none.
    let blind = Worker::start(&[("CAPABILITY_NAME", "a"), ("CAPABILITY_CAPACITY", "3")]);
    assert_eq!(blind.get("/capabilities").json(), json!({"capabilities": [row("a", Value::Null)]}));
    assert_eq!(Worker::start(&[]).get("/capabilities").json(), json!({"capabilities": []}));
}

#[test]
fn jobs_without_the_token_warn_once() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("CAPABILITY_NAME", "agent-net-nyc"), ("WORKER_TOKEN", "s3cret")]);
    let warnings = || worker.log().matches("without WORKER_TOKEN").count();
    // A wrong token, or another route, does not point to an old orchestrator.
    assert_eq!(worker.get("/gpu").status, 401);
    let wrong = ["Authorization: Bearer other"];
    assert_eq!(http::request(worker.addr, "POST", "/gpu-check", &wrong, job("a").as_bytes()).status, 401);
    let before = warnings();
    for path in ["/agent-net-nyc", "/", "/gpu-check", "/agent-net"] {
        for _ in 0..5 {
            assert_eq!(worker.post(path, &job("a")).status, 401);
        }
    }
    wait_for("a warning", || (warnings() > before).then_some(()));
    let (_, log) = worker.stop();
    assert_eq!((before, log.matches("without WORKER_TOKEN").count()), (0, 1), "{log}");
    let line = log.lines().find(|line| line.contains("without WORKER_TOKEN")).unwrap();
    assert!(line.contains("WARN") && line.contains("v0.8.11") && line.contains("unset WORKER_TOKEN"), "{line}");
}
