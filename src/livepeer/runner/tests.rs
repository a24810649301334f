//! The machine in rows, and what is read and written.

use super::*;
use crate::config::price::Price;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn first() -> BeatAnswer {
    BeatAnswer::Taken { secret: Some("hb".into()), interval: Some(s(5)), ttl: Some(s(20)), orchestrator: None }
}

fn beat() -> BeatAnswer {
    BeatAnswer::Taken { secret: None, interval: Some(s(5)), ttl: Some(s(20)), orchestrator: None }
}

fn trouble() -> BeatAnswer {
    BeatAnswer::Failed { kind: "no_answer", why: "no".into() }
}

fn live(at: u64) -> Runner {
    let mut runner = Runner::new(s(at));
    assert_eq!(runner.answered(s(at), first(), 0.5), BeatResult::Registered);
    runner
}

fn kind(news: &BeatResult) -> &'static str {
    match news {
        BeatResult::Failed { kind, .. } => kind,
        BeatResult::Registered => "registered",
        BeatResult::Unchanged => "same",
        BeatResult::Lost => "lost",
    }
}

#[test]
fn it_begins_with_the_orchestrators_secret_and_goes_on_with_its_own() {
    let mut runner = Runner::new(s(3));
    assert_eq!((runner.due(), runner.secret(), runner.shown()), (s(3), None, lease::RegistrationState::Waiting));
    runner.answered(s(4), first(), 0.5);
    assert_eq!(
        (runner.due(), runner.secret(), runner.shown()),
        (s(9), Some("hb"), lease::RegistrationState::Registered)
    );
    assert_eq!(runner.answered(s(9), beat(), 0.5), BeatResult::Unchanged);
    assert_eq!(runner.due(), s(14));
    runner.hasten(s(10));
    assert_eq!(runner.due(), s(10));
    let again = BeatAnswer::Taken { secret: Some("new".into()), interval: None, ttl: None, orchestrator: None };
    assert_eq!((runner.answered(s(14), again, 0.5), runner.secret()), (BeatResult::Unchanged, Some("new")));
    // The interval is the registry's, within reason.
    for (interval, ttl, expect) in [(1, 20, 1), (0, 20, 1), (600, 20, 6), (60, 600, 60), (3600, 36_000, 60)] {
        let answer =
            BeatAnswer::Taken { secret: None, interval: Some(s(interval)), ttl: Some(s(ttl)), orchestrator: None };
        runner.answered(s(100), answer, 0.5);
        assert_eq!(runner.due().as_secs(), 100 + expect, "{interval} of {ttl}");
    }
}

#[test]
fn a_lost_registration_is_renewed_immediately_but_only_once() {
    for lost in [
        BeatAnswer::NotRegistered,
        BeatAnswer::Held,
        BeatAnswer::Expired,
        BeatAnswer::Unclear("x".into()),
        BeatAnswer::Absent,
    ] {
        let mut runner = live(0);
        assert_eq!(runner.answered(s(100), lost.clone(), 0.5), BeatResult::Lost);
        assert_eq!((runner.due(), runner.secret()), (s(100), None));
        // Lost again in the same moment: no storm.
        runner.answered(s(100), first(), 0.5);
        assert_eq!(runner.answered(s(100), lost, 0.5), BeatResult::Lost);
        assert_eq!(runner.due(), s(101));
    }
}

#[test]
fn a_lost_answer_costs_a_beat_and_not_the_secret() {
    let mut runner = live(0);
    for (at, due) in [(5, 6), (6, 11), (11, 16), (60, 65)] {
        assert_eq!(kind(&runner.answered(s(at), trouble(), 0.5)), "no_answer");
        assert_eq!(
            (runner.due(), runner.secret(), runner.shown()),
            (s(due), Some("hb"), lease::RegistrationState::Failing)
        );
    }
    // What was said of it is over.
    assert_eq!(runner.answered(s(65), beat(), 0.5), BeatResult::Registered);
    assert_eq!(runner.answered(s(70), beat(), 0.5), BeatResult::Unchanged);
}

/// The waits and messages of several rejections in a row.
fn refused(runner: &mut Runner, answer: &BeatAnswer, name: &str, times: usize) -> (Vec<u64>, Vec<String>) {
    let mut all = (Vec::new(), Vec::new());
    for _ in 0..times {
        let now = runner.due();
        let BeatResult::Failed { kind, message } = runner.answered(now, answer.clone(), 0.5) else {
            panic!("it failed")
        };
        assert_eq!(kind, name);
        all.0.push((runner.due() - now).as_secs());
        all.1.push(message);
    }
    all
}

#[test]
fn an_id_in_use_is_retried_quickly_and_then_reported() {
    let mut runner = Runner::new(s(0));
    let (waits, messages) = refused(&mut runner, &BeatAnswer::Held, "held", 12);
    assert_eq!(waits[..7], [1, 1, 1, 1, 1, 5, 5]);
    // An earlier life is over after 20 s, and its id free after 25 s.
    let since: Vec<u64> = (0..12).map(|i| waits[..i].iter().sum()).collect();
    for (since, message) in since.iter().zip(&messages) {
        assert_eq!(message.contains("another worker"), *since > 30, "{since}: {message}");
    }
    // Its end is near: the next sweep is not missed.
    assert_eq!(refused(&mut runner, &BeatAnswer::Expired, "held", 12).0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5, 5]);
    let now = runner.due();
    assert_eq!(runner.answered(now, first(), 0.5), BeatResult::Registered);
    // What comes later has nothing to do with it.
    runner.answered(now, BeatAnswer::Held, 0.5);
    assert!(refused(&mut runner, &BeatAnswer::Held, "held", 1).1[0].contains("before a crash"));
}

#[test]
fn a_refusal_with_two_meanings_is_tried_at_each_beat_before_it_counts() {
    let mut runner = Runner::new(s(0));
    let answer = BeatAnswer::Unclear("401: invalid runner credential".into());
    let (waits, messages) = refused(&mut runner, &answer, "unauthorized", 10);
    assert_eq!(waits, [5, 5, 5, 5, 5, 5, 5, 15, 30, 60]);
    for (i, message) in messages.iter().enumerate() {
        assert!(["ORCH_SECRET", "RUNNER_ID", "invalid runner credential"].iter().all(|part| message.contains(part)));
        assert_eq!(message.contains("another worker"), i >= 7, "{message}");
    }
    // The registry's own pace counts, if it is known.
    let mut runner = live(0);
    let slow = BeatAnswer::Taken { secret: None, interval: Some(s(10)), ttl: Some(s(60)), orchestrator: None };
    runner.answered(s(5), slow, 0.5);
    assert_eq!(runner.answered(s(15), answer.clone(), 0.5), BeatResult::Lost);
    assert_eq!(refused(&mut runner, &answer, "unauthorized", 10).0, [10, 10, 10, 10, 10, 10, 10, 10, 10, 15]);
}

#[test]
fn refusals_have_their_own_delays() {
    #[track_caller]
    fn check(answer: &BeatAnswer, name: &str, expect: [u64; 4]) {
        let mut runner = Runner::new(s(0));
        for wait in expect {
            assert_eq!(kind(&runner.answered(s(50), answer.clone(), 0.5)), name);
            assert_eq!(runner.due(), s(50 + wait));
        }
        assert_eq!(runner.shown(), lease::RegistrationState::Failing);
        assert_eq!(runner.answered(s(60), first(), 0.5), BeatResult::Registered);
    }
    check(&BeatAnswer::NotRegistered, "wrong_secret", [15, 30, 60, 60]);
    check(&BeatAnswer::Rejected("no".into()), "bad_body", [15, 30, 60, 60]);
    check(&BeatAnswer::Absent, "absent", [30, 60, 60, 60]);
    check(&trouble(), "no_answer", [1, 2, 4, 8]);
    // A rejected later beat, perhaps by a proxy, does not end the entry: its secret is kept until its TTL.
    let mut runner = live(0);
    for (at, due) in [(5, 6), (6, 11), (11, 16), (16, 21)] {
        assert_eq!(kind(&runner.answered(s(at), BeatAnswer::Rejected("no".into()), 0.5)), "bad_body");
        assert_eq!((runner.due(), runner.secret().is_some()), (s(due), true));
    }
    assert_eq!(
        (runner.shown(), runner.clone().answered(s(21), beat(), 0.5)),
        (lease::RegistrationState::Failing, BeatResult::Registered)
    );
    assert_eq!(kind(&runner.answered(s(21), BeatAnswer::Rejected("no".into()), 0.5)), "bad_body");
    assert_eq!((runner.due(), runner.secret()), (s(36), None));
    // A first beat needs a secret in its answer.
    let mut runner = Runner::new(s(0));
    assert_eq!(kind(&runner.answered(s(1), beat(), 0.5)), "protocol");
    assert_eq!((runner.secret(), runner.shown()), (None, lease::RegistrationState::Failing));
}

#[test]
fn answers_are_read_by_their_status() {
    let answer = |status, body| beat_answer(status, body, Some("s3cret"), None);
    let taken =
        r#"{"runner_id":"a","heartbeat_interval":"1m30s","heartbeat_ttl":"5m0s","heartbeat_secret":"x","o2r":{}}"#;
    let (secret, orchestrator) = (Some("x".into()), None);
    assert_eq!(
        answer(200, taken),
        BeatAnswer::Taken { secret, interval: Some(s(90)), ttl: Some(s(300)), orchestrator }
    );
    let BeatAnswer::Taken { orchestrator, .. } = answer(200, r#"{"runner_id":"a","orchestrator":"https://o"}"#) else {
        panic!("it is taken")
    };
    assert_eq!(orchestrator.as_deref(), Some("https://o"));
    for junk in ["", "{}", "ok", "[]", r#"{"runner_id":""}"#] {
        assert!(matches!(answer(200, junk), BeatAnswer::Failed { .. }), "{junk}");
    }
    assert_eq!(answer(401, "invalid registration authorization\n"), BeatAnswer::NotRegistered);
    assert_eq!(answer(401, "invalid heartbeat authorization\n"), BeatAnswer::Held);
    for unclear in [r#"{"error":"unauthorized"}"#, "invalid runner credential\n", ""] {
        assert!(matches!(answer(401, unclear), BeatAnswer::Unclear(_)), "{unclear}");
    }
    assert_eq!(answer(404, "runner not found\n"), BeatAnswer::Expired);
    assert_eq!(answer(404, "live runners are not supported\n"), BeatAnswer::Absent);
    assert_eq!(answer(404, "404 page not found\n"), BeatAnswer::Absent);
    assert_eq!(answer(400, "capacity\nmust be >= 0\n"), BeatAnswer::Rejected("capacity must be >= 0".into()));
    assert_eq!(answer(403, "not s3cret"), BeatAnswer::Rejected("not ***".into()));
    assert!(matches!(answer(503, ""), BeatAnswer::Failed { .. }));
}

#[test]
fn a_rejected_price_names_the_setting() {
    #[track_caller]
    fn check(words: &str, price: &str, part: &str) {
        let price = Price::parse(price);
        let BeatAnswer::Rejected(words) = beat_answer(400, words, None, price.as_ref()) else {
            panic!("it is rejected")
        };
        assert!(words.contains(part), "{words}");
        assert_eq!(words.contains("RUNNER_PRICE"), !part.is_empty(), "{words}");
    }
    check("price_info.price is required\n", "", "Set RUNNER_PRICE");
    check("price_info.unit must be hour or fixed", "1usd/720p", "livepeer/node");
    check("unsupported unit 720p", "1usd/720p", "Use fixed or hour");
    check("price_info.price must be a positive decimal", "1usd/hour", "Check RUNNER_PRICE");
    check("capacity must be >= 0", "1usd/hour", "");
}

#[test]
fn a_list_is_what_discovery_answers() {
    for list in [r#"[{"address":"https://o:8935"}]"#, "[]", " null\n", "[{\"addr"] {
        assert!(lists_runners(list), "{list}");
    }
    for other in ["", "<html>", "{}", "ok", r#""[""#, "nullx"] {
        assert!(!lists_runners(other), "{other}");
    }
}

/// A recorded answer: its status and its body.
fn recorded(text: &str) -> BeatAnswer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    beat_answer(head.split(' ').nth(1).unwrap().parse().unwrap(), body, None, None)
}

macro_rules! recording {
    ($name:literal) => {
        recorded(include_str!(concat!("../../../tests/it/recordings/register/", $name, ".client_out")))
    };
}

#[test]
fn what_a_real_registry_answered_is_understood() {
    let BeatAnswer::Taken { secret: Some(secret), interval, ttl, orchestrator } = recording!("hb-bootstrap") else {
        panic!("not taken")
    };
    assert_eq!((secret.len(), interval, ttl), (52, Some(s(5)), Some(s(20))));
    assert!(orchestrator.unwrap().starts_with("https://127.0.0.1:"));
    assert!(matches!(recording!("hb-beat"), BeatAnswer::Taken { secret: None, .. }));
    assert_eq!(recording!("hb-after-restart-heartbeat-secret"), BeatAnswer::NotRegistered);
    assert_eq!(recording!("hb-after-unregister"), BeatAnswer::NotRegistered);
    assert_eq!(recording!("hb-bootstrap-wrong-secret"), BeatAnswer::NotRegistered);
    assert_eq!(recording!("hb-beat-wrong"), BeatAnswer::Held);
    assert_eq!(recording!("hb-beat-with-orch-secret"), BeatAnswer::Held);
    assert_eq!(recording!("other-post-runners_heartbeat"), BeatAnswer::Absent);
    assert_eq!(recording!("rule-capacity-neg"), BeatAnswer::Rejected("capacity must be >= 0".into()));
}

#[test]
fn prices() {
    let price = Price::parse("0.0005usd/fixed").unwrap();
    assert_eq!(serde_json::to_string(&price).unwrap(), r#"{"price":"0.0005","currency":"usd","unit":"fixed"}"#);
    assert!(Price::parse("12usd/hour").is_some() && Price::parse("1.50usd/720p").is_some());
    for junk in [
        "",
        "1",
        "usd/fixed",
        "0usd/fixed",
        "0.0usd/hour",
        "-1usd/hour",
        "1eur/hour",
        "1usd/day",
        "1/3usd/hour",
        "1.usd/hour",
        ".5usd/hour",
        "1e3usd/hour",
        "1.2.3usd/hour",
    ] {
        assert_eq!(Price::parse(junk), None, "{junk}");
    }
}
