//! `agent-net pull MODEL`: on a terminal, in a log, and when it is stopped.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::fake_ollama::{Answer, FakeOllama, Step};
use crate::harness::{agent_net, run, wait_for};
use crate::model_store::{GB, layer, line};

/// Fourteen gigabytes in as many steps.
fn good(pause: u64) -> Answer {
    let steps = (0..=14).flat_map(|step| [layer("aa", 14 * GB, step * GB), Step::Pause(pause)]);
    let end = [
        layer("bb", 200, 200),
        line(r#"{"status":"verifying sha256 digest"}"#),
        line(r#"{"status":"writing manifest"}"#),
        line(r#"{"status":"success"}"#),
    ];
    let start = [line(r#"{"status":"pulling manifest"}"#)];
    Answer::Stream(start.into_iter().chain(steps).chain(end).collect())
}

fn ollama(answer: Answer) -> FakeOllama {
    let fake = FakeOllama::new();
    fake.set("/api/pull", answer);
    fake
}

#[test]
fn lines_where_there_is_no_terminal() {
    let fake = ollama(good(100));
    for args in [["pull", "lab:1", "--ollama-url", &fake.url()], ["pull", "--ollama-url", &fake.url(), "lab:1"]] {
        let (status, out, err) = run(agent_net().args(args));
        assert_eq!((status.code(), out.as_str()), (Some(0), "lab:1 is pulled\n"), "{err}");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines[0], "pulling manifest", "{err}");
        let bytes: Vec<&&str> = lines.iter().filter(|line| line.contains(" GB of 14.0 GB")).collect();
        assert!((13..=20).contains(&bytes.len()), "{err}");
        assert!(
            bytes.iter().any(|line| line.contains("85 %, 12.0 GB of 14.0 GB, ") && line.ends_with(" left")),
            "{err}"
        );
        assert_eq!(lines[lines.len() - 3..], ["verifying sha256 digest", "writing manifest", "success"], "{err}");
        assert!(!err.contains('\r') && !err.contains('\x1b'), "{err}");
    }
    assert_eq!(fake.bodies("/api/pull")[0], r#"{"model":"lab:1","stream":true}"#);
}

#[test]
fn a_bar_on_a_terminal() {
    let fake = ollama(good(120));
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it can be used");
    let side = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().unwrap();
    let end = File::options().read(true).write(true).open(side).expect("its other end");
    let mut pull = agent_net()
        .args(["pull", "lab:1", "--ollama-url", &fake.url()])
        .stdout(Stdio::piped())
        .stderr(end)
        .spawn()
        .expect("agent-net starts");
    let status = wait_for("the end of the pull", || pull.try_wait().unwrap());
    assert!(status.success());
    // Its end is an error. One read may miss what the kernel has not passed on yet.
    let mut screen = Vec::new();
    let _ = File::from(terminal).read_to_end(&mut screen);
    let screen = String::from_utf8_lossy(&screen).into_owned();
    let drawn: Vec<&str> = screen.split('\r').filter(|line| line.contains(" %, ")).collect();
    assert!(drawn.len() >= 10, "{screen:?}");
    assert!(drawn.iter().all(|line| line.trim_end_matches("\x1b[K").chars().count() < 80), "{screen:?}");
    assert!(screen.contains("[############............] 50 %, 7.0 GB of 14.0 GB"), "{screen:?}");
    assert!(screen.contains("(layer 1: 50 %)"), "{screen:?}");
    let percents: Vec<u32> =
        drawn.iter().map(|line| line.split("] ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(percents.is_sorted() && percents.last() == Some(&100), "{percents:?}");
}

#[test]
fn a_stop_says_how_to_go_on() {
    for signal in [Signal::INT, Signal::TERM] {
        let fake = ollama(Answer::Stream(vec![layer("aa", 14 * GB, GB), Step::Hang]));
        let pull = agent_net()
            .args(["pull", "lab:1", "--ollama-url", &fake.url()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("agent-net starts");
        wait_for("the request", || (fake.requests("/api/pull") == 1).then_some(()));
        // Handlers are there before the request.
        kill_process(Pid::from_child(&pull), signal).unwrap();
        let ended = pull.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{err}");
        assert!(err.contains("stopped. What was downloaded is kept: agent-net pull lab:1 resumes"), "{err}");
    }
}

#[test]
fn a_failed_pull_is_explained_in_one_line() {
    let error = |text: &str| Answer::Stream(vec![line(r#"{"status":"pulling manifest"}"#), line(text)]);
    for (answer, code, part) in [
        (
            error(r#"{"error":"pull model manifest: file does not exist"}"#),
            1,
            "lab:1: the registry does not have this model",
        ),
        (error(r#"{"error":"write: no space left on device"}"#), 1, "disk is full"),
        (
            error(
                r#"{"error":"max retries exceeded: Get \"https://h.example/blobs/sha256/26/260401/data?X-Amz-Signature=de2b\": EOF"}"#,
            ),
            1,
            "lab:1: the connection to the registry was cut",
        ),
        (error("garbage"), 1, "not a line of a pull"),
        (Answer::HangUp, 3, "lab:1: Ollama is not responding"),
        (Answer::Status(400, r#"{"error":"invalid model name"}"#.into()), 1, "invalid model name"),
    ] {
        let fake = ollama(answer);
        let (status, out, err) = run(agent_net().args(["pull", "lab:1", "--ollama-url", &fake.url()]));
        assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{err}");
        assert!(err.lines().last().unwrap().contains(part), "{part:?} is not in {err}");
        assert!(!err.contains("X-Amz"), "{err}");
    }
    let (status, _, err) = run(agent_net().args(["pull", "lab:1", "--ollama-url", "http://127.0.0.1:9"]));
    assert_eq!(status.code(), Some(3), "{err}");
    let unreachable =
        "cannot pull lab:1: Ollama is not responding: connection refused. Start Ollama, or check OLLAMA_URL.";
    assert!(err.contains(unreachable), "{err}");
    for (args, code) in [
        (&["pull"][..], 64),
        (&["pull", "http://registry/x"], 64),
        (&["pull", "a b"], 64),
        (&["pull", "x:cloud"], 64),
        (&["pull", "a", "b"], 64),
        (&["pull", "--x"], 64),
        (&["pull", "a", "--ollama-url", "ftp://x"], 78),
    ] {
        let (status, out, err) = run(agent_net().args(args));
        assert_eq!((status.code(), out.as_str()), (Some(code), ""), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    }
}

/// While nothing comes for a moment the last bytes stay as they are, and a dead server is not waited for.
#[test]
fn an_ollama_that_goes_away_ends_it() {
    let mut fake = ollama(Answer::Stream(vec![layer("aa", 14 * GB, GB), Step::Hang]));
    let pull = agent_net()
        .args(["pull", "lab:1", "--ollama-url", &fake.url()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("agent-net starts");
    wait_for("the request", || (fake.requests("/api/pull") == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    fake.stop();
    let ended = pull.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
}
