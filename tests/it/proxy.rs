//! Ollama behind a proxy: logins, TLS, and what refusals and other servers' answers mean.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

use crate::fake_login::FakeLogin;
use crate::fake_ollama::{Answer, FakeOllama, Step};
use crate::harness::{Worker, agent_net, codes, folder, run, verdict, wait_for};
use crate::http;
use crate::tls::{file, in_front_of};

const BASIC: &str = "Basic dXNlcjpodW50ZXIyL0A="; // user:hunter2/@
const PASSWORD: &str = "user:hunter2%2F%40";

fn ok(worker: &Worker) {
    worker.report_when("ok", |report| verdict(report) == "ok");
}

#[test]
fn a_password_of_the_url_is_sent_and_shown_nowhere() {
    let ollama = FakeOllama::new();
    ollama.set("/api/pull", Answer::Stream(vec![Step::Line(r#"{"status":"success"}"#.into())]));
    ollama.set("/api/generate", Answer::Json(r#"{"done":true}"#.into()));
    let proxy = FakeLogin::before(ollama.addr(), BASIC);
    let url = format!("http://{PASSWORD}@{}", proxy.addr());
    let settings = [("OLLAMA_URL", url.as_str()), ("EXPECTED_GPUS", "0")];
    let model = [("MODEL", "codellama:34b-instruct-q4_k_m"), ("LOG_LEVEL", "trace"), ("MODEL_KEEP_ALIVE", "1h")];
    let worker = Worker::start(&[&settings[..], &model].concat());
    ok(&worker);
    // A login of its own does not make another one of it.
    proxy.want("Basic x");
    let report = worker.report_when("OLLAMA_DOWN", |report| codes(report).contains(&"OLLAMA_DOWN"));
    let reason = &report["health"]["reasons"][0];
    assert!(reason["message"].as_str().unwrap().contains("401: the user:password of OLLAMA_URL rejected"), "{reason}");
    let mut shown = worker.log() + &report.to_string();
    for path in ["/gpu?format=text", "/metrics", "/", "/ready", "/openapi.json", "/version"] {
        let accept = "Accept: */*";
        shown += http::request(worker.addr, "GET", path, &[accept], b"").text();
    }
    proxy.want(BASIC);
    ok(&worker);
    for args in [&["config"][..], &["config", "--json"], &["doctor"], &["check"], &["probe"], &["pull", "new:1"]] {
        let (_, out, err) = run(agent_net().args(args).envs(settings));
        shown += &format!("{args:?} {out}{err}");
    }
    for secret in ["hunter2", &BASIC[6..]] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains(&format!("OLLAMA_URL=http://***@{}", proxy.addr())), "{shown}");
    assert!(shown.contains("new:1 is pulled"), "{shown}");
    for path in ["/api/version", "/api/tags", "/api/ps", "/api/pull"] {
        let logins = proxy.logins(path);
        assert!(!logins.is_empty() && logins.iter().all(|login| login == BASIC), "{path}: {logins:?}");
    }
}

#[test]
fn a_token_is_sent_with_loads_too_and_its_file_is_read_again() {
    let ollama = FakeOllama::new();
    ollama.set("/api/ps", Answer::Json(r#"{"models":[]}"#.into()));
    ollama.set("/api/generate", Answer::Json(r#"{"done":true}"#.into()));
    let proxy = FakeLogin::before(ollama.addr(), "Bearer first");
    let token = folder("proxy-token").join("token");
    fs::write(&token, "first\n").unwrap();
    let url = format!("http://{}", proxy.addr());
    let worker = Worker::start(&[
        ("OLLAMA_URL", &url),
        ("OLLAMA_TOKEN_FILE", token.to_str().unwrap()),
        ("MODEL", "codellama:34b-instruct-q4_k_m"),
        ("AGENT_NET_FAULT", "hurry:50"),
        ("EXPECTED_GPUS", "0"),
    ]);
    wait_for("a load", || (!ollama.bodies("/api/generate").is_empty()).then_some(()));
    assert!(proxy.logins("/api/generate").iter().all(|login| login == "Bearer first"));
    fs::write(&token, "second\n").unwrap();
    proxy.want("Bearer second");
    let loads = ollama.bodies("/api/generate").len();
    wait_for("a load with the other", || (ollama.bodies("/api/generate").len() > loads).then_some(()));
    worker.report_when("an answer", |report| report["ollama"]["reachable"] == true);
    // A token that is refused and not changed is not read at each request for nothing: the request is sent once.
    proxy.want("Bearer third");
    let report = worker.report_when("OLLAMA_DOWN", |report| codes(report).contains(&"OLLAMA_DOWN"));
    assert!(report.to_string().contains("401: OLLAMA_TOKEN rejected"), "{report:#}");
    assert!(!worker.log().contains("Bearer"), "{}", worker.log());
}

/// The reason and the action of an Ollama whose proxy answers so.
#[track_caller]
fn refused(bytes: &str, why: &str, action: &str) {
    let ollama = FakeOllama::new();
    let proxy = FakeLogin::before(ollama.addr(), "");
    proxy.answer(bytes);
    let url = format!("http://{}", proxy.addr());
    let (_, out, err) = run(agent_net().args(["doctor"]).env("OLLAMA_URL", url));
    let at = out.lines().position(|line| line.contains(" ollama ")).unwrap_or_else(|| panic!("{out}{err}"));
    let lines: Vec<&str> = out.lines().skip(at).take(2).collect();
    assert!(
        lines[0].contains(why) && lines[1].to_lowercase().contains(&action.to_lowercase()),
        "{why}, {action}: {lines:#?}"
    );
}

#[test]
fn refusals_say_what_they_mean() {
    let moved = |to: &str| format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    let answer = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let gzip = "200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip";
    let nginx = "<html><center>400 Bad Request</center>The plain HTTP request was sent to HTTPS port</html>";
    for (bytes, why, action) in [
        (moved("https://ollama.example/api/version"), "Ollama is at https://ollama.example", "to that URL"),
        (moved("/login?next=/api/version"), "a redirect to http://127.0.0.1:", "OLLAMA_TOKEN"),
        (answer("401 Unauthorized", ""), "answers 401: login required", "OLLAMA_TOKEN"),
        (answer("403 Forbidden", ""), "rejects this host name", "OLLAMA_HOST=0.0.0.0"),
        (answer("403 Forbidden", "<html>403</html>"), "403 (forbidden)", "at the proxy"),
        (answer("404 Not Found", "404 page not found"), "404 to /api/version: 404 page not found", "Check OLLAMA_URL"),
        (answer("502 Bad Gateway", "<html>502</html>"), "the proxy in front of Ollama works", "Start Ollama"),
        (answer("400 Bad Request", nginx), "expects TLS", "Use https:// in OLLAMA_URL"),
        (answer("200 OK\r\nContent-Type: text/html", "<!DOCTYPE html>"), "a web page", "login page"),
        (answer(gzip, "\u{1f}"), "compressed (gzip)", "Turn compression off"),
        ("\x15\x03\x03\x00\x02\x02\x46".to_owned(), "its port expects TLS", "Use https:// in OLLAMA_URL"),
    ] {
        refused(&bytes, why, action);
    }
}

/// A gateway that lets a worker ask for the version alone.
#[test]
fn a_list_that_a_proxy_refuses_has_the_proxys_cure() {
    let ollama = FakeOllama::new();
    ollama.set("/api/ps", Answer::Status(403, "<html>403</html>".into()));
    let worker = Worker::start(&[("OLLAMA_URL", &ollama.url()), ("EXPECTED_GPUS", "0")]);
    let report = worker.report_when("OLLAMA_LIST_FAILED", |report| codes(report).contains(&"OLLAMA_LIST_FAILED"));
    let reason = &report["health"]["reasons"][0];
    assert!(reason["message"].as_str().unwrap().ends_with("/api/ps: the server at OLLAMA_URL answers 403 (forbidden)"));
    assert!(reason["action"].as_str().unwrap().contains("at the proxy in front of Ollama"), "{reason:#}");
    let (_, out, err) = run(agent_net().arg("doctor").env("OLLAMA_URL", ollama.url()));
    assert!(out.contains("at the proxy in front of Ollama") && !out.contains("Check Ollama's log"), "{out}{err}");
    // Ollama before 0.1.38 has no such list: ollama/ollama#4490.
    ollama.set("/api/ps", Answer::Status(404, "404 page not found".into()));
    let (_, out, err) = run(agent_net().arg("doctor").env("OLLAMA_URL", ollama.url()));
    assert!(out.contains("Update Ollama to 0.1.38 or later") && !out.contains("Check OLLAMA_URL"), "{out}{err}");
}

#[test]
fn pulls_say_the_same() {
    let ollama = FakeOllama::new();
    let proxy = FakeLogin::before(ollama.addr(), "");
    let url = format!("http://{}", proxy.addr());
    let head = |head: &str| format!("HTTP/1.1 {head}\r\nContent-Length: 4\r\n\r\n\u{1f}..\n");
    // Gateways refuse in JSON as well.
    let gateway = |head: &str, error: &str| {
        let body = format!(r#"{{"error":"{error}"}}"#);
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for (bytes, why) in [
        (head("302 Found\r\nLocation: https://ollama.example/api/pull"), "Set OLLAMA_URL to that URL"),
        (head("401 Unauthorized"), "401: login required"),
        (head("200 OK\r\nContent-Encoding: br"), "the answer is compressed (br)"),
        (head("200 OK\r\nContent-Type: text/html"), "a web page"),
        (head("504 Gateway Timeout"), "the proxy in front of Ollama works"),
        (gateway("401 Unauthorized", "Unauthorized"), "401: login required"),
        (gateway("404 Not Found", "no such route"), "404 to /api/pull: no such route"),
        (gateway("429 Too Many Requests", "Too Many Requests"), "Raise the proxy's request limit"),
        (gateway("400 Bad Request", "invalid model name"), "Ollama answered 400: invalid model name"),
    ] {
        proxy.answer(bytes);
        let (status, out, err) = run(agent_net().args(["pull", "m:1"]).env("OLLAMA_URL", &url));
        assert!(status.code() == Some(1) && err.contains(why), "{why}: {out}{err}");
    }
}

#[test]
fn certificates_are_judged_by_ollama_tls() {
    let ollama = FakeOllama::new();
    let proxy = FakeLogin::before(ollama.addr(), "Bearer t0ken-of-tls");
    let own = format!("ca:{}", file("root.pem"));
    let url = format!("https://{}", in_front_of(proxy.addr(), "own"));
    let settings = [("OLLAMA_URL", url.as_str()), ("OLLAMA_TOKEN", "t0ken-of-tls"), ("EXPECTED_GPUS", "0")];
    for rule in [&own, "insecure"] {
        let worker = Worker::start(&[&settings[..], &[("OLLAMA_TLS", rule)]].concat());
        ok(&worker);
        assert_eq!(worker.log().contains("OLLAMA_TLS=insecure: "), rule == "insecure", "{}", worker.log());
    }
    // The default trusts only what the world trusts, and sends nothing.
    let sent = proxy.logins("/").len();
    let worker = Worker::start(&settings);
    let report = worker.report_when("OLLAMA_DOWN", |report| codes(report).contains(&"OLLAMA_DOWN"));
    let reason = report["health"]["reasons"].to_string();
    assert!(reason.contains("certificate is not trusted") && reason.contains("OLLAMA_TLS=ca:"), "{reason}");
    assert_eq!(proxy.logins("/").len(), sent);
}

#[test]
fn tls_to_a_plain_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // As Go's server answers what is not HTTP.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request");
        }
    });
    let (_, out, err) = run(agent_net().arg("doctor").env("OLLAMA_URL", &url));
    let said = "is not responding: its port does not speak TLS";
    assert!(out.contains(said) && out.contains("Use http:// in OLLAMA_URL"), "{out}{err}");
    let ca = [("OLLAMA_TLS", "ca:/nonexistent.pem")];
    let (status, out, err) = run(agent_net().arg("serve").env("SERVER_PORT", "0").envs(ca));
    assert!(status.code() == Some(78) && err.contains("cannot open /nonexistent.pem"), "{out}{err}");
    let (_, out, _) = run(agent_net().arg("doctor").envs(ca));
    assert!(out.contains("OLLAMA_TLS: cannot open /nonexistent.pem"), "{out}");
}

#[test]
fn a_login_that_a_proxy_repeats_is_not_shown() {
    let ollama = FakeOllama::new();
    let proxy = FakeLogin::before(ollama.addr(), "");
    let body = "no access with Bearer t0ken-to-repeat";
    proxy.answer(format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let url = format!("http://{}", proxy.addr());
    let worker = Worker::start(&[("OLLAMA_URL", &url), ("OLLAMA_TOKEN", "t0ken-to-repeat")]);
    let report = worker.report_when("OLLAMA_DOWN", |report| codes(report).contains(&"OLLAMA_DOWN"));
    assert!(report.to_string().contains("no access with Bearer ***"), "{report:#}");
}
