//! What a receiver's answer means.

use super::*;

fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Result<Answer, NoAnswer> {
    Ok(Answer { status, retry_after: retry_after.map(str::to_owned), body: body.to_owned() })
}

fn judged(format: NotifyFormat, status: u16, retry_after: Option<&str>, body: &str) -> Outcome {
    judge(&target(format), &answer(status, retry_after, body), UNIX)
}

fn seconds(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Retry { wait, .. } => wait.map(|wait| wait.as_secs_f64()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn success_is_what_each_receiver_calls_so() {
    use NotifyFormat::{Discord, Json, Ntfy, Slack, Text};
    for (format, status, body) in [
        (Json, 200, ""),
        (Text, 204, ""),
        (Discord, 204, ""),
        (Ntfy, 200, "{\"id\":\"x\"}"),
        (Slack, 200, "ok"),
        // Rocket.Chat#29230, zulip#31875, bluele/slack#33.
        (Slack, 200, "{\"success\":true}"),
        (Slack, 200, "{\"result\":\"success\",\"msg\":\"\",\"ok\":true}"),
        (Slack, 204, ""),
        (Json, 202, "no"),
    ] {
        assert_eq!(judged(format, status, None, body), Outcome::Accepted, "{format:?} {status} {body}");
    }
    let no =
        ["{\"success\":false}", "{\"ok\":false,\"error\":\"invalid_auth\"}", "{\"error\":\"x\"}", "no_service", "[]"];
    for body in ["", "{\"ok\":false}", "<html>"].into_iter().chain(no) {
        assert!(matches!(judged(Slack, 200, None, body), Outcome::Refused { .. }), "{body}");
    }
    // uptime-kuma#6050, wud#1199: a login page in front of ntfy.
    for body in ["", "ok", "{}", "{\"id\":null}", "<!doctype html><title>Sign in</title>"] {
        assert!(matches!(judged(Ntfy, 200, None, body), Outcome::Refused { .. }), "{body}");
    }
    assert!(matches!(judged(Discord, 200, None, "<!DOCTYPE html>"), Outcome::Refused { .. }));
}

#[test]
fn an_error_is_retried_or_final() {
    for status in [408, 425, 429, 500, 502, 503, 599] {
        assert!(matches!(judged(NotifyFormat::Json, status, None, ""), Outcome::Retry { .. }), "{status}");
    }
    let silent = Err(NoAnswer { why: "connection refused".into(), unsent: true });
    let outcome = judge(&target(NotifyFormat::Json), &silent, UNIX);
    assert_eq!(outcome, Outcome::Retry { why: "connection refused".into(), wait: None, unclear: false });
    for (status, url) in
        [(301, false), (308, false), (400, false), (401, true), (403, true), (404, true), (410, true), (413, false)]
    {
        let outcome = judged(NotifyFormat::Json, status, Some("5"), "");
        assert!(matches!(outcome, Outcome::Refused { url: found, .. } if found == url), "{status}: {outcome:?}");
    }
}

#[test]
fn a_receiver_may_name_the_wait() {
    use NotifyFormat::{Discord, Json, Ntfy};
    #[track_caller]
    fn check(format: NotifyFormat, header: Option<&str>, body: &str, expect: Option<f64>) {
        assert_eq!(seconds(&judged(format, 429, header, body)), expect, "{header:?} {body}");
    }
    check(Json, Some("65"), "", Some(65.0));
    check(Json, Some(" 1.5 "), "", Some(1.5));
    check(Json, Some("0"), "", Some(1.0));
    check(Json, Some("86400"), "", Some(600.0));
    check(Json, Some("-5"), "", Some(1.0));
    check(Json, Some("inf"), "", None);
    check(Json, Some("NaN"), "", None);
    check(Json, Some("soon"), "", None);
    check(Json, Some("Sun, 06 Nov 1994 08:49:57 GMT"), "", Some(20.0));
    check(Json, Some("Sun, 06 Nov 1994 08:49:17 GMT"), "", Some(1.0));
    check(
        Discord,
        None,
        r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#,
        Some(64.57),
    );
    check(Discord, Some("65"), r#"{"retry_after":64570.0}"#, Some(65.0));
    check(Discord, None, r#"{"retry_after":64570.0,"code":0}"#, Some(600.0));
    check(Ntfy, None, r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#, None);
    check(
        Ntfy,
        Some("5"),
        r#"{"code":42908,"http":429,"error":"limit reached: daily message quota reached"}"#,
        Some(3600.0),
    );
    assert_eq!(seconds(&judged(Json, 503, Some("7"), "")), Some(7.0));
}

#[test]
fn an_error_is_in_the_receivers_words_unless_they_repeat_the_url() {
    #[track_caller]
    fn check(body: &str, expect: &str) {
        match judged(NotifyFormat::Json, 404, None, body) {
            Outcome::Refused { why, .. } => assert_eq!(why, expect, "{body}"),
            other => panic!("{other:?}"),
        }
    }
    check("no_service\n", "404 no_service");
    check(r#"{"code":40401,"error":"page not found"}"#, "404 page not found");
    check(r#"{"message":"Unknown Webhook","code":10015}"#, "404 Unknown Webhook");
    check("Cannot POST /services/secret99", "404");
    // Its end is cut off.
    check(&format!(r#"{{"error":"{}/services/secret99"}}"#, "x".repeat(MOST_WORDS - 8)), "404");
    check(r#"{"error":"no hook secret99"}"#, "404");
    check("<html>sorry</html>", "404");
    check("", "404");
    check(&format!(r#"{{"error":"{}"}}"#, "x\\n".repeat(500)), &format!("404 {}", "x ".repeat(60)));
}

#[test]
fn a_message_that_is_too_large_for_the_receiver_is_called_so() {
    let Outcome::Refused { why, fix, .. } = judged(NotifyFormat::Json, 413, None, "") else { panic!("it is final") };
    assert!(why.starts_with("413") && fix.contains("too large for the receiver"), "{why}: {fix}");
}
