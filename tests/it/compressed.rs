//! Answers that leave compressed where the client takes gzip, and as before where it does not.

use std::io::Write;
use std::process::Stdio;
use std::thread;

use crate::fake_ollama::FakeOllama;
use crate::gpus::{is_ok, start};
use crate::harness::{Worker, command};
use crate::http::{Connection, Response, request};
use crate::jobs::job;
use crate::nvml::FakeNvml;

/// Routes whose large answers are compressed.
const ROUTES: [&str; 6] = ["/", "/gpu", "/history", "/codes", "/metrics", "/openapi.json"];

fn ask(worker: &Worker, path: &str, headers: &[&str]) -> Response {
    request(worker.addr, "GET", path, headers, b"")
}

/// The body as gzip itself unpacks it, which verifies head, check and length.
#[track_caller]
fn unpacked(answer: &Response) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), Some("gzip"), "{:?}", answer.headers);
    let mut gzip = command("gzip");
    gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = gzip.spawn().expect("gzip");
    let mut stdin = child.stdin.take().expect("piped");
    let body = answer.body.clone();
    // Its output may fill the pipe before it has read all.
    let writer = thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("written").expect("gzip reads all");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Digits differ between two answers of one route.
fn without_numbers(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).expect("text");
    let mut text: String = text.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
    // A sum of seconds may be written with an exponent.
    text.retain(|c| !matches!(c, '-' | 'e'));
    text
}

fn scene() -> (FakeOllama, FakeNvml, Worker) {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=4"));
    let worker = start(&ollama, &nvml, &[("SAMPLE_INTERVAL", "60s")]);
    worker.report_when("verdict ok", is_ok);
    (ollama, nvml, worker)
}

#[test]
fn a_compressed_answer_is_the_plain_one() {
    let (_ollama, _nvml, worker) = scene();
    for path in ROUTES {
        let plain = ask(&worker, path, &[]);
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{path}");
        let vary = plain.header("vary").expect(path);
        assert!(vary.contains("Accept-Encoding"), "{path}: {vary}");
        assert_eq!(vary.starts_with("Accept, "), path == "/codes", "{path}: {vary}");
        let packed = ask(&worker, path, &["Accept-Encoding: deflate, gzip;q=0.8, br"]);
        if plain.body.len() < 1024 {
            assert_eq!((path, packed.header("content-encoding")), ("/history", None));
            continue;
        }
        let body = unpacked(&packed);
        assert_eq!(without_numbers(&body), without_numbers(&plain.body), "{path}");
        if ["/", "/codes", "/openapi.json"].contains(&path) {
            assert_eq!(body, plain.body, "{path}");
        }
        assert!(
            packed.body.len() < plain.body.len() * 55 / 100,
            "{path}: {} of {}",
            packed.body.len(),
            plain.body.len()
        );
        assert_eq!(packed.header("vary"), Some(vary), "{path}");
        assert_eq!(packed.header("content-type"), plain.header("content-type"), "{path}");
        let length = packed.body.len().to_string();
        // A large number of gauges changes from one answer to the next.
        if path != "/metrics" && path != "/gpu" {
            let head = request(worker.addr, "HEAD", path, &["Accept-Encoding: gzip"], b"");
            let same = |answer: &Response| {
                answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>()
            };
            assert_eq!(same(&head), same(&packed), "{path}");
            assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");
        }
    }
}

#[test]
fn only_a_client_that_takes_gzip_gets_it() {
    let (_ollama, _nvml, worker) = scene();
    let encoding = |headers: &[&str]| ask(&worker, "/metrics", headers).header("content-encoding").map(str::to_owned);
    for yes in
        [&["Accept-Encoding: gzip"][..], &["Accept-Encoding: *"], &["accept-encoding: br", "Accept-Encoding: gzip"]]
    {
        assert_eq!(encoding(yes).as_deref(), Some("gzip"), "{yes:?}");
    }
    for no in [
        &[][..],
        &["Accept-Encoding: gzip;q=0, *"],
        &["Accept-Encoding: identity"],
        &["Accept-Encoding: *;q=0"],
        &["Accept-Encoding:"],
    ] {
        assert_eq!(encoding(no), None, "{no:?}");
    }
    // A small answer, a job's, and an error.
    for path in ["/health", "/version", "/ready"] {
        let answer = ask(&worker, path, &["Accept-Encoding: gzip"]);
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None), "{path}");
    }
    let answer = request(worker.addr, "POST", "/gpu-check", &["Accept-Encoding: gzip"], job("a").as_bytes());
    assert!(answer.status == 200 && answer.body.len() > 1024);
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, None));
    answer.json();
    let stranger = ask(&worker, "/", &["Accept-Encoding: gzip", "Livepeer-Runner-Route: x"]);
    assert_eq!((stranger.status, stranger.header("content-encoding")), (200, None));
    let wrong = ask(&worker, "/gpu?format=frob", &["Accept-Encoding: gzip"]);
    assert_eq!((wrong.status, wrong.header("content-encoding")), (400, None));
}

#[test]
fn an_etag_does_not_call_two_encodings_the_same_bytes() {
    let worker = Worker::start(&[]);
    let (plain, packed) = (ask(&worker, "/", &[]), ask(&worker, "/", &["Accept-Encoding: gzip"]));
    let (strong, weak) =
        (plain.header("etag").expect("one").to_owned(), packed.header("etag").expect("one").to_owned());
    assert!(strong.starts_with('"') && weak == format!("W/{strong}"), "{strong} {weak}");
    for (headers, etag) in [(&["Accept-Encoding: gzip"][..], &weak), (&[], &strong)] {
        for known in [&strong, &weak] {
            let known = format!("If-None-Match: {known}");
            let again = ask(&worker, "/", &[headers, &[known.as_str()]].concat());
            assert_eq!((again.status, again.header("etag"), again.text()), (304, Some(etag.as_str()), ""), "{known}");
            assert_eq!((again.header("vary"), again.header("content-encoding")), (Some("Accept-Encoding"), None));
        }
    }
}

#[test]
fn a_connection_stays_in_step() {
    let (_ollama, _nvml, worker) = scene();
    let mut connection = Connection::open(worker.addr);
    for round in 0..3 {
        for (path, accept) in [("/metrics", "gzip"), ("/metrics", "identity"), ("/", "gzip"), ("/health", "gzip")] {
            connection
                .send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {accept}\r\n\r\n").as_bytes())
                .unwrap();
            let answer = connection.answer().expect("an answer");
            assert_eq!(answer.status, 200, "{round} {path}");
            let packed = accept == "gzip" && path != "/health";
            assert_eq!(answer.header("content-encoding").is_some(), packed, "{round} {path}");
            if packed {
                unpacked(&answer);
            }
        }
    }
}
