//! The public port of an orchestrator as clients see it: discovery, BYOC jobs and the proxy of its Live Runners, over TLS
//! with a certificate as go-livepeer makes its own.
//!
//! Compared with recordings of go-livepeer 176aa415c, built with Go 1.25.5: which paths it redirects, how it writes the
//! paths and headers that a worker gets, its answers to each refusal, and what of a worker's answer a client gets. Like
//! go-livepeer off-chain it accepts every signature. Its 402 and what pays it is go-livepeer's in form only: no ticket is
//! looked at.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::fake_orchestrator::{FakeOrchestrator, Request, read};
use crate::harness::lock;
use crate::http::{Connection, Response};
use crate::tls;

/// Its runner's session.
const SESSION: &str = "session_lsk22g32";

struct State {
    registry: Arc<FakeOrchestrator>,
    /// The only runner that it shows.
    runner: String,
    addr: SocketAddr,
    /// It asks for payment of Live Runner jobs.
    paid: AtomicBool,
    /// The status of its redirects.
    redirect: AtomicU16,
    /// Method and path of each request to a worker.
    sent: Mutex<Vec<String>>,
}

/// Its thread ends with the test.
pub struct FakeProxy(Arc<State>);

/// An answer to a client.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string()).with("Content-Type", "application/json")
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl FakeProxy {
    /// For what is registered there, and for one Live Runner.
    pub fn new(registry: &Arc<FakeOrchestrator>, runner: &str) -> Self {
        // The SDK asks port 8935 of the same host for gRPC: each run of the tests has a host of its own.
        let pid = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 1 + pid[2] % 250, pid[3], 35);
        let listener = TcpListener::bind((host, 0)).expect("a port");
        let state = Arc::new(State {
            registry: Arc::clone(registry),
            runner: runner.into(),
            addr: listener.local_addr().expect("an address"),
            paid: AtomicBool::new(false),
            redirect: AtomicU16::new(301),
            sent: Mutex::default(),
        });
        let config = tls::server("orchestrator");
        let inner = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
                let state = Arc::clone(&inner);
                thread::spawn(move || state.serve(StreamOwned::new(connection, stream)));
            }
        });
        Self(state)
    }

    pub fn url(&self) -> String {
        self.0.url()
    }

    pub fn host(&self) -> String {
        self.0.addr.ip().to_string()
    }

    /// Live Runner jobs are answered with 402 until they carry a payment.
    pub fn ask_for_payment(&self) {
        self.0.paid.store(true, Ordering::Release);
    }

    /// It redirects with 307 and not with 301, as go-livepeer built with Go 1.27.3 does: a POST stays one.
    pub fn redirect_with_307(&self) {
        self.0.redirect.store(307, Ordering::Release);
    }

    /// Method and path of each request that went to a worker, since the last call.
    pub fn sent(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0.sent))
    }
}

impl State {
    fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// One request: each client here has a connection for each.
    fn serve<S: std::io::Read + Write>(&self, stream: S) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let request = read(&mut reader)?;
        let Answer { status, headers, body } = self.answer(&request);
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let bytes = [head.as_bytes(), b"\r\n", &body].concat();
        reader.get_mut().write_all(&bytes).ok()
    }

    /// As Go's mux cleans a path, whatever the method is.
    fn redirected(&self, to: &str) -> Answer {
        Answer::text(self.redirect.load(Ordering::Acquire), "").with("Location", to)
    }

    fn answer(&self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if path.contains("//") || path.split('/').any(|part| matches!(part, "." | "..")) {
            return self.redirected("/cleaned");
        }
        let own = format!("/apps/{}/app", self.runner);
        if path == "/process/request" || path == own {
            return self.redirected(&format!("{path}/"));
        }
        if let Some(rest) = path.strip_prefix("/process/request/") {
            return self.byoc(request, rest);
        }
        if let Some(rest) = path.strip_prefix(&own) {
            return self.app(request, rest, query);
        }
        match path {
            "/discovery" => self.discovery(),
            _ if path.starts_with("/apps/") => Answer::text(404, "runner not found\n"),
            _ => Answer::text(404, "404 page not found\n"),
        }
    }

    /// What the runner's last beat said, if jobs would be sent there.
    fn alive(&self) -> Option<Value> {
        let mut found = None;
        self.registry.runners(|runners| found = runners.as_ref().and_then(|runners| runners.alive(&self.runner)));
        found.filter(|body| body["status"] == "ready")
    }

    fn discovery(&self) -> Answer {
        let mut has_registry = false;
        self.registry.runners(|runners| has_registry = runners.as_ref().is_some_and(|runners| runners.enabled));
        if !has_registry {
            return Answer::text(404, "live runners are not supported\n");
        }
        let mut own = json!({"address": self.url()});
        if let Some(body) = self.alive() {
            let mut entry = json!({
                "url": format!("{}/apps/{}/app", self.url(), self.runner), "capacity_used": 0,
                "capacity_available": body["capacity"],
            });
            for key in ["gpu", "app", "version", "metadata", "mode", "capacity"] {
                if !body[key].is_null() {
                    entry[key] = body[key].clone();
                }
            }
            own["runners"] = json!([entry]);
        }
        Answer::json(200, &json!([own]))
    }

    /// A BYOC job, which goes to a path below the URL of the capability that its header names.
    fn byoc(&self, request: &Request, rest: &str) -> Answer {
        if request.method != "POST" {
            return Answer::text(405, "Method not allowed\n");
        }
        let header = request.header("livepeer").and_then(|value| STANDARD.decode(value).ok());
        let Some(job) = header.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
            return Answer::text(400, "Could not verify job creds\n");
        };
        if job["timeout_seconds"].as_i64().is_none_or(|seconds| seconds == 0) {
            return Answer::text(400, "no timeout_seconds set with request, timeout_seconds is required\n");
        }
        let Some(capability) = self.registry.registered(job["capability"].as_str().unwrap_or_default()) else {
            return Answer::text(503, "No capacity available for capability\n");
        };
        if serde_json::from_str::<Value>(job["request"].as_str().unwrap_or_default()).is_err() {
            return Answer::text(400, "Unable to unmarshal job request details err=unexpected end of JSON input");
        }
        let mut headers = vec![format!("Content-Length: {}", request.body.len())];
        headers.extend(capability["token"].as_str().map(|token| format!("Authorization: Bearer {token}")));
        headers.push(format!("Content-Type: {}", request.header("content-type").unwrap_or_default()));
        headers.push("Accept-Encoding: gzip".into());
        headers.push("User-Agent: Go-http-client/1.1".into());
        let url = capability["url"].as_str().expect("a URL");
        let Some(reply) = self.ask(url, "POST", &format!("/{}", written(&decoded(rest))), &headers, &request.body)
        else {
            self.registry.remove(job["capability"].as_str().unwrap_or_default());
            return Answer::text(500, "job not able to be processed, removing capability err=EOF\n");
        };
        let kept = |name: &str| reply.header(name).unwrap_or_default().to_owned();
        if reply.status == 401 {
            self.registry.remove(job["capability"].as_str().unwrap_or_default());
            return Answer::text(500, "worker auth token failed\n");
        }
        if reply.status > 399 {
            return Answer { status: reply.status, headers: Vec::new(), body: [&*reply.body, b"\n"].concat() };
        }
        let answer = Answer { status: 200, headers: Vec::new(), body: reply.body.clone() };
        answer
            .with("Content-Type", kept("content-type"))
            .with("X-Metadata", kept("x-metadata"))
            .with("Livepeer-Balance", "0")
    }

    /// A job through the proxy of the Live Runners. `rest`: what follows `/apps/ID/app`.
    fn app(&self, request: &Request, rest: &str, query: &str) -> Answer {
        let Some(runner) = self.alive() else { return Answer::text(404, "runner not found\n") };
        let url = self.url();
        if self.paid.load(Ordering::Acquire) && request.header("livepeer-payment").is_none() {
            let challenge = json!({
                "payment_params": "cGFyYW1z", "manifest_id": SESSION, "payment_url": format!("{url}/runner/payment"),
            });
            return Answer::json(402, &challenge);
        }
        const DROPPED: [&str; 5] = ["host", "connection", "keep-alive", "forwarded", "proxy-authorization"];
        let kept = request.headers.iter().filter(|(name, _)| {
            !DROPPED.contains(&name.as_str())
                && !name.starts_with("x-forwarded-")
                && !name.starts_with("livepeer-runner")
        });
        let mut headers: Vec<String> = kept.map(|(name, value)| format!("{name}: {value}")).collect();
        headers.extend([
            format!("Livepeer-Runner-Route: {}", self.runner),
            format!("Livepeer-Session-Control: {url}/runner/{}/session/{SESSION}", self.runner),
            format!("Livepeer-Session-Id: {SESSION}"),
            "Livepeer-Session-Token: 6zjqdxfkvswxmbsem5mfugljn734rqdgn3omfkx7jb4zkw2mts7a".into(),
        ]);
        let mut target = escaped_again(rest);
        if !query.is_empty() {
            let _ = write!(target, "?{query}");
        }
        let runner_url = runner["runner_url"].as_str().expect("a URL");
        match self.ask(runner_url, &request.method, &target, &headers, &request.body) {
            Some(reply) => {
                let hop_by_hop = |name: &str| matches!(name, "connection" | "content-length");
                let headers = reply.headers.iter().filter(|(name, _)| !hop_by_hop(name)).cloned().collect();
                Answer { status: reply.status, headers, body: reply.body }
            }
            None => Answer::text(502, "dial tcp: connection refused\n"),
        }
    }

    /// A worker's answer; None: the connection failed.
    fn ask(&self, url: &str, method: &str, target: &str, headers: &[String], body: &str) -> Option<Response> {
        lock(&self.sent).push(format!("{method} {target}"));
        let host = url.strip_prefix("http://")?;
        let mut worker = Connection::try_open(host.parse().ok()?).ok()?;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{}\r\n\r\n{body}", headers.join("\r\n"));
        worker.send(head.as_bytes()).ok()?;
        worker.answer().ok()
    }
}

/// Without its escapes.
fn decoded(path: &str) -> Vec<u8> {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.extend(u8::from_str_radix(&part[..2], 16).ok());
        out.extend(&part.as_bytes()[2..]);
    }
    out
}

/// As Go writes the path of a URL that it has parsed: as it is if all of it may stand there, else escaped where it must.
fn written(path: &[u8]) -> String {
    let unreserved = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(b);
    let as_it_is = path.iter().all(|b| unreserved(b) || b"!'()*[]%".contains(b));
    let write = |b: &u8| if as_it_is || unreserved(b) { char::from(*b).to_string() } else { format!("%{b:02X}") };
    path.iter().map(write).collect()
}

/// As the proxy writes a client's path: unreserved bytes and slashes without escapes, all others escaped a second time.
fn escaped_again(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).expect("an escape");
        let plain = byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
        out += &if plain { char::from(byte).to_string() } else { format!("%25{}", &part[..2]) };
        out += &part[2..];
    }
    out
}

/// The rows are the recordings: what a client asked for, and what the worker got.
#[test]
fn paths_arrive_as_real_orchestrators_send_them() {
    for (rest, sent) in [
        ("a/b/", "a/b/"),
        ("@evil", "@evil"),
        ("a%20b", "a%20b"),
        ("a%2Fb", "a/b"),
        ("a%2520b", "a%20b"),
        ("a+b", "a+b"),
        ("%C3%A9", "%C3%A9"),
        ("x%3Fy=1", "x?y=1"),
        ("", ""),
    ] {
        // A decoded ? begins a query, and the path ends before it.
        let wire = decoded(rest).split(|b| *b == b'?').map(written).collect::<Vec<_>>().join("?");
        assert_eq!(wire, sent, "{rest}");
    }
    for (rest, sent) in
        [("/a%2Db", "/a-b"), ("/a%2Fb", "/a/b"), ("/a%3Fb", "/a%253Fb"), ("/a%20b", "/a%2520b"), ("/", "/")]
    {
        assert_eq!(escaped_again(rest), sent);
    }
}
