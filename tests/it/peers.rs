//! PEERS: what a worker knows of others, real ones and servers that are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::{Value, json};

use crate::fake_ollama::FakeOllama;
use crate::gpus::start;
use crate::harness::{Worker, run, wait_for};
use crate::nvml::FakeNvml;
use crate::page::rendered;
use crate::{http, tls};

/// A server that answers each request with these bytes; without bytes it never answers.
fn server(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut silent = Vec::new();
        for mut client in listener.incoming().flatten() {
            if answer.is_empty() {
                silent.push(client);
                continue;
            }
            let _ = client.read(&mut [0; 4096]);
            // One that closes early is a case of its own.
            let _ = client.write_all(&answer);
        }
    });
    addr
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A worker with these peers, and further settings.
fn with_peers(peers: &str, settings: &[(&str, &str)]) -> Worker {
    Worker::start(&[&[("PEERS", peers), ("AGENT_NET_FAULT", "hurry:50")], settings].concat())
}

/// The rows of GET /peers.
fn rows(worker: &Worker) -> Vec<Value> {
    let answer = worker.get("/peers").json();
    assert_eq!(answer["status"], "success", "{answer:#}");
    answer["peers"].as_array().expect("a list").clone()
}

/// The rows, once `wanted` holds.
#[track_caller]
fn rows_when(worker: &Worker, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    wait_for(what, || Some(rows(worker)).filter(|rows| wanted(rows)))
}

fn all_asked(rows: &[Value]) -> bool {
    rows.iter().all(|row| !row["reachable"].is_null())
}

#[test]
fn each_peer_is_a_row_with_what_it_reports() {
    let ollama = FakeOllama::new();
    let nvmls = ["gpus=2", "gpus=2\ngpu1.handle=15"].map(FakeNvml::new);
    let (well, lost) = (start(&ollama, &nvmls[0], &[]), start(&ollama, &nvmls[1], &[("WORKER_TOKEN", "s3cret")]));
    let peers = format!("http://{},http://:s3cret@{},http://127.0.0.1:9,http://{}/", well.addr, lost.addr, well.addr);
    let worker = with_peers(&peers, &[]);
    let rows = rows_when(&worker, "both reports", |rows| {
        rows[0]["verdict"] == "ok" && rows[1]["verdict"] == "unhealthy" && rows[2]["reachable"] == false
    });
    // One that is listed twice is one.
    assert_eq!(rows.len(), 3, "{rows:#?}");
    let (ok, bad, dead) = (&rows[0], &rows[1], &rows[2]);
    assert_eq!((&ok["peer"], &ok["url"]), (&json!(well.addr.to_string()), &json!(format!("http://{}", well.addr))));
    let report = &ok["report"];
    assert_eq!(
        (&report["gpus_usable"], &report["gpus_listed"], &report["models_loaded"]),
        (&json!(2), &json!(2), &json!(1))
    );
    assert_eq!((&report["version"], &report["reason"]), (&json!(env!("CARGO_PKG_VERSION")), &Value::Null));
    assert_eq!(bad["report"]["reason"]["code"], "GPU_LOST", "{bad:#}");
    assert_eq!(bad["report"]["gpus_usable"], 1);
    assert_eq!((&dead["verdict"], &dead["error"]), (&json!("unknown"), &json!("connection refused")));
    assert_eq!((&dead["report"], &dead["last_reached"]), (&Value::Null, &Value::Null));
    let metrics = worker.get("/metrics");
    let up =
        |peer: &str, value: u8| metrics.text().contains(&format!("agent_net_peer_up{{peer=\"{peer}\"}} {value}\n"));
    assert!(up(&well.addr.to_string(), 1) && up("127.0.0.1:9", 0), "{}", metrics.text());
    let everything = format!("{}{}{}", worker.get("/peers").text(), metrics.text(), worker.log());
    assert!(!everything.contains("s3cret"), "{everything}");
}

#[test]
fn whatever_a_server_answers_is_a_row_with_an_error() {
    let report = br#"{"health":{"verdict":"ok","reasons":[]},"gpu_count":1,"gpus":[{}],"models":[],"sample_age_ms":1}"#;
    let less = br#"{"health":{"verdict":"ok","reasons":[]}}"#;
    let long = vec![b' '; 10 << 20];
    let odd = format!(
        r#"{{"health":{{"verdict":"ok","reasons":[{{"code":"A\u001b[2J","severity":"degraded","message":"{}"}}]}},
            "gpu_count":1,"gpus":[{{}}],"models":[],"sample_age_ms":1}}"#,
        "x".repeat(4000)
    );
    let gzip = "Content-Encoding: gzip\r\n";
    let cases = [
        (server(Vec::new()), "timed out"),
        (server(b"\x16\x03\x01 garbage".to_vec()), "invalid HTTP answer"),
        (server(answer("200 OK", "Content-Type: text/html\r\n", b"<html>")), "not a report of agent-net"),
        (server(answer("200 OK", "", less)), "missing field `gpu_count`"),
        (server(answer("200 OK", "", &long)), "larger than 1 MiB"),
        (server(answer("200 OK", gzip, report)), "compressed"),
        (server(answer("401 x", "", b"")), ":WORKER_TOKEN@"),
        (server(answer("302 x", "Location: http://127.0.0.1:9/\r\n", b"")), "redirects are not followed"),
        (server(answer("503 x", "", b"{\"error\":\"no\nsample\"}")), "503: {\"error\":\"no sample\"}"),
        (server(answer("503 x", "", br#"{"error":"No sample yet.","code":"NO_SAMPLE"}"#)), "503: No sample yet."),
    ];
    let list: Vec<String> = cases.iter().map(|(addr, _)| format!("http://{addr}")).collect();
    let well = server(answer("200 OK", "", odd.as_bytes()));
    let worker = with_peers(&format!("{},http://{well}", list.join(",")), &[]);
    let rows = rows_when(&worker, "all answers", all_asked);
    for (row, (_, part)) in rows.iter().zip(&cases) {
        let error = row["error"].as_str().unwrap_or_default();
        assert!(row["verdict"] == "unknown" && error.contains(part) && error.len() < 400, "{part}: {row:#}");
    }
    // What is a report is cut and cleaned.
    let reason = &rows[10]["report"]["reason"];
    assert_eq!((&rows[10]["verdict"], &reason["code"]), (&json!("degraded"), &json!("A [2J")));
    assert_eq!(reason["message"].as_str().map(str::len), Some(300));
}

#[test]
fn a_wrong_token_is_said_and_never_shown() {
    let peer = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let worker = with_peers(&format!("http://:wr0ng@{},http://{}/below", peer.addr, peer.addr), &[]);
    let rows = rows_when(&worker, "both answers", all_asked);
    assert_eq!(rows[0]["error"], "401: the login in PEERS is not its WORKER_TOKEN");
    assert!(
        rows[1]["error"].as_str().is_some_and(|why| why.starts_with("404: ") || why.starts_with("401: ")),
        "{rows:#?}"
    );
    let everything = worker.get("/peers").text().to_owned() + worker.get("/metrics").text() + &worker.log();
    assert!(!everything.contains("wr0ng"), "{everything}");
}

#[test]
fn a_peer_that_repeats_the_login_does_not_spread_it() {
    let repeated = server(answer("403 x", "", b"forbidden: Bearer s3cret-token"));
    let report = br#"{"health":{"verdict":"degraded","reasons":[{"code":"A","severity":"degraded",
        "message":"s3cret-token"}]},"gpu_count":1,"gpus":[{}],"models":[],"sample_age_ms":1}"#;
    let reported = server(answer("200 OK", "", report));
    let worker = with_peers(&format!("http://:s3cret-token@{repeated},http://:s3cret-token@{reported}"), &[]);
    let rows = rows_when(&worker, "both answers", all_asked);
    assert_eq!(rows[0]["error"], "403: forbidden: Bearer …");
    assert_eq!(rows[1]["report"]["reason"]["message"], "…");
    wait_for("a line in the log", || worker.log().contains("forbidden").then_some(()));
    assert!(!worker.log().contains("s3cret"), "{}", worker.log());
}

/// Four peers that never answer occupy every thread once, and afterwards never more than two of them.
#[test]
fn silent_peers_delay_no_other() {
    let well = Worker::start(&[]);
    let silent: Vec<String> = (0..12).map(|_| format!("http://{}", server(Vec::new()))).collect();
    let worker = with_peers(&format!("{},http://{}", silent.join(","), well.addr), &[]);
    rows_when(&worker, "the last one", |rows| rows[12]["reachable"] == true);
    rows_when(&worker, "some failures", |rows| rows.iter().filter(|row| row["reachable"] == false).count() >= 4);
    let reached = |rows: &[Value]| rows[12]["last_reached"].as_f64().unwrap();
    let before = reached(&rows(&worker));
    let after = rows_when(&worker, "a later report", |rows| reached(rows) > before);
    assert!(after[..12].iter().all(|row| row["reachable"] != true), "{after:#?}");
}

#[test]
fn a_peer_that_is_gone_keeps_its_last_report() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.temperature=95"));
    let peer = start(&ollama, &nvml, &[]);
    let worker = with_peers(&format!("http://{}", peer.addr), &[]);
    rows_when(&worker, "a report", |rows| rows[0]["report"]["reason"]["code"] == "TEMP_HIGH");
    drop(peer);
    let rows = rows_when(&worker, "its end", |rows| rows[0]["reachable"] == false);
    assert_eq!((&rows[0]["verdict"], &rows[0]["error"]), (&json!("unknown"), &json!("connection refused")));
    assert_eq!(rows[0]["report"]["reason"]["code"], "TEMP_HIGH");
    assert!(rows[0]["last_reached"].is_f64(), "{rows:#?}");
    let age = |rows: &[Value]| rows[0]["report"]["sample_age_ms"].as_u64().unwrap();
    rows_when(&worker, "a greater age", |later| age(later) > age(&rows));
    wait_for("a line in the log", || worker.log().contains("connection refused").then_some(()));
}

#[test]
fn a_worker_may_be_its_own_peer_and_needs_none() {
    assert_eq!(rows(&Worker::start(&[])), Vec::<Value>::new());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let worker = with_peers(&format!("http://127.0.0.1:{port}"), &[("SERVER_PORT", &port)]);
    rows_when(&worker, "itself", |rows| rows[0]["reachable"] == true);
}

#[test]
fn strangers_do_not_see_the_peers() {
    let worker = with_peers("http://127.0.0.1:9", &[("WORKER_TOKEN", "s3cret")]);
    let get = |header: &str| http::request(worker.addr, "GET", "/peers", &[header], b"").status;
    assert_eq!(get("X: y"), 401);
    assert_eq!(get("Authorization: Bearer s3cret"), 200);
    assert_eq!(get("Livepeer-Runner-Route: x\r\nAuthorization: Bearer s3cret"), 404);
}

#[test]
fn a_private_ca_is_trusted_where_it_is_named() {
    let peer = Worker::start(&[]);
    let url = format!("https://{}", tls::in_front_of(peer.addr, "own"));
    let ca = format!("ca:{}", tls::file("root.pem"));
    let worker = with_peers(&url, &[("PEERS_TLS", &ca)]);
    rows_when(&worker, "a report", |rows| rows[0]["reachable"] == true);
    let worker = with_peers(&url, &[]);
    let rows = rows_when(&worker, "a refusal", all_asked);
    assert!(rows[0]["error"].as_str().is_some_and(|why| why.contains("certificate")), "{rows:#?}");
    let (status, _, err) =
        run(crate::harness::agent_net().args(["serve", "--server-port", "0"]).env("PEERS_TLS", "ca:/none"));
    assert!(status.code() == Some(78) && err.contains("PEERS_TLS=\"ca:/none\": cannot open /none"), "{err}");
}

#[test]
fn the_page_lists_the_machines_worst_first() {
    let ollama = FakeOllama::new();
    let nvmls = ["gpus=8", "gpus=2\ngpu1.handle=15", "gpu0.temperature=95", "gpu0.temperature=94"].map(FakeNvml::new);
    let mut peers: Vec<Worker> = nvmls.iter().map(|nvml| start(&ollama, nvml, &[])).collect();
    let odd = r#"{"health":{"verdict":"ok","reasons":[]},"gpu_count":1,"gpus":[],"version":"<b>9</b>","sample_age_ms":90000,
        "models":[{"loaded":true,"probe":{"tokens_per_second":31.84}}]}"#;
    let mut urls: Vec<String> = peers.iter().map(|peer| format!("http://{}", peer.addr)).collect();
    urls.push(format!("http://{}", server(answer("200 OK", "", odd.as_bytes()))));
    let settings = [("PEERS", &*urls.join(",")), ("AGENT_NET_FAULT", "hurry:50")];
    let worker = start(&ollama, &nvmls[0], &settings);
    worker.report_when("a verdict", |report| report["health"]["verdict"] == "ok");
    let verdicts =
        |rows: &[Value], wanted: [&str; 5]| rows.iter().zip(wanted).all(|(row, word)| row["verdict"] == word);
    rows_when(&worker, "all reports", |rows| verdicts(rows, ["ok", "unhealthy", "degraded", "degraded", "ok"]));
    peers.pop();
    rows_when(&worker, "an end", |rows| verdicts(rows, ["ok", "unhealthy", "degraded", "unknown", "ok"]));
    let Some(dom) = rendered(worker.addr, "peers") else { return };
    let table = dom.split("id=\"peers\"").nth(1).and_then(|rest| rest.split("</section>").next()).expect("the table");
    let parts = ["this one", "GPU_LOST: ", ">connection refused<", ">before: degraded TEMP_HIGH: ", ">TEMP_HIGH: "];
    let places = parts.map(|part| table.find(part));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {table}");
    let link = format!("<a href=\"{0}/\">{1}</a>", urls[1], peers[1].addr);
    assert!(table.contains(&link) && table.contains(">unreachable<") && table.contains("8 of 8"), "{table}");
    assert!(table.contains(r#"<td class="number">31.8</td><td>1 min ago</td>"#), "{table}");
    let hidden = r#"<section id="machines" aria-labelledby="h-machines" hidden"#;
    assert!(!dom.contains(hidden), "{dom}");
    // Without peers the section is hidden.
    let dom = rendered(peers[0].addr, "peers-none").expect("Chromium");
    assert!(dom.contains(hidden), "{dom}");
}
