//! What go-livepeer and Ollama really sent, played byte for byte. The folder's README says where it comes from.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fake_ollama::{Answer, FakeOllama, VERSION};
use crate::harness::{Worker, wait_for};
use crate::http::{Connection, Response};

const JOB: &str = r#"{"agent_id":"demo-agent"}"#;

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/recordings").join(name)
}

/// Files below `folder` whose name ends like this, sorted, as text that keeps every byte.
fn files(folder: &Path, ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("the folder is there").map(|e| e.unwrap().path()).collect();
    paths.sort();
    let wanted = paths.into_iter().filter(|p| p.to_string_lossy().ends_with(ending));
    wanted.map(|p| (p.to_string_lossy().into_owned(), std::fs::read(&p).expect("readable"))).collect()
}

pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|w| w == part)
}

/// One recorded request.
struct Recorded {
    /// Request line and headers without the empty line.
    head: String,
    body: Vec<u8>,
}

impl Recorded {
    /// The requests of one file; a cut body is filled up to its announced length.
    fn all(bytes: &[u8]) -> Vec<Self> {
        let mut left = bytes;
        let mut all = Vec::new();
        while !left.is_empty() {
            let separator = b"\n=====next request=====\n";
            let (one, rest) = find(left, separator)
                .map_or((left, &left[left.len()..]), |at| (&left[..at], &left[at + separator.len()..]));
            all.push(Self::one(one));
            left = rest;
        }
        all
    }

    fn one(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("the head is text");
        let mut recorded = Self { head, body: bytes[end + 4..].to_vec() };
        if let Some(cut) = find(&recorded.body, b"\n<<cut here: total ") {
            recorded.body.truncate(cut);
            let announced = recorded.header("content-length").expect("cut bodies have a length").parse().unwrap();
            recorded.body.resize(announced, b'A');
        }
        recorded
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    fn path(&self) -> &str {
        self.head.split(' ').nth(1).and_then(|target| target.split('?').next()).expect("a target")
    }

    fn is_job(&self) -> bool {
        self.method() == "POST" && matches!(self.path(), "/gpu-check" | "/agent-net" | "/")
    }

    /// A job to the runner's own URL that was redirected: its body is lost.
    fn is_redirected(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD") && self.path() == "/" && self.header("livepeer-runner-route").is_some()
    }

    /// Status and code that the contract asks for: 404, then 405, then 413, then 400.
    fn expected(&self) -> (u16, &'static str) {
        if !matches!(self.path(), "/gpu-check" | "/agent-net" | "/") {
            return (404, "not_found");
        }
        match (self.method(), &self.body) {
            ("POST", body) if body.len() > 64 * 1024 => (413, "body_too_large"),
            ("POST", body) if find(body, b"\"q\":1").is_some() => (400, "missing_agent_id"),
            ("POST", _) => (400, "bad_json"),
            _ => (405, "method_not_allowed"),
        }
    }

    /// The same head with another body, framed as this one was.
    fn with_body(&self, body: &str) -> Vec<u8> {
        let chunked = self.header("transfer-encoding").is_some();
        let lines = self.head.split("\r\n").map(|line| match line.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("content-length") => format!("{name}: {}", body.len()),
            _ => line.to_owned(),
        });
        let head = lines.collect::<Vec<_>>().join("\r\n");
        let (first, second) = body.split_at(body.len() / 2);
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let body = if chunked { chunk(first) + &chunk(second) + "0\r\n\r\n" } else { body.to_owned() };
        format!("{head}\r\n\r\n{body}").into_bytes()
    }
}

/// All recorded requests, each with the name of its file.
fn recorded(kind: &str) -> Vec<(String, Recorded)> {
    let files = files(&folder("orchestrator").join(kind), ".worker_in");
    files
        .into_iter()
        .flat_map(|(name, bytes)| Recorded::all(&bytes).into_iter().map(move |r| (name.clone(), r)))
        .collect()
}

/// Sends one request on a connection of its own, as its sender did.
#[track_caller]
fn play(worker: &Worker, name: &str, method: &str, bytes: &[u8]) -> Response {
    let mut connection = Connection::open(worker.addr);
    connection.send(bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
    let answer = if method == "HEAD" { connection.answer_to_head() } else { connection.answer() };
    let answer = answer.unwrap_or_else(|why| panic!("{name}: {why}"));
    let _ = connection.stream().shutdown(Shutdown::Both);
    answer
}

fn still_works(worker: &Worker, name: &str) {
    let answer = worker.post("/gpu-check", JOB);
    assert_eq!(answer.status, 200, "after {name}: {answer:?}");
}

/// Plays one kind; how many files, requests and jobs there were.
fn play_all(kind: &str) -> (usize, usize, usize) {
    let worker = Worker::start(&[]);
    let all = recorded(kind);
    let mut names: Vec<&str> = Vec::new();
    let mut jobs = 0;
    for (name, request) in &all {
        names.push(name);
        let bytes = [request.head.as_bytes(), b"\r\n\r\n", &request.body].concat();
        let answer = play(&worker, name, request.method(), &bytes);
        if name.ends_with("static-health-probe.worker_in") || request.is_redirected() {
            // The former is the one request of an orchestrator itself, not of a stranger: without Livepeer-Runner-Route.
            assert!(matches!(answer.status, 200 | 503), "{name}: {answer:?}");
        } else {
            let (status, code) = request.expected();
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            if request.method() != "HEAD" {
                assert_eq!(answer.code(), code, "{name}: {answer:?}");
            }
            let allowed = if request.path() == "/" { "GET, HEAD, POST" } else { "POST" };
            assert_eq!(answer.header("allow"), (status == 405).then_some(allowed), "{name}: {answer:?}");
        }
        still_works(&worker, name);
        if request.is_job() {
            jobs += 1;
            let answer = play(&worker, name, "POST", &request.with_body(JOB));
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(answer.json()["agent_id"], "demo-agent", "{name}");
            assert!(answer.header("x-metadata").is_some(), "{name}: {answer:?}");
        }
    }
    names.dedup();
    (names.len(), all.len(), jobs)
}

#[test]
fn every_request_of_a_byoc_orchestrator_gets_its_answer() {
    assert_eq!(play_all("byoc"), (81, 86, 67));
}

#[test]
fn every_request_of_a_live_runner_orchestrator_gets_its_answer() {
    assert_eq!(play_all("live"), (78, 78, 44));
}

/// One recorded answer of an Ollama.
pub struct OllamaAnswer {
    pub name: String,
    method: String,
    pub path: String,
    pub bytes: Vec<u8>,
}

impl OllamaAnswer {
    /// Those of one version.
    pub fn all(version: &str) -> Vec<Self> {
        let requests = files(&folder("ollama").join(version), ".req");
        let one = |(name, request): (String, Vec<u8>)| {
            let request = String::from_utf8_lossy(&request).into_owned();
            let mut words = request.split_whitespace().map(str::to_owned);
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let bytes = std::fs::read(name.replace(".req", ".http")).expect("an answer for each request");
            Self { name, method, path, bytes }
        };
        requests.into_iter().map(one).collect()
    }

    pub fn is_of_a_keeper(&self) -> bool {
        matches!(self.path.as_str(), "/api/pull" | "/api/generate" | "/api/embed") && self.method == "POST"
    }

    /// The body of a whole 200, without its framing.
    fn body(&self) -> Option<Value> {
        let end = find(&self.bytes, b"\r\n\r\n")?;
        let (head, body) = (String::from_utf8_lossy(&self.bytes[..end]), &self.bytes[end + 4..]);
        if !head.starts_with("HTTP/1.1 200 ") || self.method == "HEAD" {
            return None;
        }
        let body = if head.contains("Transfer-Encoding: chunked") { dechunk(body) } else { body.to_vec() };
        Some(serde_json::from_slice(&body).unwrap_or_else(|why| panic!("{}: {why}", self.name)))
    }
}

pub fn dechunk(mut left: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = find(left, b"\r\n").expect("a size");
        let size = usize::from_str_radix(std::str::from_utf8(&left[..end]).unwrap(), 16).expect("a size");
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&left[end + 2..end + 2 + size]);
        left = &left[end + 2 + size + 2..];
    }
}

/// Waits until an answer that was set before this call has been asked for and taken in.
fn taken_in(fake: &FakeOllama, path: &str) {
    let before = fake.requests(path);
    wait_for("two more polls of Ollama", || (fake.requests(path) >= before + 2).then_some(()));
}

/// Replays one version's answers; how many of them were good, by path.
fn replay(version: &str) -> BTreeMap<String, usize> {
    let fake = FakeOllama::new();
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("SAMPLE_INTERVAL", "100ms")]);
    let mut good = BTreeMap::new();
    for answer in OllamaAnswer::all(version).into_iter().filter(|answer| !answer.is_of_a_keeper()) {
        let name = &answer.name;
        // An Ollama that was away is read again, pulled models included.
        fake.set("/api/version", Answer::HangUp);
        wait_for(&format!("the outage before {name}"), || {
            let models = worker.get("/models");
            // 503: there is no first sample yet.
            (models.status == 200 && models.json()["ollama"]["reachable"] == false).then_some(())
        });
        for list in ["/api/tags", "/api/ps"] {
            fake.set(list, Answer::Json(r#"{"models":[]}"#.into()));
        }
        let body = answer.body();
        // What was no answer to a GET is followed by the end: it may announce a body that a GET would have had.
        let recorded = Answer::Raw { bytes: answer.bytes.clone(), close: body.is_none() };
        fake.set(&answer.path, recorded);
        if answer.path != "/api/version" {
            fake.set("/api/version", Answer::Json(VERSION.into()));
        }
        match body {
            Some(body) => {
                *good.entry(answer.path.clone()).or_default() += 1;
                shows(&worker, &answer, &body);
            }
            None => {
                taken_in(&fake, &answer.path);
                assert_eq!(worker.report()["models"], serde_json::json!([]), "{name}");
            }
        }
    }
    good
}

/// Waits until GET /models shows what this body says.
fn shows(worker: &Worker, answer: &OllamaAnswer, body: &Value) {
    let entries = body["models"].as_array().cloned().unwrap_or_default();
    let mut expected: Vec<&str> = entries.iter().map(|m| m["name"].as_str().expect("a name")).collect();
    expected.sort_unstable();
    wait_for(&format!("what {} says", answer.name), || {
        let reply = worker.get("/models");
        assert_eq!(reply.status, 200, "{reply:?}");
        let catalogue = reply.json();
        let models = catalogue["models"].as_array().expect("a list");
        let mut names: Vec<&str> = models.iter().map(|m| m["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let flag = |key: &str, value| models.iter().all(|m| m[key] == Value::Bool(value));
        let right = match answer.path.as_str() {
            "/api/version" => catalogue["ollama"]["version"] == body["version"],
            "/api/tags" => names == expected && catalogue["total_models"] == names.len() && flag("loaded", false),
            _ => names == expected && catalogue["total_models"] == 0 && flag("loaded", true) && flag("pulled", false),
        };
        right.then_some(())
    });
}

#[track_caller]
fn check_replay(version: &str, expected: &[(&str, usize)]) {
    let good = replay(version);
    let good: Vec<(&str, usize)> = good.iter().map(|(path, count)| (path.as_str(), *count)).collect();
    assert_eq!(good, expected, "{version}");
}

#[test]
fn every_answer_of_ollama_0_5_13_is_understood() {
    check_replay("v0.5.13", &[("/api/ps", 42), ("/api/tags", 13), ("/api/version", 1)]);
}

#[test]
fn every_answer_of_ollama_0_32_15_is_understood() {
    check_replay("v0.32.15", &[("/api/ps", 42), ("/api/tags", 13), ("/api/version", 1)]);
}

#[test]
fn aliases_and_slow_loads_of_ollama_0_32_15_are_understood() {
    check_replay("v0.32.15-alias", &[("/api/ps", 9)]);
    check_replay("v0.32.15-extra", &[("/api/ps", 17), ("/api/version", 1)]);
}
