//! What comes of requests at SIGTERM.

use rustix::process::Signal;

use crate::fake_ollama::FakeOllama;
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::harness::{Worker, wait_for, without_new_threads};
use crate::http::Connection;
use crate::jobs::{beside, bytes, job};

/// A connection on which the worker waits for the body of a job, which is proven by its 100.
pub fn half_a_job(worker: &Worker) -> Connection {
    let mut connection = Connection::open(worker.addr);
    let length = job("late").len();
    let head =
        format!("POST /gpu-check HTTP/1.1\r\nHost: worker\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.any_answer(false).expect("an interim answer").status, 100);
    connection
}

/// SIGTERM, and the worker knows of it.
fn terminate(worker: &Worker) {
    worker.signal(Signal::TERM);
    wait_for("draining", || worker.log().contains("SIGTERM: stopping").then_some(()));
    // The line comes just before.
    wait_for("a 503 of /ready", || (worker.get("/ready").status == 503).then_some(()));
}

/// Its answer is good, and the last one on its connection; the worker ends well.
#[track_caller]
fn check_served(worker: Worker, mut connection: Connection) {
    let answer = connection.answer().expect("it is answered");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert_eq!(answer.json()["agent_id"], "late");
    assert!(connection.closed());
    let (status, log) = worker.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("did not end within"), "{log}");
}

#[test]
fn a_job_whose_body_comes_after_sigterm_is_served() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut late = half_a_job(&worker);
    terminate(&worker);
    for byte in job("late").as_bytes() {
        late.send(&[*byte]).unwrap();
    }
    check_served(worker, late);
    // In chunks, by a name of its own, on a connection that was used before.
    let worker = beside(&fake, &[("CAPABILITY_NAME", "agent-net-nyc")]);
    let mut late = Connection::open(worker.addr);
    late.send(&bytes("GET", "/health", "")).unwrap();
    assert_eq!(late.answer().unwrap().status, 200);
    let head =
        "POST /agent-net-nyc HTTP/1.1\r\nHost: worker\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    late.send(head.as_bytes()).unwrap();
    assert_eq!(late.any_answer(false).unwrap().status, 100);
    terminate(&worker);
    let body = job("late");
    late.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).unwrap();
    check_served(worker, late);
}

#[test]
fn a_job_whose_head_has_begun_before_sigterm_is_served() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let whole = bytes("POST", "/gpu-check", &job("late"));
    // The worker has read the start of the second request: it came in one piece with the first.
    let mut late = Connection::open(worker.addr);
    let (start, rest) = whole.split_at(9);
    late.send(&[&bytes("GET", "/health", ""), start].concat()).unwrap();
    assert_eq!(late.answer().unwrap().status, 200);
    terminate(&worker);
    late.send(rest).unwrap();
    check_served(worker, late);
}

/// Go's client does not send a POST again when its connection is closed under it: the orchestrator would take the
/// capability out.
#[test]
fn a_job_on_an_idle_connection_is_refused_and_not_lost() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut idle = Connection::open(worker.addr);
    idle.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
    assert_eq!(idle.answer().unwrap().status, 200);
    // Keeps the worker alive.
    let mut late = half_a_job(&worker);
    terminate(&worker);
    idle.send(&bytes("POST", "/gpu-check", &job("b"))).unwrap();
    let refused = idle.answer().unwrap();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{refused:?}");
    late.send(job("late").as_bytes()).unwrap();
    check_served(worker, late);
}

#[test]
fn while_it_drains_ready_says_so_and_a_second_signal_ends_it() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let stalled = half_a_job(&worker);
    worker.signal(Signal::TERM);
    let answer = wait_for("a 503 of /ready", || Some(worker.get("/ready")).filter(|answer| answer.status == 503));
    assert_eq!(answer.code(), "draining", "{answer:?}");
    let refusal = worker.post("/agent-net", &job("a"));
    assert_eq!((refusal.status, refusal.code().as_str()), (503, "draining"), "{refusal:?}");
    assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
    assert_eq!(worker.get("/health").status, 200);
    worker.signal(Signal::INT);
    let (_, log) = worker.wait();
    assert!(!log.contains("did not end within"), "{log}");
    drop(stalled);
}

#[test]
fn a_client_that_stalls_cannot_keep_a_worker_alive() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let stalled = half_a_job(&worker);
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    drop(stalled);
}

#[test]
fn after_sigterm_new_jobs_are_refused_in_good_form_until_the_end() {
    let fake = FakeOllama::new();
    let worker = beside(&fake, &[]);
    let mut connection = Connection::open(worker.addr);
    worker.signal(Signal::INT);
    // Each is answered, refused, or finds the connection closed; nothing in between.
    loop {
        let answer = connection.send(&bytes("POST", "/gpu-check", &job("a"))).and_then(|()| connection.answer());
        match answer {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => {
                assert_eq!((answer.status, answer.code().as_str()), (503, "draining"), "{answer:?}");
                break;
            }
            Err(_) => break,
        }
    }
    let (status, _) = worker.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_worker_that_may_start_no_more_threads_unregisters_nevertheless() {
    const NAME: &str = "agent-net-nyc";
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let url = orchestrator.url();
    let settings = [("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", NAME), ("HOSTNAME", "127.0.0.1")];
    let registered = |_: &Worker| drop(wait_for("a registration", || orchestrator.registered(NAME)));
    let Some(worker) = without_new_threads("unregisters", &settings, registered) else { return };
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(orchestrator.registered(NAME).is_none(), "{log}");
}
