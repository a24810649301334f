//! The heartbeat by its rules: times, statuses, answers.

use super::*;
use crate::health::verdict::Reason;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The times of all calls until `end`. `takes`: of each call; `fails`: for now.
fn calls(interval: u64, end: u64, takes: u64, fails: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut schedule = Schedule::new(s(interval), s(0));
    let (mut now, mut calls) = (s(0), Vec::new());
    loop {
        now += schedule.wait(now);
        if now > s(end) {
            return calls;
        }
        calls.push(now.as_secs());
        schedule.called(now);
        now += s(takes);
        if !fails(now.as_secs()) || !schedule.retry(now) {
            schedule.done(now);
        }
    }
}

#[test]
fn intervals_do_not_drift() {
    assert_eq!(calls(60, 240, 0, |_| false), [0, 60, 120, 180, 240]);
    assert_eq!(calls(60, 240, 7, |_| false), [0, 60, 120, 180, 240]);
    // A call that takes longer than an interval.
    assert_eq!(calls(12, 60, 15, |_| false), [0, 24, 48]);
}

#[test]
fn a_failure_is_tried_three_times_in_an_interval() {
    assert_eq!(calls(60, 140, 0, |_| true), [0, 5, 20, 60, 65, 80, 120, 125, 140]);
    assert_eq!(calls(60, 100, 10, |_| true), [0, 15, 40, 60, 75, 100]);
    assert_eq!(calls(60, 100, 0, |now| now == 0), [0, 5, 60]);
    assert_eq!(calls(86_400, 90_000, 0, |_| true), [0, 5, 20, 86_400, 86_405, 86_420]);
}

#[test]
fn five_calls_a_minute_are_the_most() {
    for interval in 10..90 {
        for takes in 0..12 {
            let calls = calls(interval, 2000, takes, |_| true);
            let close = calls.windows(MOST_CALLS + 1).find(|calls| calls[MOST_CALLS] - calls[0] < 60);
            assert_eq!(close, None, "{interval} {takes}");
            let gap = calls.windows(2).map(|two| two[1] - two[0]).max();
            assert!(gap <= Some(2 * interval.max(12)), "{interval} {takes}: {gap:?}");
        }
    }
}

#[test]
fn after_a_sleep_there_is_one_call() {
    let mut schedule = Schedule::new(s(60), s(0));
    schedule.called(s(0));
    schedule.done(s(1));
    assert_eq!(schedule.wait(s(1)), s(59));
    // Asleep from 30 to 10,000.
    assert_eq!(schedule.wait(s(10_000)), s(0));
    schedule.called(s(10_000));
    schedule.done(s(10_001));
    assert_eq!(schedule.wait(s(10_001)), s(19));
}

fn standing(verdict: Verdict, reasons: &[(Code, &str)]) -> Standing {
    let reason = |(code, message): &(Code, &str)| Reason::new(*code, verdict, None, (*message).into(), "Do it.", 1.0);
    Standing { verdict, reasons: reasons.iter().map(reason).collect(), gpus: 1 }
}

#[test]
fn only_a_healthy_worker_is_up() {
    #[track_caller]
    fn check(template: &str, standing: &Standing, serves: bool, expect: Option<&str>) {
        assert_eq!(url(&SecretUrl::parse(template).unwrap(), standing, serves).as_deref(), expect);
    }
    const PLAIN: &str = "http://h/ping/uuid";
    const KUMA: &str = "http://h/api/push/t?status={status}&msg={message}&ping=";
    let ok = standing(Verdict::Ok, &[]);
    let hot = standing(Verdict::Degraded, &[(Code::TempHigh, "GPU 0: 95 °C"), (Code::NvmlHelperFailed, "x")]);
    let lost = standing(Verdict::Unhealthy, &[(Code::GpuReadFailed, "GPU 1: lost")]);
    let unknown = standing(Verdict::Unknown, &[]);
    let old = standing(Verdict::Degraded, &[(Code::Stale, "Last GPU sample is 20 s old")]);
    for (standing, message) in [(&ok, "ok"), (&hot, "degraded%3A%20TEMP_HIGH%20GPU%200%2C%201%20more")] {
        check(PLAIN, standing, true, Some(PLAIN));
        check(KUMA, standing, true, Some(&format!("http://h/api/push/t?status=up&msg={message}&ping=")));
        check(PLAIN, standing, false, None);
    }
    for (standing, message) in
        [(&lost, "unhealthy%3A%20GPU_READ_FAILED%20GPU%201"), (&unknown, "unknown"), (&old, "degraded%3A%20STALE")]
    {
        check(PLAIN, standing, true, None);
        check("http://h/{message}", standing, true, None);
        check(KUMA, standing, true, Some(&format!("http://h/api/push/t?status=down&msg={message}&ping=")));
    }
    let deaf = "http://h/down?unhealthy%3A%20%2Fhealth%20of%20the%20worker%20does%20not%20respond";
    check("http://h/{status}?{message}", &ok, false, Some(deaf));
}

#[test]
fn a_message_is_short() {
    let many: Vec<_> = (0..100).map(|_| (Code::TempHigh, "GPU 10: hot")).collect();
    let url = url(&SecretUrl::parse("http://h/{message}").unwrap(), &standing(Verdict::Degraded, &many), true).unwrap();
    let (_, message) = url.split_once("h/").unwrap();
    assert_eq!(message.replace("%3A", ":").replace("%2C", ",").replace("%20", " ").len(), MOST_CHARACTERS);
}

/// Answers as Uptime Kuma, Healthchecks and proxies in front of them give them.
#[test]
fn answers_are_read_as_monitors_mean_them() {
    let answer = |status: u16, body: &str| outcome(&Ok(Answer { status, retry_after: None, body: body.into() }));
    for (status, body) in [(200, "OK"), (200, r#"{"ok":true}"#), (201, ""), (204, ""), (200, "Got it, thanks!")] {
        assert_eq!(answer(status, body), Outcome::Accepted, "{status} {body}");
    }
    for (status, body) in [(500, ""), (503, r#"{"ok":false}"#), (408, "")] {
        assert!(matches!(answer(status, body), Outcome::Retry(_)), "{status} {body}");
    }
    let final_ones = [
        (404, "not found", "check HEARTBEAT_URL"),
        (404, r#"{"ok":false,"msg":"Monitor not found or not active."}"#, "paused"),
        (200, r#"{"ok":false,"msg":"Monitor not found or not active."}"#, "paused"),
        // uptime-kuma#679: its pages answer to every path that it does not know.
        (200, "<!DOCTYPE html>\n<html lang=\"en\">", "check the path"),
        (301, "", "new address"),
        (401, "", "login"),
        (409, "", "check HEARTBEAT_URL"),
        (429, "", "HEARTBEAT_INTERVAL"),
    ];
    for (status, body, part) in final_ones {
        match answer(status, body) {
            Outcome::Wait(why) => assert!(why.contains(part) && why.contains(&status.to_string()), "{why}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
    let none = NoAnswer { why: "timeout".into(), unsent: false };
    assert_eq!(outcome(&Err(none)), Outcome::Retry("timeout".into()));
}
