use proptest::prelude::*;

use super::*;
use crate::tests::config;

/// A true answer of Ollama 0.33 to a request for 16 tokens, with another name and text.
const TRUE: &str = r#"{"model":"lab:1","created_at":"2026-11-26T19:34:50.501286175Z","response":" 9, 10","done":true,"done_reason":"length","total_duration":26514739,"load_duration":1498528,"prompt_eval_count":9,"prompt_eval_duration":7787000,"eval_count":16,"eval_duration":12581000}"#;
const EMBEDDING: &str = r#"{"model":"lab:1","embeddings":[[-0.017950416,-0.052958164,-0.0]],"total_duration":7848456,"load_duration":1424124,"prompt_eval_count":5}"#;
const WAITED: Duration = Duration::from_millis(28);

fn text(body: &str) -> Outcome {
    parse(200, body.as_bytes(), WAITED, false)
}

#[track_caller]
fn fails(outcome: &Outcome, part: &str) {
    let Outcome::Failed(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(part) && why.len() < 400, "{why}");
}

#[test]
fn a_true_answer_has_a_speed() {
    let Outcome::Answered(answered) = text(TRUE) else { panic!("not an answer") };
    assert_eq!(answered.tokens_per_second().map(|speed| speed.round()), Some(1272.0));
    assert_eq!(
        (answered.queue(), answered.busy()),
        (Duration::from_nanos(4_648_211), Duration::from_nanos(20_368_000))
    );
    assert!(!answered.reloaded() && !answered.queued());
    let Outcome::Answered(embedding) = parse(200, EMBEDDING.as_bytes(), WAITED, true) else { panic!("no embedding") };
    assert_eq!((embedding.tokens_per_second(), embedding.queue()), (None, Duration::ZERO));
    assert_eq!((embedding.busy(), embedding.tokens_read), (Duration::from_nanos(6_424_332), 5));
}

#[test]
fn a_status_of_200_proves_nothing() {
    #[track_caller]
    fn check(from: &str, to: &str, part: &str) {
        let body = TRUE.replace(from, to);
        assert_ne!(body, TRUE, "{from}");
        fails(&text(&body), part);
    }
    check("\"done\":true", "\"done\":false", "no end");
    check("\"done\":true,", "", "no end");
    check("\"lab:1\"", "\"\"", "names no model");
    check("2026-11-26T", "0001-01-01T", "names no model");
    check(",\"total_duration\":26514739", "", "lacks total_duration");
    check("\"eval_count\":16", "\"eval_count\":0", "without a token");
    check("\"eval_count\":16,", "", "without a token");
    check("\"eval_count\":16", "\"eval_count\":-16", "not Ollama's JSON: invalid value: integer `-16`");
    check("\"eval_count\":16", "\"eval_count\":16.5", "not Ollama's JSON");
    check("\"eval_count\":16", "\"eval_count\":\"16\"", "not Ollama's JSON");
    check("\"eval_count\":16", "\"eval_count\":1e9", "not Ollama's JSON");
    check("\"eval_count\":16", "\"eval_count\":25", "25 tokens, but 16 were requested");
    check("\"eval_count\":16", "\"eval_count\":1000000000", "1000000000 tokens");
    check("\"prompt_eval_count\":9", "\"prompt_eval_count\":1000000000", "1000000000 tokens of a short prompt");
    check("12581000", "0", "16 tokens within 0 µs");
    check("12581000", "1000", "16 tokens within 1 µs");
    check(",\"eval_duration\":12581000", "", "16 tokens within 0 µs");
    check("12581000", "1100000000", "1.1 s of work, but the request took 0.0 s");
    check("26514739", "1100000000", "1.1 s of work");
    check("7787000", "18446744073709551615", "of work");
    check("1498528", "18446744073709551616", "not Ollama's JSON");
    check("{\"model\"", "{\"error\":\"CUDA error: out of memory\",\"model\"", "CUDA error: out of memory");
    check("}", "", "not Ollama's JSON: EOF");
    for (body, part) in [
        ("", "empty"),
        ("\n", "empty"),
        ("[]", "not Ollama's JSON"),
        ("null", "not Ollama's JSON"),
        ("17", "not Ollama's JSON"),
        ("Bad Gateway", "not Ollama's JSON"),
        ("data: {\"done\":true}", "not Ollama's JSON"),
        ("{\"error\":{\"message\":\"x\"}}", "not Ollama's JSON"),
        ("{\"done\":true,\"done_reason\":\"load\",\"model\":\"lab\"}", "without a token"),
    ] {
        fails(&text(body), part);
    }
    let long = format!("{{\"error\":\"{}\"}}", "x".repeat(100_000));
    fails(&text(&long), "xxx");
}

#[test]
fn a_stream_is_as_true_as_its_last_line() {
    let part = r#"{"model":"lab:1","created_at":"2026-11-26T19:34:50Z","response":" 9","done":false}"#;
    assert_eq!(text(&format!("{part}\n{part}\n{TRUE}\n")), text(TRUE));
    fails(&text(&format!("{part}\n{part}\n")), "no end");
    fails(&text(&format!("{TRUE}\n{part}\n")), "no end");
    fails(&text(&format!("{part}\n{{\"error\":\"unexpected EOF\"}}\n")), "unexpected EOF");
    fails(&text(&format!("{part}\n{{\"error\":\"unexpected EOF\"}}\n{TRUE}")), "unexpected EOF");
}

#[test]
fn few_tokens_are_an_answer_without_a_speed() {
    for (tokens, eval, speed) in [(1, 1000, false), (1, 0, false), (7, 9_000_000, false), (8, 9_000_000, true)] {
        let body = TRUE.replace(":16,", &format!(":{tokens},")).replace("12581000", &eval.to_string());
        let Outcome::Answered(answered) = text(&body) else { panic!("{:?}", text(&body)) };
        assert_eq!(answered.tokens_per_second().is_some(), speed, "{tokens}");
    }
    // One more than requested, as some versions write.
    assert!(matches!(text(&TRUE.replace(":16,", ":17,")), Outcome::Answered(_)));
}

#[test]
fn an_embedding_holds_numbers() {
    #[track_caller]
    fn check(vector: &str, part: &str) {
        let body = EMBEDDING.replace("[[-0.017950416,-0.052958164,-0.0]]", vector);
        fails(&parse(200, body.as_bytes(), WAITED, true), part);
    }
    for empty in ["[]", "[[]]", "null"] {
        check(empty, "without an embedding");
    }
    check("[[0,0.0,-0.0]]", "all zeros");
    for junk in ["[[null]]", "[[\"0.1\"]]", "[[1e999]]", "[0.1]", "7"] {
        check(junk, "not Ollama's JSON");
    }
    fails(&parse(200, TRUE.as_bytes(), WAITED, true), "without an embedding");
    fails(&text(EMBEDDING), "no end");
}

#[test]
fn other_statuses() {
    #[track_caller]
    fn check(status: u16, body: &str, embedding: bool, expect: Result<&str, &str>) {
        match (parse(status, body.as_bytes(), WAITED, embedding), expect) {
            (Outcome::Failed(why), Ok(failed)) => assert_eq!(why, failed),
            (Outcome::Unasked(why), Err(unasked)) => assert_eq!(why, unasked),
            (outcome, _) => panic!("{status} {body}: {outcome:?}"),
        }
    }
    let error = r#"{"error":"no"}"#;
    check(500, error, false, Ok("Ollama answered 500: no"));
    check(400, error, false, Ok("Ollama answered 400: no"));
    check(500, "", false, Ok("Ollama answered 500"));
    check(500, "Internal Server Error", false, Err("the server at OLLAMA_URL answers 500: Internal Server Error"));
    for status in [204, 401, 402, 403, 404, 407, 408, 429, 499, 502, 503, 504, 524] {
        check(status, error, false, Err(&format!("Ollama answered {status}: no")));
    }
    let unable = r#"{"error":"This server does not support embeddings. Start it with `--embeddings`"}"#;
    let words = "Ollama answered 501: This server does not support embeddings. Start it with `--embeddings`";
    check(501, unable, true, Err(words));
    check(501, unable, false, Ok(words));
    let only = br#"{"error":"\"lab\" does not support generate"}"#;
    assert!(makes_no_text(400, only) && !makes_no_text(404, only) && !makes_no_text(400, error.as_bytes()));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn junk_proves_nothing(status in 0_u16..1000, body in any::<Vec<u8>>(), embedding in any::<bool>()) {
        let outcome = parse(status, &body, WAITED, embedding);
        prop_assert!(!matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    }

    #[test]
    fn a_cut_answer_proves_nothing(end in 0..TRUE.len(), embedding in 0..EMBEDDING.len()) {
        for (body, embeds) in [(&TRUE[..end], false), (&EMBEDDING[..embedding], true)] {
            let outcome = parse(200, body.as_bytes(), WAITED, embeds);
            prop_assert!(!matches!(outcome, Outcome::Answered(_)), "{body}: {outcome:?}");
        }
    }

    #[test]
    fn whatever_the_numbers_are_an_answer_is_plausible(
        numbers in proptest::collection::vec(prop_oneof![any::<u64>(), 0..40_u64, 0..2_000_000_000_u64], 6),
        waited in 0..60_000_u64,
    ) {
        let [total, load, read, prompt, written, eval] = numbers[..] else { unreachable!() };
        let body = format!(
            r#"{{"model":"m","done":true,"total_duration":{total},"load_duration":{load},"prompt_eval_count":{read},"prompt_eval_duration":{prompt},"eval_count":{written},"eval_duration":{eval}}}"#
        );
        let waited = Duration::from_millis(waited);
        if let Outcome::Answered(answered) = parse(200, body.as_bytes(), waited, false) {
            prop_assert!(answered.total <= waited + CLOCK_TOLERANCE && answered.busy() <= waited + CLOCK_TOLERANCE);
            prop_assert!((1..=MOST_TOKENS).contains(&answered.tokens_written));
            prop_assert!(answered.tokens_per_second().is_none_or(|speed| speed > 0.0 && speed <= 100_000.0));
        }
    }
}
