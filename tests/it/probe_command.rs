//! `agent-net probe`: what it asks, of which models, and how it ends.

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama};
use crate::harness::{agent_net, folder, run, wait_for};
use crate::nvml::FakeNvml;
use crate::request::Request;

/// Requests are this many times faster, and so are the answers of the fake.
pub const SPEED: u64 = 50;
pub const HURRY: (&str, &str) = ("AGENT_NET_FAULT", "hurry:50");
pub const NO_GPUS: (&str, &str) = ("NVML_LIB", "/nonexistent/libnvidia-ml.so.1");
/// Long after every recorded answer.
pub const LONG: (&str, &str) = ("PROBE_TIMEOUT", "600s");
pub const TAGS: &str = r#"{"models":[{"name":"lab:1","digest":"d"}]}"#;
pub const PS: &str = r#"{"models":[{"name":"lab:1","digest":"d","size":10,"size_vram":10,"expires_at":"2319-03-05T01:02:03Z","context_length":4096}]}"#;
pub const NO_TEXT: &str = r#"{"error":"\"lab:1\" does not support generate"}"#;
pub const RELOADED: &str = "Ollama reloaded it: its runner had died or hung, or a client uses other options";
pub const BUSY: &str = "it served another request when the probe began";

/// An Ollama with one loaded model, which answers so.
pub fn ollama(generate: Answer) -> FakeOllama {
    let fake = FakeOllama::new();
    fake.set("/api/tags", Answer::Json(TAGS.into()));
    fake.set("/api/ps", Answer::Json(PS.into()));
    fake.set("/api/generate", generate);
    fake
}

pub fn command(url: &str, args: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = agent_net();
    command.arg("probe").args(args).env("OLLAMA_URL", url).envs([NO_GPUS, HURRY, LONG]).envs(settings.iter().copied());
    command
}

/// The exit code and the probes.
#[track_caller]
pub fn probe(url: &str, args: &[&str], settings: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let (status, out, err) = run(command(url, args, settings).arg("--json"));
    let all: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
    let probes = all["probes"].as_array().unwrap_or_else(|| panic!("{all}")).clone();
    (status.code().expect("it exits"), probes)
}

/// The exit code and the only probe.
#[track_caller]
pub fn probe_one(fake: &FakeOllama, settings: &[(&str, &str)]) -> (i32, Value) {
    let (code, mut probes) = probe(&fake.url(), &["lab:1"], settings);
    assert_eq!(probes.len(), 1, "{probes:?}");
    (code, probes.remove(0))
}

/// The statistics of an answer: total and load in ns, tokens read and ns, tokens written and ns.
pub type Statistics = [u64; 6];

pub fn generated([total, load, read, prompt, written, eval]: Statistics, more: &str) -> String {
    format!(
        r#"{{"model":"lab:1","created_at":"2026-11-26T19:34:50.501286175Z","response":" 9, 10, 11","done":true,"done_reason":"length","total_duration":{total},"load_duration":{load},"prompt_eval_count":{read},"prompt_eval_duration":{prompt},"eval_count":{written},"eval_duration":{eval}{more}}}"#
    )
}

pub fn embedded(vector: &str, total: u64, load: u64) -> String {
    format!(
        r#"{{"model":"lab:1","embeddings":{vector},"total_duration":{total},"load_duration":{load},"prompt_eval_count":5}}"#
    )
}

/// The answer after the time that it reports.
pub fn after(total: u64, body: String) -> Answer {
    Answer::Late(total / SPEED / 1_000_000 + 1, Box::new(Answer::Json(body)))
}

/// A truthful answer.
pub fn good() -> Answer {
    let statistics = [26_514_739, 1_498_528, 9, 7_787_000, 16, 12_581_000];
    Answer::Json(generated(statistics, ""))
}

pub fn row(
    result: &str,
    why: Option<&str>,
    speed: Option<f64>,
    load: u64,
    queue: Option<u64>,
    tokens: Option<u64>,
) -> Value {
    json!({"model": "lab:1", "result": result, "why": why, "tokens_per_second": speed, "load_ms": load,
        "queue_ms": queue, "tokens": tokens, "gpu_utilization_percent": null})
}

pub fn unanswered(result: &str, why: &str) -> Value {
    json!({"model": "lab:1", "result": result, "why": why, "tokens_per_second": null, "load_ms": null,
        "queue_ms": null, "tokens": null, "gpu_utilization_percent": null})
}

#[test]
fn the_request_changes_nothing_for_clients() {
    let fake = ollama(good());
    assert_eq!(probe_one(&fake, &[]).0, 0);
    assert_eq!(
        fake.bodies("/api/generate"),
        [
            r#"{"model":"lab:1","prompt":"1, 2, 3, 4,","raw":true,"stream":false,"options":{"num_predict":16,"temperature":0,"seed":1,"num_ctx":4096}}"#
        ]
    );
    fake.set("/api/generate", Answer::Status(400, NO_TEXT.into()));
    fake.set("/api/embed", Answer::Json(embedded("[[0.5]]", 7_848_456, 1_424_124)));
    assert_eq!(probe_one(&fake, &[]).0, 0);
    assert_eq!(fake.bodies("/api/embed"), [r#"{"model":"lab:1","input":"1, 2, 3, 4,"}"#]);
}

#[test]
fn a_model_that_a_probe_could_load_is_skipped() {
    let tags = r#"{"models":[{"name":"lab:1","digest":"d"},{"name":"alias:1","digest":"d"},{"name":"idle:1"},{"name":"old:1","digest":"o"},{"name":"far:1","remote_host":"h"},{"name":"busy:1","digest":"b"},{"name":"new:1","digest":"n"}]}"#;
    let ps = r#"{"models":[{"name":"lab:1","digest":"d","context_length":4096},{"name":"old:1","digest":"o"},{"name":"new:1","digest":"m","context_length":4096},{"name":"busy:1","digest":"b","expires_at":"2026-01-01T00:00:00Z","context_length":512}]}"#;
    let fake = ollama(good());
    fake.set("/api/tags", Answer::Json(tags.into()));
    fake.set("/api/ps", Answer::Json(ps.into()));
    for (model, why) in [
        ("idle:1", "it is not loaded. Run `ollama run idle:1 \"\"`"),
        ("gone:1", "it is not pulled. Run `agent-net pull gone:1`"),
        ("far:1", "it runs in Ollama's cloud (h)"),
        (
            "old:1",
            "Ollama does not list its context length, so a request could reload it. Update Ollama to 0.10 or later",
        ),
        ("new:1", "other weights were pulled under its name: the next request reloads it"),
    ] {
        let (code, probes) = probe(&fake.url(), &[model], &[]);
        assert_eq!((code, &probes[0]["result"], &probes[0]["why"]), (1, &"skipped".into(), &why.into()), "{probes:?}");
    }
    // By Ollama's clock it has three seconds left.
    let expiring = ps.replace(
        r#""context_length":4096},{"name":"old:1""#,
        r#""context_length":4096,"expires_at":"2026-01-01T00:00:03Z"},{"name":"old:1""#,
    );
    assert_ne!(expiring, ps);
    let dated = format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n{expiring}",
        expiring.len()
    );
    fake.set("/api/ps", Answer::Raw { bytes: dated.into_bytes(), close: false });
    let (code, probes) = probe(&fake.url(), &["lab:1"], &[]);
    let why = "it is about to expire: a request could load it again";
    assert_eq!((code, &probes[0]["result"], &probes[0]["why"]), (1, &"skipped".into(), &why.into()), "{probes:?}");
    fake.set("/api/ps", Answer::Json(ps.into()));
    assert_eq!(fake.requests("/api/generate"), 0);
    // One that serves a client is asked all the same: the operator wants to know.
    let (code, probes) = probe(&fake.url(), &["busy:1"], &[]);
    assert_eq!((code, &probes[0]["why"]), (0, &BUSY.into()), "{probes:?}");
    assert!(fake.bodies("/api/generate")[0].contains("\"num_ctx\":512"));
    assert_eq!(probe(&fake.url(), &["alias"], &[]).0, 1);
    assert_eq!(probe(&fake.url(), &["ALIAS:1"], &[]).0, 0);
    // All of MODEL, else all that are loaded.
    let names = |settings: &[(&str, &str)]| {
        let (code, probes) = probe(&fake.url(), &[], settings);
        (code, probes.iter().map(|probe| probe["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(names(&[("MODEL", "lab:1,idle:1")]), (1, vec!["lab:1".into(), "idle:1".into()]));
    assert_eq!(names(&[]), (1, vec!["lab:1".into(), "old:1".into(), "busy:1".into(), "new:1".into()]));
    fake.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    assert_eq!(names(&[]), (1, vec![]));
    let (_, out, err) = run(&mut command(&fake.url(), &[], &[]));
    assert!(out.is_empty() && err.contains("no model is loaded, and MODEL is unset"), "{out}{err}");
}

#[test]
fn a_line_for_each_model() {
    let fake = ollama(good());
    let text = |args: &[&str]| run(&mut command(&fake.url(), args, &[]));
    let (status, out, err) = text(&["lab:1"]);
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    assert_eq!(out, "lab:1: ok: 1271.8 tokens/s, 16 tokens, load 1 ms, queue 4 ms\n");
    fake.set("/api/generate", Answer::Json(r#"{"error":"a\nb\u001b[2J"}"#.into()));
    assert_eq!(text(&["lab:1"]).1, "lab:1: failed: a b [2J\n");
    for (args, code) in [(&["a b"][..], 64), (&["lab:1", "x"], 64), (&["--x"], 64), (&["--probe-timeout", "1s"], 78)] {
        let (status, out, err) = text(args);
        assert_eq!((status.code(), out.as_str(), err.lines().count()), (Some(code), "", 1), "{args:?}: {err}");
    }
}

/// A probe beside a driver whose samples change to `after` while the model answers.
fn beside_gpus(answer: Answer, after: &str, settings: &[(&str, &str)]) -> Value {
    let nvml = FakeNvml::new("gpu0.samples=1000:90,2000:3\ngpu0.energy=1000000\ngpu0.power=60000");
    let fake = ollama(answer);
    let mut asked = command(&fake.url(), &["lab:1", "--json"], settings);
    let asked = asked.envs(nvml.settings()).stdout(Stdio::piped()).spawn().expect("agent-net starts");
    wait_for("the request", || (fake.requests("/api/generate") == 1).then_some(()));
    nvml.set(after);
    let ended = asked.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    serde_json::from_slice::<Value>(&ended.stdout).unwrap()["probes"][0].take()
}

#[test]
fn the_gpus_are_a_second_witness() {
    let answer = || Answer::Late(1500, Box::new(good()));
    let found = beside_gpus(answer(), "gpu0.samples=1000:90,2000:3,2200:87,2400:7", &[]);
    assert_eq!((&found["gpu_utilization_percent"], &found["why"]), (&json!(87), &Value::Null), "{found}");
    // A long answer during which the only GPU stays idle.
    let statistics = [610_000_000, 1_498_528, 9, 7_787_000, 16, 600_000_000];
    let answer = || Answer::Late(1500, Box::new(Answer::Json(generated(statistics, ""))));
    let idle = "gpu0.samples=1000:90,2000:3,200000:2,400000:1,650000:0\ngpu0.energy=1006000\ngpu0.power=60000";
    let found = beside_gpus(answer(), idle, &[("AGENT_NET_FAULT", "hurry:1")]);
    assert_eq!((&found["result"], &found["gpu_utilization_percent"]), (&json!("ok"), &json!(2)), "{found}");
    let why = found["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("Ollama lists it on a GPU, but no GPU worked: "), "{found}");
}

#[test]
fn an_ollama_that_is_away_is_unknown() {
    let (status, out, err) = run(&mut command("http://127.0.0.1:9", &["lab:1"], &[]));
    assert_eq!((status.code(), out.as_str()), (Some(3), ""));
    assert_eq!(
        err,
        "agent-net: cannot list Ollama's models: /api/tags: connection refused. Start Ollama, or check OLLAMA_URL.\n"
    );
    let (status, out, err) = run(command("http://127.0.0.1:9", &[], &[]).arg("--json"));
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status.code(), err.as_str(), &said["code"]), (Some(3), "", &"unreachable".into()));
}

/// It is there for the lists, and gone when the model is asked.
#[test]
fn a_refused_connection_says_nothing_about_the_model() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lists = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut reader = BufReader::new(&stream);
        for list in [TAGS, PS] {
            Request::read(&mut reader).unwrap().expect("a request");
            write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len()).unwrap();
        }
        // The connection stays until the other end closes it.
        assert!(Request::read(&mut reader).unwrap().is_none());
    });
    let (code, probes) = probe(&url, &["lab:1"], &[]);
    lists.join().unwrap();
    let why = "Ollama is not responding: connection refused. Start Ollama, or check OLLAMA_URL.";
    assert_eq!((code, &probes[0]), (1, &unanswered("skipped", why)));
}

#[test]
fn a_new_token_is_read_when_the_old_one_is_refused() {
    let file = folder("probe-token").join("token");
    fs::write(&file, "old\n").unwrap();
    let fake = ollama(good());
    fake.set_once("/api/generate", Answer::Late(500, Box::new(Answer::Status(401, "no".into()))));
    let settings = [("OLLAMA_TOKEN_FILE", file.to_str().unwrap())];
    let mut asked = command(&fake.url(), &["lab:1", "--json"], &settings);
    let asked = asked.stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the first request", || (fake.requests("/api/generate") == 1).then_some(()));
    fs::write(&file, "new\n").unwrap();
    let ended = asked.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stdout));
    assert_eq!(fake.requests("/api/generate"), 2);
}

#[test]
fn a_signal_ends_it() {
    for signal in [Signal::INT, Signal::TERM] {
        let fake = ollama(Answer::Hang);
        let asked = command(&fake.url(), &["lab:1", "--json"], &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("agent-net starts");
        wait_for("the request", || (fake.requests("/api/generate") == 1).then_some(()));
        kill_process(Pid::from_child(&asked), signal).unwrap();
        let ended = asked.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{err}");
        assert!(err.contains("agent-net: stopped. The models stay loaded"), "{err}");
    }
}
