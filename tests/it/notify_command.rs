//! `agent-net notify --test`, and what `doctor` and the settings say about receivers.

use std::process::Command;

use crate::fake_receiver::{Behavior, FakeReceiver};
use crate::harness::{Worker, agent_net, run};

/// Exit code, stdout and stderr.
fn notify(args: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command: Command = agent_net();
    command.arg("notify").args(args).env("SERVER_PORT", "1").envs(settings.iter().copied());
    let (status, out, err) = run(&mut command);
    (status.code(), out, err)
}

#[test]
fn a_test_message_is_sent_to_each_receiver_and_each_has_a_line() {
    let receivers = [Behavior::say(200), Behavior::Say(403, String::new(), "invalid_token"), Behavior::HangUp]
        .map(FakeReceiver::of);
    let urls: Vec<String> = receivers.iter().map(|receiver| receiver.url("/secret99")).collect();
    let (code, out, err) = notify(&["--test"], &[("NOTIFY_URL", &urls.join(","))]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 3), "{out}{err}");
    let line = |at: usize, rest: &str| {
        let start = format!("http://{}/… (json): {rest}", receivers[at].addr);
        assert!(lines[at].starts_with(&start), "{out}");
    };
    line(0, "accepted");
    line(1, "refused: 403 invalid_token. Check NOTIFY_URL");
    line(2, "failed: ");
    assert!(!out.contains("secret99"), "{out}");
    let body = receivers[0].messages()[0].json();
    assert_eq!((&body["event"], body["verdict"].is_null()), (&"test".into(), true));
    let (code, out, _) = notify(&["--test"], &[("NOTIFY_URL", &urls[0]), ("NOTIFY_FORMAT", "slack")]);
    assert_eq!((code, out), (Some(0), format!("http://{}/… (slack): accepted\n", receivers[0].addr)));
}

#[test]
fn the_message_has_the_verdict_of_the_worker() {
    let (receiver, worker) = (FakeReceiver::new(), Worker::start(&[("EXPECTED_GPUS", "1")]));
    worker.report();
    let port = worker.addr.port().to_string();
    let settings = [("NOTIFY_URL", &*receiver.url("/x")), ("SERVER_PORT", &port), ("SERVER_HOST", "127.0.0.1")];
    let (code, out, err) = notify(&["--test"], &settings);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(receiver.messages()[0].words(), "test unhealthy");
    let body = receiver.messages()[0].json();
    assert_eq!(
        (&body["reasons"][0]["help"], body["text"].as_str().map(|t| t.contains("(NO_GPU)")),),
        (&"/codes#NO_GPU".into(), Some(true)),
        "{body:#}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let (code, _, err) = notify(&[], &[("NOTIFY_URL", "http://127.0.0.1:9/x")]);
    assert_eq!(code, Some(64));
    assert!(err.contains("missing --test") && err.contains("see agent-net notify --help"), "{err}");
    let (code, _, err) = notify(&["--test"], &[]);
    assert_eq!(code, Some(78));
    assert!(err.contains("NOTIFY_URL is not set"), "{err}");
    let ntfy = [("NOTIFY_URL", "https://ntfy.sh/"), ("NOTIFY_FORMAT", "ntfy")];
    let (code, _, err) = notify(&["--test"], &ntfy);
    assert_eq!(code, Some(78));
    assert!(err.contains("URL 1 of 1: must end with a topic where NOTIFY_FORMAT is ntfy, such as"), "{err}");
}

#[test]
fn the_doctor_connects_and_sends_nothing() {
    let receiver = FakeReceiver::new();
    let urls = format!("{},http://127.0.0.1:9/x", receiver.url("/x"));
    let mut doctor = agent_net();
    doctor.arg("doctor").envs([("NOTIFY_URL", &*urls), ("AGENT_NET_FAULT", "hurry:100")]);
    let (_, out, _) = run(&mut doctor);
    assert!(
        out.contains(&format!("http://{}/… (json) can be reached; `agent-net notify --test`", receiver.addr)),
        "{out}"
    );
    assert!(out.contains("http://127.0.0.1:9/… (json) cannot be reached: connection refused"), "{out}");
    assert_eq!(receiver.messages().len(), 0);
}
