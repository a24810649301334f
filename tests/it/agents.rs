//! GET /agents: who has sent jobs.

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
    // What is refused is nobody's job.
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
fn these_routes_are_for_the_operator() {
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let token = "Authorization: Bearer s3cret";
    for (method, path) in [("GET", "/agents"), ("GET", "/metrics"), ("GET", "/uptime")] {
        let ask = |headers: &[&str]| http::request(worker.addr, method, path, headers, b"").status;
        assert_eq!((ask(&[]), ask(&[token, "Livepeer-Runner-Route: x"])), (401, 404), "{path}");
        assert_ne!(ask(&[token]), 401, "{path}");
    }
    for (method, path) in [("POST", "/agents"), ("POST", "/metrics"), ("POST", "/uptime")] {
        assert_eq!(http::request(worker.addr, method, path, &[token], b"").status, 405, "{path}");
    }
}
