//! Answers to a probe that prove nothing, although many of them have status 200, and what becomes of each.

use std::thread;

use crate::fake_ollama::{Answer, Step};
use crate::probe_command::{NO_TEXT, SPEED, Statistics, embedded, generated, good, ollama, probe_one, unanswered};

/// Statistics of a true answer.
const TRUE: Statistics = [26_514_739, 1_498_528, 9, 7_787_000, 16, 12_581_000];
const NOT_JSON: &str = "its answer is not Ollama's JSON: ";
const ENDLESS: &str = "its answer has no end (done is not true)";
const NO_NAME: &str = "its answer names no model: Ollama swallowed an error";
const PART: &str = r#"{"model":"lab:1","created_at":"2026-11-26T19:34:50Z","response":" 9","done":false}"#;
const SWALLOWED: &str = r#"{"model":"","created_at":"0001-01-01T00:00:00Z","response":"","done":false}"#;
const LATE: u64 = 30_000 / SPEED;

/// What is changed in a true answer, what it becomes, and why it is true no longer.
const CHANGES: &[(&str, &str, &str)] = &[
    ("\"done\":true", "\"done\":false", ENDLESS),
    ("\"lab:1\"", "\"\"", NO_NAME),
    ("2026-", "0001-", NO_NAME),
    ("12581000", "0", "its answer reports 16 tokens within 0 µs"),
    ("12581000", "1000", "its answer reports 16 tokens within 1 µs"),
    ("\"total_duration\":26514739,", "", "its answer lacks total_duration"),
    ("\"eval_count\":16,", "", "it answered without a token"),
    (":16,", ":-16,", NOT_JSON),
    (":16,", ":16.5,", NOT_JSON),
    (":16,", ":\"16\",", NOT_JSON),
    (":16,", ":1000000000,", "its answer reports 1000000000 tokens, but 16 were requested"),
    (":9,", ":1000000000,", "its answer reports 1000000000 tokens of a short prompt"),
    ("12581000", "9000000000000", "its answer reports 9000.0 s of work, but the request took "),
    ("26514739", "99999999999999999999", NOT_JSON),
];

/// Status and body of answers that say nothing about the model, and why.
const REFUSALS: &[(u16, &str, &str)] = &[
    (500, "<html>oops", "the server at OLLAMA_URL answers 500"),
    (413, "<html>413", "the server at OLLAMA_URL answers 413"),
    (400, "{\"detail\":\"no\"}", "the server at OLLAMA_URL answers 400: {\"detail\":\"no\"}"),
    (401, "no", "the server at OLLAMA_URL answers 401: login required"),
    (401, r#"{"error":"unauthorized"}"#, "Ollama answered 401: unauthorized"),
    (403, "", "the server at OLLAMA_URL answers 403 (forbidden)"),
    (404, "404 page not found", "the server at OLLAMA_URL answers 404 to /api/generate"),
    (407, "", "the server at OLLAMA_URL answers 407"),
    (429, "", "the server at OLLAMA_URL answers 429 (too many requests)"),
    (502, "<html>502", "the server at OLLAMA_URL answers 502: the proxy in front"),
    (504, "<html>504", "the server at OLLAMA_URL answers 504: the proxy in front"),
];

/// An answer, the result and why.
type Row = (Answer, &'static str, &'static str);

fn changed() -> Vec<Row> {
    let body = generated(TRUE, "");
    let one = |(from, to, why): &(&str, &str, &'static str)| {
        assert!(body.contains(from), "{from}");
        (Answer::Json(body.replacen(from, to, 1)), "failed", *why)
    };
    CHANGES.iter().map(one).collect()
}

fn refused() -> Vec<Row> {
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html>hi</html";
    let page = Answer::Raw { bytes: page.to_vec(), close: true };
    // Its size does not make it a crash of Ollama, whose answer is empty.
    let long_page = Answer::Status(500, format!("<html>{}", "x".repeat(100_000)));
    let late = |status| Answer::Late(LATE, Box::new(Answer::Status(status, "<html>".into())));
    let one =
        |(status, body, why): &(u16, &str, &'static str)| (Answer::Status(*status, (*body).into()), "skipped", *why);
    let more = [
        (page, "skipped", "the server at OLLAMA_URL answers with a web page (HTML)"),
        (long_page, "skipped", "the server at OLLAMA_URL answers 500"),
        // A proxy that waited this long has forwarded the request.
        (late(504), "hangs", "no answer within 600 s"),
        (late(524), "hangs", "no answer within 600 s"),
    ];
    REFUSALS.iter().map(one).chain(more).collect()
}

fn broken() -> Vec<Row> {
    let stream = |lines: &[&str]| Answer::Stream(lines.iter().map(|line| Step::Line((*line).into())).collect());
    let body = generated(TRUE, "");
    let error = r#"{"error":"CUDA error: an illegal memory access was encountered"}"#;
    let (cut, ended) = ("its answer was cut: ", "the connection ended without an answer: ");
    let head = Answer::Raw { bytes: b"HTTP/1.1 200 O".to_vec(), close: true };
    let text = body.replace(" 9,", &"9,".repeat(5_000_000));
    vec![
        // Some proxies stream although the request forbids it.
        (stream(&[PART, &body]), "ok", ""),
        (stream(&[PART]), "failed", ENDLESS),
        (stream(&[PART, error]), "failed", "CUDA error: an illegal memory access was encountered"),
        (Answer::Json(error.into()), "failed", "CUDA error: an illegal memory access was encountered"),
        (Answer::Status(500, error.into()), "failed", "Ollama answered 500: CUDA error: an illegal memory access"),
        // It repeated one token more than 30 times.
        (Answer::Json(PART.into()), "failed", ENDLESS),
        (Answer::Json(SWALLOWED.into()), "failed", ENDLESS),
        (Answer::Stream(vec![Step::Line(PART.into()), Step::Cut]), "failed", cut),
        (Answer::WrongLength, "failed", cut),
        (Answer::HangUp, "failed", ended),
        (head, "failed", ended),
        (Answer::Huge(10_000_000), "failed", "its answer is larger than 1 MiB"),
        (Answer::Json(text), "failed", "its answer is larger than 1 MiB"),
        (Answer::Json(String::new()), "failed", "its answer is empty"),
        (Answer::Json("[]".into()), "failed", NOT_JSON),
        (Answer::Json("Ollama is running".into()), "failed", NOT_JSON),
        (Answer::Late(800, Box::new(good())), "ok", ""),
    ]
}

/// A failed probe counts against the model, a skipped one does not.
#[test]
fn an_answer_without_truth_proves_nothing() {
    for some in [changed(), refused(), broken()].concat().chunks(6) {
        thread::scope(|scope| {
            for (answer, result, why) in some {
                scope.spawn(move || {
                    let (code, found) = probe_one(&ollama(answer.clone()), &[]);
                    assert_eq!(found["result"], *result, "{why}: {found}");
                    assert!(found["why"].as_str().unwrap_or_default().starts_with(why), "{why}: {found}");
                    assert!(!found["why"].as_str().unwrap_or_default().contains("<html>"), "{found}");
                    assert_eq!(found["tokens_per_second"].is_number(), *result == "ok", "{why}: {found}");
                    let expected = match *result {
                        "ok" => 0,
                        "hangs" => 2,
                        _ => 1,
                    };
                    assert_eq!(code, expected, "{why}");
                });
            }
        });
    }
}

#[test]
fn an_embedding_without_numbers_proves_nothing() {
    for (vector, why) in [
        ("[]", "it answered without an embedding"),
        ("[[]]", "it answered without an embedding"),
        ("null", "it answered without an embedding"),
        ("[[0,0.0,-0.0]]", "its embedding is all zeros"),
        ("[[null]]", NOT_JSON),
        ("[[\"0.1\"]]", NOT_JSON),
        ("[[1e999]]", NOT_JSON),
    ] {
        let fake = ollama(Answer::Status(400, NO_TEXT.into()));
        fake.set("/api/embed", Answer::Json(embedded(vector, 7_848_456, 1_424_124)));
        let (code, found) = probe_one(&fake, &[]);
        assert_eq!((code, &found["result"]), (1, &"failed".into()), "{vector}: {found}");
        assert!(found["why"].as_str().unwrap().starts_with(why), "{vector}: {found}");
    }
}

/// One deadline holds for all that a probe does.
#[test]
fn a_server_that_does_not_end_its_answer_is_left() {
    let timeout = [("PROBE_TIMEOUT", "60s")];
    let no_text = |millis| Answer::Late(millis, Box::new(Answer::Status(400, NO_TEXT.into())));
    let vector = Answer::Json(embedded("[[0.5]]", 7_848_456, 1_424_124));
    let unfinished = "its answer did not end within 60 s";
    let rows = [
        (Answer::Hang, None, "hangs", "no answer within 60 s"),
        (Answer::Late(3000, Box::new(good())), None, "hangs", "no answer within 60 s"),
        (no_text(300), Some(Answer::Hang), "hangs", "no answer within 60 s"),
        (no_text(800), Some(Answer::Late(800, Box::new(vector))), "hangs", "no answer within 60 s"),
        (Answer::HangAfterHead, None, "failed", unfinished),
        (Answer::SlowBytes, None, "failed", unfinished),
        (no_text(300), Some(Answer::SlowBytes), "failed", unfinished),
    ];
    thread::scope(|scope| {
        for (generate, embed, result, why) in &rows {
            scope.spawn(move || {
                let fake = ollama(generate.clone());
                embed.iter().for_each(|answer| fake.set("/api/embed", answer.clone()));
                let (code, found) = probe_one(&fake, &timeout);
                assert_eq!(found, unanswered(result, why), "{generate:?}");
                assert_eq!(code, if *result == "hangs" { 2 } else { 1 });
            });
        }
    });
}
