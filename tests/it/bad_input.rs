//! Bytes that are wrong, strange or late: each gets its answer, and the next good request is served.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::harness::Worker;
use crate::http::{self, Connection, Response};

pub const JOB: &str = r#"{"agent_id":"demo-agent"}"#;
pub const MIB: usize = 1024 * 1024;

/// One that has a report: until then some answers are 503.
pub fn worker() -> Worker {
    let worker = Worker::start(&[("CAPABILITY_CAPACITY", "1000")]);
    worker.report();
    worker
}

/// Bytes of a request with this request line, these headers and this body; nothing is added but Host.
fn bytes(line: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut all = format!("{line}\r\nHost: worker\r\n").into_bytes();
    for header in headers {
        all.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    all.extend_from_slice(b"\r\n");
    all.extend_from_slice(body.as_ref());
    all
}

/// A job with this body and its right length.
pub fn job(body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.as_ref().len());
    bytes("POST /gpu-check HTTP/1.1", &[&length], body)
}

/// A job whose body is framed by these headers.
pub fn framed(headers: &[&str], body: &str) -> Vec<u8> {
    bytes("POST /gpu-check HTTP/1.1", headers, body)
}

pub fn chunked(body: &str) -> Vec<u8> {
    framed(&["Transfer-Encoding: chunked"], body)
}

/// `200`, or status and code such as `400 bad_json`.
#[track_caller]
fn status_and_error(answer: &Response) -> String {
    if answer.status < 400 { answer.status.to_string() } else { format!("{} {}", answer.status, answer.code()) }
}

#[track_caller]
pub fn check_answer(answer: &Response, expect: &str, what: &str) {
    let got = status_and_error(answer);
    assert!(expect.split('|').any(|e| e == got), "{what}: {got} instead of {expect}; {answer:?}");
}

/// The next good request on a new connection is served.
#[track_caller]
pub fn still_works(worker: &Worker, what: &str) {
    let answer = worker.post("/gpu-check", JOB);
    assert_eq!(answer.status, 200, "after {what}: {answer:?}");
}

/// A connection that was not announced as closing serves another request; one that was does close.
#[track_caller]
fn check_connection(connection: &mut Connection, answer: &Response, what: &str) {
    if answer.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
        assert!(connection.closed(), "{what}: it said close and stays open");
        return;
    }
    connection.send(&job(JOB)).unwrap_or_else(|why| panic!("{what}: {why}"));
    let next = connection.answer().unwrap_or_else(|why| panic!("the next request after {what}: {why}"));
    assert_eq!(next.status, 200, "after {what}: {next:?}");
}

/// These bytes get one of the answers in `expect` (`A|B`), and break nothing.
#[track_caller]
pub fn check(worker: &Worker, bytes: impl AsRef<[u8]>, expect: &str) {
    let bytes = bytes.as_ref();
    let what = format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(160)]));
    let mut connection = Connection::open(worker.addr);
    connection.send(bytes).unwrap_or_else(|why| panic!("{what}: {why}"));
    let answer = connection.answer().unwrap_or_else(|why| panic!("{what}: {why}"));
    check_answer(&answer, expect, &what);
    check_connection(&mut connection, &answer, &what);
    still_works(worker, &what);
}

#[test]
fn a_body_that_is_not_a_job_gets_an_error_that_says_so() {
    let worker = worker();
    for body in ["", "{", "nonsense", r#"["demo-agent"]"#, "\"demo-agent\"", "7", "null", "\u{feff}{}", "{}{}"] {
        check(&worker, job(body), "400 bad_json");
    }
    check(&worker, job(b"{\"agent_id\":\"\xff\xfe\"}"), "400 bad_json");
    check(&worker, job(b"\xff\xfe{\0}\0"), "400 bad_json");
    check(&worker, job(r#"{"agent_id":"\ud800"}"#), "400 bad_json");
    check(&worker, job("[".repeat(60_000)), "400 bad_json");
    check(&worker, job("{\"agent_id\":".repeat(5_000)), "400 bad_json");
    for body in ["{}", r#"{"q":1}"#, r#"{"agent_id":null}"#, r#"{"AGENT_ID":"a"}"#] {
        check(&worker, job(body), "400 missing_agent_id");
    }
    for body in [
        r#"{"agent_id":""}"#,
        r#"{"agent_id":7}"#,
        r#"{"agent_id":["a"]}"#,
        r#"{"agent_id":true}"#,
        r#"{"agent_id":"a","agent_id":7}"#,
    ] {
        check(&worker, job(body), "400 bad_agent_id");
    }
    check(&worker, job(format!(r#"{{"agent_id":"{}"}}"#, "a".repeat(257))), "400 bad_agent_id");
    check(&worker, job(format!(r#"{{"agent_id":"{}"}}"#, "é".repeat(256))), "200");
    check(&worker, job(format!("{JOB}{}", " ".repeat(64 * 1024 - JOB.len()))), "200");
}

#[test]
fn a_large_body_is_refused_and_the_connection_serves_on() {
    let worker = worker();
    check(&worker, job(format!("{JOB}{}", " ".repeat(64 * 1024 + 1 - JOB.len()))), "413 body_too_large");
    check(&worker, job("A".repeat(MIB)), "413 body_too_large");
    check(&worker, job("A".repeat(7 * MIB)), "413 body_too_large");
    let chunk = format!("{:x}\r\n{}\r\n", 1000, "A".repeat(1000));
    check(&worker, chunked(&(chunk.repeat(70) + "0\r\n\r\n")), "413 body_too_large");
    check(&worker, chunked(&(chunk.repeat(2000) + "0\r\n\r\n")), "413 body_too_large");
    let mut pipelined = job("A".repeat(MIB));
    pipelined.extend_from_slice(&bytes("GET /health HTTP/1.1", &[], ""));
    let mut connection = Connection::open(worker.addr);
    connection.send(&pipelined).expect("all of it is read");
    check_answer(&connection.answer().expect("an answer"), "413 body_too_large", "1 MiB");
    assert_eq!(connection.answer().expect("the next answer").status, 200);
}

#[test]
fn a_refusal_before_the_body_has_come_never_resets_its_sender() {
    #[track_caller]
    fn check(worker: &Worker, line: &str, expect: &str) {
        let body = vec![b'A'; 2_000_000];
        let mut connection = Connection::open(worker.addr);
        let head = bytes(line, &[&format!("Content-Length: {}", body.len())], "");
        connection.send(&head).expect("the head is read");
        for piece in body.chunks(100_000) {
            thread::sleep(Duration::from_millis(20));
            connection.send(piece).unwrap_or_else(|why| panic!("{line}: reset while sending: {why}"));
        }
        let answer = connection.answer().unwrap_or_else(|why| panic!("{line}: {why}"));
        check_answer(&answer, expect, line);
        let closes = answer.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        assert!(!closes, "{line}: a body below 8 MiB is read and the connection kept: {answer:?}");
        connection.send(&bytes("GET /health HTTP/1.1", &[], "")).expect("the connection serves on");
        assert_eq!(connection.answer().expect("an answer").status, 200, "{line}");
    }
    let open = worker();
    check(&open, "POST /nothing HTTP/1.1", "404 not_found");
    check(&open, "PUT /gpu-check HTTP/1.1", "405 method_not_allowed");
    check(&open, "POST /gpu-check HTTP/1.1", "413 body_too_large");
    still_works(&open, "them all");
    let guarded = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    check(&guarded, "POST /gpu-check HTTP/1.1", "401 unauthorized");
}

#[test]
fn a_body_beyond_8_mib_gets_its_answer_and_the_connection_ends() {
    let worker = worker();
    for length in [8 * MIB + 1, 64 * MIB, 1 << 40] {
        let mut connection = Connection::open(worker.addr);
        connection.send(&framed(&[&format!("Content-Length: {length}")], "")).expect("the head is read");
        for _ in 0..12.min(length / MIB) {
            let sent = connection.send(&vec![b'A'; MIB]);
            sent.unwrap_or_else(|why| panic!("{length}: reset while sending: {why}"));
        }
        let answer = connection.answer().unwrap_or_else(|why| panic!("{length}: {why}"));
        check_answer(&answer, "413 body_too_large", "a huge body");
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{answer:?}");
        assert!(connection.closed());
        still_works(&worker, "a huge body");
    }
}

#[test]
fn wrong_methods_and_paths_get_errors_that_say_so() {
    #[track_caller]
    fn check_allow(worker: &Worker, line: &str, allow: &str) {
        let answer = http::raw(worker.addr, &bytes(line, &["Content-Length: 0"], ""));
        check_answer(&answer, "405 method_not_allowed", line);
        assert_eq!(answer.header("allow"), Some(allow), "{line}: {answer:?}");
    }
    let worker = worker();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "post"] {
        check_allow(&worker, &format!("{method} /gpu-check HTTP/1.1"), "POST");
        check_allow(&worker, &format!("{method} /agent-net?x=1 HTTP/1.1"), "POST");
    }
    for (method, path) in [("POST", "/gpu"), ("PUT", "/models"), ("FOO", "/health"), ("DELETE", "/ready")] {
        check_allow(&worker, &format!("{method} {path} HTTP/1.1"), "GET, HEAD");
    }
    for path in ["/nothing", "/gpu-check/", "//gpu-check", "/x/../gpu-check", "/gpu%2dcheck", "/GPU-CHECK", "*"] {
        check(&worker, bytes(&format!("POST {path} HTTP/1.1"), &["Content-Length: 0"], ""), "404 not_found");
    }
    check(&worker, bytes("!#$%&'*+-.^_`|~ /gpu HTTP/1.1", &[], ""), "405 method_not_allowed");
    check(&worker, bytes(&format!("{} /gpu HTTP/1.1", "M".repeat(20_000)), &[], ""), "405 method_not_allowed");
    check(&worker, bytes("OPTIONS * HTTP/1.1", &[], ""), "404 not_found");
    check(&worker, bytes("CONNECT worker:443 HTTP/1.1", &[], ""), "400 bad_request|404 not_found");
    check(&worker, bytes("GET /gpü HTTP/1.1", &[], ""), "400 bad_request|404 not_found");
    check(&worker, bytes(&format!("GET /{} HTTP/1.1", "a".repeat(30_000)), &[], ""), "404 not_found");
    check(&worker, bytes("GET http://worker/gpu HTTP/1.1", &[], ""), "200");
    check(&worker, bytes("GET http://worker:9876/health?x HTTP/1.1", &[], ""), "200");
    check(&worker, bytes("GET http://worker HTTP/1.1", &[], ""), "200");
    check(&worker, bytes("GET /gpu?format=%zz&&=;#x HTTP/1.1", &[], ""), "400 bad_format|400 bad_request");
}

#[test]
fn heads_that_are_wrong_or_strange() {
    let worker = worker();
    let raw = |text: &str| text.as_bytes().to_vec();
    check(&worker, raw("GET /health HTTP/1.1\r\n\r\n"), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["Host: other"], ""), "400 bad_request");
    check(&worker, raw("\r\n\r\nGET /health HTTP/1.1\r\nHost: worker\r\n\r\n"), "200");
    check(&worker, bytes("GET /health HTTP/1.1", &["X-A: 1", " folded"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["X-A : 1"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["X-A: a\0b"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["X-A: a\rb"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["no colon"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &[": no name"], ""), "400 bad_request");
    check(&worker, bytes("GET /health HTTP/1.1", &["X-A:", "X-B: é", "X-C: \t x \t"], ""), "200");
    check(&worker, raw("GET /health HTTP/1.1\nHost: worker\n\n"), "400 bad_request");
    for line in [
        "GET /health",
        "GET /health HTTP/2.0",
        "GET /health HTTP/9",
        "GET  HTTP/1.1",
        "G@T\t/ HTTP/1.1",
        "GET /he alth HTTP/1.1",
    ] {
        check(&worker, bytes(line, &[], ""), "400 bad_request");
    }
    check(&worker, raw("\0\u{1}garbage\r\n\r\n"), "400 bad_request");
    check(&worker, raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"), "400 bad_request");
    check(&worker, raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "400 bad_request");
    // The start of a TLS handshake: an https:// URL of this port.
    check(&worker, b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03\x8f\x11", "400 bad_request");
}

#[test]
fn strange_requests_that_are_right_are_served() {
    let worker = worker();
    check(&worker, bytes("GET /gpu HTTP/1.1", &["Content-Length: 5"], "12345"), "200");
    check(
        &worker,
        bytes("GET /gpu HTTP/1.1", &["Content-Length: 100000"], "A".repeat(100_000)),
        "200|413 body_too_large",
    );
    check(&worker, bytes("GET /gpu?? HTTP/1.1", &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"], ""), "200");
    check(&worker, framed(&["Content-Length:\t 25 \t"], JOB), "200");
    check(&worker, framed(&["Content-Length: 25", "Connection: Keep-Alive, CLOSE"], JOB), "200");
    check(&worker, framed(&["Content-Length: 25", "Connection: close"], JOB), "200");
    // Only the worker itself may say that.
    check(&worker, framed(&["Content-Length: 25", "X-Agent-Net-Too-Large: 1"], JOB), "200");

    // HTTP/1.0 needs no Host and ends its connection, unless it asks for another end.
    let old = |more: &str| format!("POST /gpu-check HTTP/1.0\r\nContent-Length: 25\r\n{more}\r\n{JOB}");
    let mut connection = Connection::open(worker.addr);
    connection.send(old("Connection: keep-alive\r\n").as_bytes()).unwrap();
    let answer = connection.answer().expect("an answer");
    let connections = answer.header("connection").map(str::to_ascii_lowercase);
    assert_eq!((answer.status, connections.as_deref()), (200, Some("keep-alive")), "{answer:?}");
    connection.send(old("").as_bytes()).unwrap();
    assert_eq!(connection.answer().expect("an answer").status, 200);
    assert!(connection.closed());
    check(&worker, "POST /gpu-check HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 bad_framing");
}

#[test]
fn a_head_of_64_kib_is_accepted_and_a_larger_one_refused() {
    /// A whole head of exactly this many bytes.
    fn head(size: usize) -> Vec<u8> {
        let empty = bytes("GET /health HTTP/1.1", &["X-Filler: "], "");
        bytes("GET /health HTTP/1.1", &[&format!("X-Filler: {}", "x".repeat(size - empty.len()))], "")
    }
    let worker = worker();
    check(&worker, head(60_000), "200");
    check(&worker, head(64 * 1024), "200");
    check(&worker, head(64 * 1024 + 1), "431 head_too_large");
    check(&worker, head(MIB), "431 head_too_large");
    check(&worker, vec![b'A'; MIB], "431 head_too_large|400 bad_request");
    let many: Vec<String> = (0..90).map(|i| format!("X-{i}: {}", "y".repeat(600))).collect();
    check(&worker, bytes("GET /health HTTP/1.1", &many.iter().map(String::as_str).collect::<Vec<_>>(), ""), "200");
    check(&worker, bytes("GET /health HTTP/1.1", &vec!["X: y"; 1000], ""), "200");
    check(&worker, bytes("GET /health HTTP/1.1", &vec!["X: y"; 20_000], ""), "431 head_too_large");
}

#[test]
fn silent_connections_do_not_affect_other_clients() {
    let worker = worker();
    for _ in 0..20 {
        drop(TcpStream::connect(worker.addr).expect("accepted"));
    }
    let idle: Vec<Connection> = (0..200).map(|_| Connection::open(worker.addr)).collect();
    still_works(&worker, "200 idle connections");
    let mut half: Vec<Connection> = (0..50).map(|_| Connection::open(worker.addr)).collect();
    for connection in &mut half {
        connection.send(b"POST /gpu-check HTTP/1.1\r\nHost: wor").expect("the worker reads");
    }
    still_works(&worker, "50 half heads");
    drop((idle, half));
    still_works(&worker, "their end");
}

/// The one test that waits for a timeout: the deadline of a head is seconds long.
#[test]
fn a_client_that_stalls_within_its_head_gets_an_error_and_one_that_was_served_may_be_idle() {
    let worker = worker();
    // go-livepeer keeps connections for later jobs; some clients end a body with an empty line.
    let mut idle: Vec<Connection> = ["", "\r\n"].iter().map(|end| served(&worker, end)).collect();
    let mut stalled = Connection::open(worker.addr);
    stalled.send(b"GET /health HTTP/1.1\r\nHost: wor").expect("the worker reads");
    let mut silent = Connection::open(worker.addr);
    check_answer(&stalled.answer().expect("an answer"), "408 timeout", "a stalled head");
    assert!(stalled.closed() && silent.closed(), "both are closed, one without a word");
    for (connection, end) in idle.iter_mut().zip(["nothing", "an empty line"]) {
        connection.send(&job(JOB)).unwrap_or_else(|why| panic!("idle after {end}: {why}"));
        let answer = connection.answer().unwrap_or_else(|why| panic!("idle after {end}: {why}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    still_works(&worker, "them");
}

/// A connection that has had its answer and said `end` after the request.
fn served(worker: &Worker, end: &str) -> Connection {
    let mut connection = Connection::open(worker.addr);
    connection.send(&[&job(JOB), end.as_bytes()].concat()).expect("the worker reads");
    assert_eq!(connection.answer().expect("an answer").status, 200);
    connection
}
