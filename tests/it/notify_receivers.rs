//! Receivers that fail: which answers are retried, when, and what a receiver gets that was away.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::json;

use crate::fake_receiver::{Behavior, FakeReceiver};
use crate::harness::{Worker, agent_net, folder, run, wait_for};
use crate::tls;

/// A worker that needs no GPU. Waits are a hundredth.
fn start(url: &str, more: &[(&str, &str)]) -> Worker {
    let settings = [
        ("EXPECTED_GPUS", "0"),
        ("SAMPLE_INTERVAL", "100ms"),
        ("NOTIFY_URL", url),
        ("NOTIFY_AFTER", "0s"),
        ("AGENT_NET_FAULT", "hurry:100"),
    ];
    Worker::start(&[&settings[..], more].concat())
}

fn count(receiver: &FakeReceiver) -> usize {
    receiver.messages().len()
}

/// The first tries fail like this, and then it is accepted.
#[track_caller]
fn check_retried(failure: &Behavior, tries: usize, words: &str) {
    let receiver = FakeReceiver::of(failure.clone());
    let worker = start(&receiver.url("/hook"), &[]);
    wait_for("tries", || (count(&receiver) >= tries).then_some(()));
    receiver.set(Behavior::say(200));
    wait_for("success", || (receiver.words().len() == 1).then_some(()));
    let log = wait_for("the recovery", || {
        let log = worker.log();
        log.contains("accepts notifications again").then_some(log)
    });
    assert_eq!(log.matches("cannot notify").count(), 1, "{failure:?}: {log}");
    assert!(log.contains(words), "{failure:?}: {log}");
    let ids: Vec<String> = receiver.messages().iter().map(|m| m.headers["idempotency-key"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn failures_that_may_pass_are_retried() {
    check_retried(&Behavior::say(500), 3, "http://127.0.0.1:");
    check_retried(
        &Behavior::Say(503, String::new(), "<html>maintenance</html>"),
        2,
        ": 503; retrying with the newest state",
    );
    check_retried(&Behavior::HangUp, 2, "connection closed");
    check_retried(&Behavior::wait("2"), 2, ": 429; retrying");
    check_retried(&Behavior::wait("1.5"), 2, ": 429; retrying");
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    check_retried(&Behavior::wait(&date), 2, ": 429; retrying");
    let discord = r#"{"message":"You are being rate limited.","retry_after":1.25,"global":false}"#;
    check_retried(&Behavior::Say(429, String::new(), discord), 2, ": 429 You are being rate limited.; retrying");
}

/// The same message would be refused again.
#[track_caller]
fn check_refused(failure: &Behavior, more: &[(&str, &str)], words: &str) {
    let receiver = FakeReceiver::of(failure.clone());
    let worker = start(&receiver.url("/hook"), more);
    wait_for("the refusal", || worker.log().contains("refused a notification").then_some(()));
    let row = wait_for("the row", || {
        let row = worker.get("/gpu").json()["notifications"][0].clone();
        (row["state"] == "failed").then_some(row)
    });
    assert!(row["last_error"].as_str().unwrap().contains(words), "{row}");
    assert_eq!(row["pending"], false);
    let (_, log) = worker.stop();
    assert_eq!(count(&receiver), 1, "{failure:?}: {log}");
    assert!(log.contains(words), "{failure:?}: {log}");
}

#[test]
fn failures_that_will_not_pass_are_final() {
    let other = FakeReceiver::new();
    let redirect = format!("Location: {}\r\n", other.url("/stolen"));
    check_refused(&Behavior::Say(307, redirect, ""), &[], "307 (a redirect, which is not followed). Set NOTIFY_URL");
    assert_eq!(count(&other), 0, "the redirect was followed");
    check_refused(&Behavior::Say(404, String::new(), "no_service"), &[], "404 no_service. Check NOTIFY_URL");
    check_refused(&Behavior::say(400), &[], "400. Check NOTIFY_URL and NOTIFY_FORMAT.");
    let slack = Behavior::Say(200, String::new(), "{\"ok\":false}");
    check_refused(&slack, &[("NOTIFY_FORMAT", "slack")], "200 without the word ok");
    // uptime-kuma#6050: a login page in front of ntfy has a status of success.
    let page = Behavior::Say(200, "Content-Type: text/html\r\n".into(), "<!doctype html><title>Sign in</title>");
    check_refused(&page, &[("NOTIFY_FORMAT", "ntfy")], "200 without a message's id. It is not ntfy: check NOTIFY_URL");
}

/// Rocket.Chat#29230, zulip#31875: servers that take Slack's messages have their own words for success.
#[test]
fn what_takes_slacks_messages_may_have_another_word_for_success() {
    for body in [r#"{"success":true}"#, r#"{"result":"success","msg":"","ok":true}"#] {
        let receiver = FakeReceiver::of(Behavior::Say(200, String::new(), body));
        let worker = start(&receiver.url("/hook"), &[("NOTIFY_FORMAT", "slack")]);
        wait_for("success", || worker.log().contains("notified http://").then_some(()));
        assert!(!worker.log().contains("refused a notification"), "{body}: {}", worker.log());
    }
}

#[test]
fn an_endless_answer_is_cut_off() {
    let receiver = FakeReceiver::of(Behavior::Flood);
    let worker = start(&receiver.url("/hook"), &[]);
    wait_for("success", || worker.log().contains("notified http://").then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_receiver_that_starts_later_gets_the_state() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let worker = start(&format!("http://{addr}/hook"), &[("EXPECTED_GPUS", "1")]);
    wait_for("the outage", || worker.log().contains("connection refused; retrying").then_some(()));
    let receiver = FakeReceiver::at(TcpListener::bind(addr).unwrap(), Behavior::say(200));
    receiver.wait_for(&["started unhealthy"]);
    wait_for("the recovery", || worker.log().contains("accepts notifications again").then_some(()));
}

#[test]
fn certificates_are_verified_with_the_given_root() {
    let receiver = FakeReceiver::new();
    let url = format!("https://{}/hook", tls::in_front_of(receiver.addr, "own"));
    let rule = format!("ca:{}", tls::file("root.pem"));
    let worker = start(&url, &[]);
    wait_for("the refusal", || worker.log().contains("certificate").then_some(()));
    assert_eq!(count(&receiver), 0, "{}", worker.log());
    drop(worker);
    let worker = start(&url, &[("NOTIFY_TLS", &rule)]);
    wait_for("success", || (receiver.words().len() == 1).then_some(()));
    drop(worker);
    let worker = start(&url, &[("NOTIFY_TLS", "insecure")]);
    wait_for("success", || (receiver.words().len() == 2).then_some(()));
    assert!(worker.log().contains("NOTIFY_TLS=insecure: not verifying certificates"), "{}", worker.log());
    let mut wrong = agent_net();
    wrong.arg("serve").envs([("NOTIFY_URL", &*url), ("NOTIFY_TLS", "ca:/nonexistent"), ("SERVER_PORT", "0")]);
    let (status, _, err) = run(&mut wrong);
    assert_eq!(status.code(), Some(78), "{err}");
    assert!(err.contains("NOTIFY_TLS=\"ca:/nonexistent\": cannot open /nonexistent"), "{err}");
}

#[test]
fn a_url_file_is_read_again_when_it_is_refused_and_on_sighup() {
    let file = folder("notify-file").join("url");
    let (old, new) = (FakeReceiver::of(Behavior::say(404)), FakeReceiver::new());
    fs::write(&file, old.url("/old-hook")).unwrap();
    let settings = [("EXPECTED_GPUS", "0"), ("NOTIFY_AFTER", "0s"), ("NOTIFY_URL_FILE", file.to_str().unwrap())];
    let worker = Worker::start(&settings);
    wait_for("the refusal", || worker.log().contains("refused a notification").then_some(()));
    fs::write(&file, new.url("/new-hook")).unwrap();
    worker.signal(Signal::HUP);
    wait_for("success", || (new.words().len() == 1).then_some(()));
    assert_eq!(count(&old), 1);
    let row = wait_for("the row", || {
        let row = worker.get("/gpu").json()["notifications"][0].clone();
        (row["state"] == "ok").then_some(row)
    });
    assert_eq!(row["target"], json!(format!("http://{}/…", new.addr)));
    // Without a signal: at the next message.
    new.set(Behavior::say(401));
    let third = FakeReceiver::new();
    fs::write(&file, third.url("/third")).unwrap();
    let (_, log) = worker.stop();
    assert_eq!(third.words().len(), 1, "{log}");
    assert!(!log.contains("hook") && !log.contains("third"), "{log}");
}

#[test]
fn plain_http_to_a_public_address_is_warned_of() {
    let worker = start("http://192.0.2.1:9/hook", &[("NOTIFY_AFTER", "1h")]);
    let log = worker.log();
    assert!(log.contains("NOTIFY_URL: http://192.0.2.1:9/… is used without TLS"), "{log}");
    let worker = start("http://127.0.0.1:9/hook", &[("NOTIFY_AFTER", "1h")]);
    assert!(!worker.log().contains("without TLS"), "{}", worker.log());
}
