//! Many jobs at a time, on one connection and on many, at the limit and at the end.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::fake_ollama::{Answer, FakeOllama, PS, TAGS, VERSION};
use crate::harness::{Worker, command, run, wait_for};
use crate::http::{Connection, Response};
use crate::jobs::{beside, bytes, job};
use crate::programs;

/// A worker with room for one job, and a connection whose job waits for the first sample. A job waits only in the
/// first 1.5 s: a machine that is too slow for that gets another try.
fn one_job_waits() -> (FakeOllama, Worker, Connection, Response) {
    for _ in 0..10 {
        let fake = FakeOllama::new();
        fake.set_all(&Answer::Hang);
        let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("CAPABILITY_CAPACITY", "1")]);
        let (mut first, mut second) = (Connection::open(worker.addr), Connection::open(worker.addr));
        first.send(&bytes("POST", "/gpu-check", &job("first"))).unwrap();
        // Once the worker has read it; the wait decides no result, a lost race is tried again.
        thread::sleep(Duration::from_millis(100));
        second.send(&bytes("POST", "/gpu-check", &job("second"))).unwrap();
        let answer = second.answer().expect("an answer");
        if answer.status == 503 {
            return (fake, worker, first, answer);
        }
    }
    panic!("no job was ever refused");
}

#[test]
fn more_jobs_than_the_capacity_are_refused() {
    let (_fake, worker, mut first, refusal) = one_job_waits();
    assert_eq!(refusal.code(), "at_capacity");
    assert!(refusal.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{refusal:?}");
    let answer = first.answer().expect("the first job is answered");
    assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!("first")), "{answer:?}");
    for _ in 0..3 {
        assert_eq!(worker.post("/gpu-check", &job("later")).status, 200, "the slot is free again");
    }
}

#[test]
fn sigterm_lets_the_job_in_flight_finish_and_ends_with_0() {
    let (_fake, worker, mut first, _) = one_job_waits();
    worker.signal(Signal::TERM);
    let answer = first.answer().expect("the job in flight is answered");
    assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!("first")), "{answer:?}");
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_panicking_job_is_a_500_and_nothing_more() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("AGENT_NET_FAULT", "panic:boom"), ("CAPABILITY_CAPACITY", "1")]);
    for _ in 0..5 {
        let answer = worker.post("/gpu-check", &job("boom"));
        assert_eq!((answer.status, answer.code().as_str()), (500, "internal"), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(!answer.text().contains("panic"), "{answer:?}");
        assert_eq!(worker.post("/gpu-check", &job("boo")).status, 200);
    }
}

#[test]
fn many_requests_on_one_connection() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    for i in 0..500 {
        let agent = format!("agent-{i}");
        connection.send(&bytes("POST", "/gpu-check", &job(&agent))).unwrap();
        let answer = connection.answer().unwrap_or_else(|why| panic!("request {i}: {why}"));
        assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!(agent)), "{answer:?}");
    }
}

/// An orchestrator's connections rest for minutes between two jobs; a new connection has 10 s for its request.
#[test]
fn a_connection_that_has_brought_a_job_may_rest_longer_than_a_new_one() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    for rest in [11, 0] {
        connection.send(&bytes("POST", "/gpu-check", &job("rests"))).unwrap();
        assert_eq!(connection.answer().expect("it is still open").status, 200);
        thread::sleep(Duration::from_secs(rest));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    let all: Vec<u8> = (0..20)
        .flat_map(|i| match i % 4 {
            3 => bytes("GET", "/nothing", ""),
            2 => bytes("POST", "/gpu-check", "{}"),
            _ => bytes("POST", "/gpu-check", &job(&format!("agent-{i}"))),
        })
        .collect();
    connection.send(&all).unwrap();
    for i in 0..20 {
        let answer = connection.answer().unwrap_or_else(|why| panic!("request {i}: {why}"));
        match i % 4 {
            3 => assert_eq!(answer.status, 404, "{i}: {answer:?}"),
            2 => assert_eq!(answer.status, 400, "{i}: {answer:?}"),
            _ => assert_eq!(answer.json()["agent_id"], json!(format!("agent-{i}")), "{answer:?}"),
        }
    }
}

#[test]
fn fifty_connections_at_once_each_get_their_own_answers() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("CAPABILITY_CAPACITY", "50")]);
    let addr = worker.addr;
    let one = |client: usize| {
        let mut connection = Connection::open(addr);
        for i in 0..10 {
            let agent = format!("agent-{client}-{i}");
            connection.send(&bytes("POST", "/agent-net", &job(&agent))).unwrap();
            let answer = connection.answer().unwrap_or_else(|why| panic!("{agent}: {why}"));
            assert_eq!((answer.status, &answer.json()["agent_id"]), (200, &json!(agent)), "{answer:?}");
        }
    };
    let one = &one;
    thread::scope(|scope| {
        for client in 0..50 {
            scope.spawn(move || one(client));
        }
    });
}

#[test]
fn requests_may_come_in_pieces_of_any_size() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let all = bytes("POST", "/gpu-check", &job("demo-agent"));
    let mut connection = Connection::open(worker.addr);
    for at in 1..all.len() {
        connection.send(&all[..at]).unwrap();
        connection.send(&all[at..]).unwrap();
        assert_eq!(connection.answer().unwrap_or_else(|why| panic!("in two at {at}: {why}")).status, 200);
    }
    for byte in &all {
        connection.send(&[*byte]).unwrap();
    }
    assert_eq!(connection.answer().expect("byte by byte").status, 200);
}

#[test]
fn a_client_that_never_reads_does_not_affect_others() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[("CAPABILITY_CAPACITY", "4")]);
    let flood = bytes("POST", "/gpu-check", &job("flood")).repeat(2000);
    let deaf: Vec<Connection> = (0..8).map(|_| Connection::open(worker.addr)).collect();
    let senders = deaf.iter().map(|connection| {
        let mut stream = connection.stream().try_clone().expect("a second handle");
        let flood = flood.clone();
        // It blocks as soon as all buffers on the way are full.
        thread::spawn(move || while stream.write_all(&flood).is_ok() {})
    });
    let senders: Vec<_> = senders.collect();
    for i in 0..50 {
        let answer = worker.post("/gpu-check", &job("a"));
        assert!(matches!(answer.status, 200 | 503), "{i}: {answer:?}");
    }
    for connection in &deaf {
        let _ = connection.stream().shutdown(Shutdown::Both);
    }
    for sender in senders {
        sender.join().expect("the sender ends");
    }
    wait_for("a free slot", || (worker.post("/gpu-check", &job("a")).status == 200).then_some(()));
}

/// With so few descriptors accept itself would fail without a count.
#[test]
fn more_connections_than_descriptors_end_nothing() {
    let mut limited = command("/bin/sh");
    limited.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", programs::server()]);
    let fake = FakeOllama::new();
    for (path, body) in [("/api/version", VERSION), ("/api/tags", TAGS), ("/api/ps", PS)] {
        // Each needs a descriptor of its own.
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        fake.set(path, Answer::Raw { bytes: (head + body).into_bytes(), close: true });
    }
    let settings = [("OLLAMA_URL", fake.url()), ("EXPECTED_GPUS", "0".into()), ("SAMPLE_INTERVAL", "100ms".into())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let worker = Worker::of(limited, &settings);
    assert!(worker.log().contains("this process is limited to 256 open files"), "{}", worker.log());
    assert_eq!(worker.post("/gpu-check", &job("a")).status, 200);
    let mut served = Connection::open(worker.addr);
    served.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
    assert_eq!(served.answer().expect("an answer").status, 200);
    let idle: Vec<Connection> = (0..400).map(|_| Connection::open(worker.addr)).collect();
    // A connection that has its place keeps it, and Ollama is still reached.
    let before = fake.requests("/api/ps");
    wait_for("polls of Ollama in a crowd", || (fake.requests("/api/ps") >= before + 3).then_some(()));
    served.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
    assert_eq!(served.answer().expect("an answer").status, 200);
    assert!(!worker.log().contains("unhealthy: "), "Ollama was out of reach");
    drop(idle);
    wait_for("an answer after the crowd", || {
        let mut connection = Connection::open(worker.addr);
        let answer = connection.send(&bytes("POST", "/gpu-check", &job("a"))).and_then(|()| connection.answer());
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

#[test]
fn a_long_answer_is_whole_and_the_next_one_follows_it() {
    let models: Vec<_> =
        (0..3000).map(|number| json!({"name": format!("model-{number}:8b"), "size": number})).collect();
    let fake = FakeOllama::new();
    fake.set("/api/tags", Answer::Json(json!({"models": models}).to_string()));
    let worker = beside(&fake, &[("SAMPLE_INTERVAL", "100ms")]);
    let mut connection = Connection::open(worker.addr);
    // Sent in one go, so that bytes too many or too few would be those of another answer.
    let two = [bytes("POST", "/gpu-check", &job("a")), bytes("POST", "/gpu-check", &job("b"))].concat();
    wait_for("all models", || {
        connection.send(&two).unwrap();
        let answers = ["a", "b"].map(|id| (id, connection.answer().unwrap()));
        answers
            .iter()
            .all(|(id, answer)| {
                let report = answer.json();
                assert_eq!((answer.status, &report["agent_id"]), (200, &json!(id)));
                report["models"].as_array().is_some_and(|models| models.len() >= 3000)
                    && answer.text().len() > 2 * 65_536
            })
            .then_some(())
    });
}

#[test]
fn health_is_answered_while_all_jobs_wait() {
    // A machine that is too slow for the 1.5 s in which jobs wait gets another try.
    let waited = (0..10).any(|_| health_is_answered_while_jobs_wait());
    assert!(waited, "every job was answered before");
}

/// Whether a job still waited when /health was answered.
fn health_is_answered_while_jobs_wait() -> bool {
    let fake = FakeOllama::new();
    fake.set_all(&Answer::Hang);
    // Far more than threads: those that wait may not take all of them.
    let worker = Worker::start(&[("OLLAMA_URL", &fake.url()), ("CAPABILITY_CAPACITY", "1000")]);
    let mut jobs: Vec<Connection> = (0..100).map(|_| Connection::open(worker.addr)).collect();
    for connection in &mut jobs {
        connection.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
    }
    assert_eq!(worker.get("/health").status, 200);
    // It was not answered only after them.
    let answered = |connection: &Connection| {
        connection.stream().set_nonblocking(true).unwrap();
        let answered = connection.stream().peek(&mut [0]).is_ok();
        connection.stream().set_nonblocking(false).unwrap();
        answered
    };
    let waiting = jobs.iter().filter(|connection| !answered(connection)).count();
    for mut connection in jobs {
        let answer = connection.answer().unwrap();
        assert!(answer.status == 200 || answer.code() == "no_sample", "{answer:?}");
    }
    waiting > 0
}

#[test]
fn too_few_open_files_are_reported() {
    let mut shell = command("/bin/sh");
    shell.args(["-c", "ulimit -n 48; exec \"$0\"", programs::server()]).env("SERVER_PORT", "0");
    let (status, _, stderr) = run(&mut shell);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("48 open files are allowed") && stderr.contains("ulimit -n"), "{stderr}");
}
