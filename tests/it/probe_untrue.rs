//! Answers to a probe that prove nothing, although many of them have status 200, and what becomes of each.

use std::thread;

use crate::fake_ollama::{Answer, Step};
use crate::probe_command::{NO_TEXT, SPEED, embedded, generated, good, ollama, probe_one, unanswered};

/// Name, answer, result and why.
fn untrue() -> Vec<(&'static str, Answer, &'static str, &'static str)> {
    let statistics = [26_514_739, 1_498_528, 9, 7_787_000, 16, 12_581_000];
    let with = |from: &str, to: &str| {
        let body = generated(statistics, "");
        assert!(body.contains(from), "{from}");
        Answer::Json(body.replacen(from, to, 1))
    };
    let line = |text: &str| Step::Line(text.to_owned());
    let part = r#"{"model":"lab:1","created_at":"2026-11-26T19:34:50Z","response":" 9","done":false}"#;
    let swallowed = r#"{"model":"","created_at":"0001-01-01T00:00:00Z","response":"","done":false}"#;
    let error = |text: &str| format!(r#"{{"error":"{text}"}}"#);
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<html>hi</html";
    let json = "its answer is not Ollama's JSON: ";
    vec![
        ("no end", with("\"done\":true", "\"done\":false"), "failed", "its answer has no end (done is not true)"),
        ("repeats", Answer::Json(part.into()), "failed", "its answer has no end (done is not true)"),
        ("swallowed", Answer::Json(swallowed.into()), "failed", "its answer has no end (done is not true)"),
        ("empty model", with("\"lab:1\"", "\"\""), "failed", "its answer names no model: Ollama swallowed an error"),
        ("year 1", with("2026-", "0001-"), "failed", "its answer names no model: Ollama swallowed an error"),
        ("0 ns", with("12581000", "0"), "failed", "its answer reports 16 tokens within 0 µs"),
        ("1000 ns", with("12581000", "1000"), "failed", "its answer reports 16 tokens within 1 µs"),
        ("no total", with("\"total_duration\":26514739,", ""), "failed", "its answer lacks total_duration"),
        ("no count", with("\"eval_count\":16,", ""), "failed", "it answered without a token"),
        ("negative", with(":16,", ":-16,"), "failed", json),
        ("a fraction", with(":16,", ":16.5,"), "failed", json),
        ("text", with(":16,", ":\"16\","), "failed", json),
        (
            "a billion",
            with(":16,", ":1000000000,"),
            "failed",
            "its answer reports 1000000000 tokens, but 16 were requested",
        ),
        (
            "a long prompt",
            with(":9,", ":1000000000,"),
            "failed",
            "its answer reports 1000000000 tokens of a short prompt",
        ),
        (
            "longer than it took",
            with("12581000", "9000000000000"),
            "failed",
            "its answer reports 9000.0 s of work, but ",
        ),
        ("beyond 64 bits", with("26514739", "99999999999999999999"), "failed", json),
        ("a stream", Answer::Stream(vec![line(part), line(&generated(statistics, ""))]), "ok", ""),
        (
            "a stream without end",
            Answer::Stream(vec![line(part)]),
            "failed",
            "its answer has no end (done is not true)",
        ),
        (
            "a killed runner",
            Answer::Stream(vec![line(part), line(&error("an error was encountered: unexpected EOF"))]),
            "failed",
            "an error was encountered: unexpected EOF",
        ),
        ("dies in the middle", Answer::Stream(vec![line(part), Step::Cut]), "failed", "its answer was cut: "),
        ("dies before its end", Answer::WrongLength, "failed", "its answer was cut: "),
        (
            "dies before the first byte",
            Answer::HangUp,
            "failed",
            "the connection ended without an answer: connection closed",
        ),
        (
            "dies in its head",
            Answer::Raw { bytes: b"HTTP/1.1 200 O".to_vec(), close: true },
            "failed",
            "the connection ended without an answer: ",
        ),
        (
            "an error with 200",
            Answer::Json(error("CUDA error: an illegal memory access was encountered")),
            "failed",
            "CUDA error: an illegal memory access was encountered",
        ),
        ("10 MB", Answer::Huge(10_000_000), "failed", "its answer is larger than 1 MiB"),
        (
            "10 MB of text",
            Answer::Json(generated(statistics, "").replace(" 9,", &"9,".repeat(5_000_000))),
            "failed",
            "its answer is larger than 1 MiB",
        ),
        ("nothing", Answer::Json(String::new()), "failed", "its answer is empty"),
        ("a list", Answer::Json("[]".into()), "failed", json),
        ("plain text", Answer::Json("Ollama is running".into()), "failed", json),
        (
            "500",
            Answer::Status(500, error("model runner has unexpectedly stopped")),
            "failed",
            "Ollama answered 500: model runner has unexpectedly stopped",
        ),
        ("500 of a proxy", Answer::Status(500, "<html>oops".into()), "skipped", "Ollama answered 500: <html>oops"),
        (
            "a web page",
            Answer::Raw { bytes: page.to_vec(), close: true },
            "skipped",
            "the server at OLLAMA_URL answers with a web page (HTML)",
        ),
        ("401", Answer::Status(401, "no".into()), "skipped", "the server at OLLAMA_URL answers 401: login required"),
        ("401 in JSON", Answer::Status(401, error("unauthorized")), "skipped", "Ollama answered 401: unauthorized"),
        ("403", Answer::Status(403, String::new()), "skipped", "the server at OLLAMA_URL answers 403 (forbidden)"),
        (
            "404 of a proxy",
            Answer::Status(404, "404 page not found".into()),
            "skipped",
            "the server at OLLAMA_URL answers 404 to /api/generate",
        ),
        ("407", Answer::Status(407, String::new()), "skipped", "the server at OLLAMA_URL answers 407"),
        (
            "429",
            Answer::Status(429, String::new()),
            "skipped",
            "the server at OLLAMA_URL answers 429 (too many requests)",
        ),
        (
            "502",
            Answer::Status(502, "<html>502".into()),
            "skipped",
            "the server at OLLAMA_URL answers 502: the proxy in front",
        ),
        (
            "504 at once",
            Answer::Status(504, "<html>504".into()),
            "skipped",
            "the server at OLLAMA_URL answers 504: the proxy in front",
        ),
        (
            "504 after 30 s",
            Answer::Late(30_000 / SPEED, Box::new(Answer::Status(504, "<html>504".into()))),
            "hangs",
            "no answer within 600 s",
        ),
        (
            "524 after 30 s",
            Answer::Late(30_000 / SPEED, Box::new(Answer::Status(524, String::new()))),
            "hangs",
            "no answer within 600 s",
        ),
        ("late", Answer::Late(800, Box::new(good())), "ok", ""),
    ]
}

/// A failed probe counts against the model, a skipped one does not.
#[test]
fn an_answer_without_truth_proves_nothing() {
    for some in untrue().chunks(6) {
        thread::scope(|scope| {
            for (name, answer, result, why) in some {
                scope.spawn(move || {
                    let (code, found) = probe_one(&ollama(answer.clone()), &[]);
                    assert_eq!(found["result"], *result, "{name}: {found}");
                    assert!(found["why"].as_str().unwrap_or_default().starts_with(why), "{name}: {found}");
                    assert_eq!(found["tokens_per_second"].is_number(), *result == "ok", "{name}: {found}");
                    let expected = match *result {
                        "ok" => 0,
                        "hangs" => 2,
                        _ => 1,
                    };
                    assert_eq!(code, expected, "{name}");
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
        ("[[null]]", "its answer is not Ollama's JSON: "),
        ("[[\"0.1\"]]", "its answer is not Ollama's JSON: "),
        ("[[1e999]]", "its answer is not Ollama's JSON: "),
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
    let no_text = || Answer::Late(300, Box::new(Answer::Status(400, NO_TEXT.into())));
    let unfinished = "its answer did not end within 60 s";
    let rows = [
        (Answer::Hang, None, "hangs", "no answer within 60 s"),
        (Answer::Late(3000, Box::new(good())), None, "hangs", "no answer within 60 s"),
        (no_text(), Some(Answer::Hang), "hangs", "no answer within 60 s"),
        (Answer::HangAfterHead, None, "failed", unfinished),
        (Answer::SlowBytes, None, "failed", unfinished),
        (no_text(), Some(Answer::SlowBytes), "failed", unfinished),
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
