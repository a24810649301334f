//! GET /agents and GET /jobs: who has sent jobs, and their results.

use serde_json::{Value, json};

use crate::harness::Worker;
use crate::http::{self, Connection};
use crate::jobs::{bytes, job};

fn agents(worker: &Worker) -> Value {
    worker.get("/agents").json()
}

#[test]
fn the_last_one_to_ask_comes_first() {
    let worker = Worker::start(&[]);
    assert_eq!(agents(&worker)["agents"], json!([]));
    for id in ["a", "b\r\n\"\u{1b}[2J", "a", "日本", "b\r\n\"\u{1b}[2J"] {
        assert_eq!(worker.post("/gpu-check", &job(id)).status, 200);
    }
    // A refused job counts for no agent.
    worker.post("/gpu-check", r#"{"agent_id":""}"#);
    let answer = agents(&worker);
    let rows: Vec<(&str, u64)> = answer["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["agent_id"].as_str().unwrap(), a["jobs"].as_u64().unwrap()))
        .collect();
    assert_eq!(rows, [("b\r\n\"\u{1b}[2J", 2), ("日本", 1), ("a", 2)]);
    let first = &answer["agents"][0];
    assert!(first["first_seen"].as_f64().unwrap() <= first["last_seen"].as_f64().unwrap());
    assert_eq!((&answer["max"], &answer["forgotten"]), (&json!(1024), &json!(0)));
}

#[test]
fn the_table_is_bounded() {
    let worker = Worker::start(&[]);
    let mut connection = Connection::open(worker.addr);
    for i in 0..1100 {
        connection.send(&bytes("POST", "/gpu-check", &job(&format!("agent-{i}")))).unwrap();
        assert_eq!(connection.answer().unwrap().status, 200);
    }
    let answer = agents(&worker);
    let rows = answer["agents"].as_array().unwrap();
    assert_eq!((rows.len(), &answer["forgotten"]), (1024, &json!(76)));
    assert_eq!((&rows[0]["agent_id"], &rows[1023]["agent_id"]), (&json!("agent-1099"), &json!("agent-76")));
    assert!(!worker.get("/metrics").text().contains("agent-1099"));
}

#[test]
fn jobs_are_counted_by_route_and_result_as_in_the_metrics() {
    let worker = Worker::start(&[("CAPABILITY_CAPACITY", "3")]);
    let none = worker.get("/jobs").json();
    assert_eq!((&none["routes"], &none["duration"]["p50_seconds"]), (&json!([]), &Value::Null));
    assert_eq!((&none["in_progress"], &none["capacity"]), (&json!(0), &json!(3)));
    for (path, body, status) in [
        ("/gpu-check", job("a"), 200),
        ("/gpu-check", job("b"), 200),
        ("/gpu-check", "{}".to_owned(), 400),
        ("/gpu-check", "x".repeat(70_000), 413),
        ("/agent-net", "junk".to_owned(), 400),
    ] {
        assert_eq!(worker.post(path, &body).status, status, "{path}");
    }
    let answer = worker.get("/jobs").json();
    let row = |route, served, rejected, statuses| json!({"route": route, "served": served, "rejected": rejected, "busy": 0, "failed": 0, "statuses": statuses});
    let wanted =
        [row("/agent-net", 0, 1, json!({"400": 1})), row("/gpu-check", 2, 2, json!({"200": 2, "400": 1, "413": 1}))];
    assert_eq!(answer["routes"], json!(wanted));
    assert_eq!(answer["duration"]["count"], 5);
    let metrics = worker.get("/metrics");
    for row in answer["routes"].as_array().expect("a list") {
        for (status, count) in row["statuses"].as_object().expect("an object") {
            let series = format!("agent_net_jobs_total{{route={},code=\"{status}\"}} {count}", row["route"]);
            assert!(metrics.text().lines().any(|line| line == series), "{series}");
        }
    }
}

#[test]
fn these_routes_are_for_the_operator() {
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let token = "Authorization: Bearer s3cret";
    for (method, path) in [("GET", "/agents"), ("GET", "/jobs"), ("GET", "/metrics"), ("GET", "/uptime")] {
        let ask = |headers: &[&str]| http::request(worker.addr, method, path, headers, b"").status;
        assert_eq!((ask(&[]), ask(&[token, "Livepeer-Runner-Route: x"])), (401, 404), "{path}");
        assert_ne!(ask(&[token]), 401, "{path}");
    }
    for (method, path) in [("POST", "/agents"), ("POST", "/jobs"), ("POST", "/metrics"), ("POST", "/uptime")] {
        assert_eq!(http::request(worker.addr, method, path, &[token], b"").status, 405, "{path}");
    }
}
