//! Jobs as an orchestrator's client sends them: over connections that it keeps, for a while.

use std::thread;
use std::time::Duration;

use crate::fake_gateway::{Gateway, Outcome};
use crate::fake_ollama::{Answer, FakeOllama};
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::harness::{Worker, wait_for};
use crate::http::Connection;
use crate::jobs::{bytes, job};

const NAME: &str = "agent-net-nyc";

/// A worker at an orchestrator that drops it at the first connection that fails, as go-livepeer does.
fn registered(more: &[(&str, &str)]) -> (FakeOrchestrator, Worker) {
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let url = orchestrator.url();
    let settings = [("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", NAME), ("HOSTNAME", "127.0.0.1")];
    let worker = Worker::start(&[&settings, more].concat());
    wait_for("a registration", || orchestrator.registered(NAME));
    (orchestrator, worker)
}

/// Numbers that look random and are the same in each run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn ten_thousand_jobs_over_kept_connections_lose_none() {
    let (orchestrator, _worker) = registered(&[("WORKER_TOKEN", "t0ken"), ("CAPABILITY_CAPACITY", "20")]);
    // The client drops what has been idle for this long; gaps lie on both sides of it.
    let limit = Duration::from_millis(8);
    let gateway = Gateway::new(&orchestrator, limit);
    thread::scope(|scope| {
        for client in 0..8_u64 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut state = 0x9e37_79b9_7f4a_7c15 ^ (client + 1);
                for number in 0..1250 {
                    thread::sleep(limit * u32::try_from(random(&mut state) % 16).unwrap() / 8);
                    let id = format!("{client}-{number}");
                    match gateway.job(NAME, "/gpu-check", &job(&id), false) {
                        Outcome::Answer(answer) if answer.status == 200 => assert_eq!(answer.json()["agent_id"], id),
                        other => panic!("{id}: {other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(orchestrator.load(NAME), Some(0));
    assert_eq!(orchestrator.requests("/capability/register").len(), 1, "it was never dropped");
}

#[test]
fn a_worker_that_was_dropped_or_has_no_slots_left_gets_jobs_again() {
    let more = [("AGENT_NET_FAULT", "hurry:100"), ("CAPABILITY_CAPACITY", "3"), ("HOSTNAME", "127.0.0.1")];
    let (orchestrator, worker) = registered(&more);
    let gateway = Gateway::new(&orchestrator, Duration::from_secs(60));
    let served = |what: &str| {
        wait_for(what, || match gateway.job(NAME, "/gpu-check", &job("a"), false) {
            Outcome::Answer(answer) => Some(answer.status).filter(|status| *status == 200),
            _ => None,
        });
    };
    served("a job");
    // Clients that give up take the slots with them, until none is left.
    for _ in 0..3 {
        assert!(matches!(gateway.job(NAME, "/gpu-check", &job("a"), true), Outcome::Leaked));
    }
    wait_for("all slots", || (orchestrator.load(NAME) == Some(0)).then_some(()));
    served("a job with the slots back");
    // It dies, a job cannot connect, and the registry drops it.
    worker.signal(rustix::process::Signal::KILL);
    worker.wait();
    wait_for("a dropped worker", || {
        matches!(gateway.job(NAME, "/gpu-check", &job("a"), false), Outcome::Removed).then_some(())
    });
    assert!(matches!(gateway.job(NAME, "/gpu-check", &job("a"), false), Outcome::Unknown));
    let url = orchestrator.url();
    let again = [("ORCH_URL", url.as_str()), ("CAPABILITY_NAME", NAME)];
    let _worker = Worker::start(&[&again, &more[..]].concat());
    served("a job of its next life");
}

#[test]
fn two_hundred_refused_jobs_with_large_bodies_reset_no_connection() {
    let (orchestrator, worker) = registered(&[("WORKER_TOKEN", "t0ken")]);
    let body = vec![b'A'; 2_000_000];
    let rows = [
        ("POST /gpu-check", "Authorization: Bearer wrong", 401),
        ("POST /gpu-check", "Authorization: Bearer t0ken", 413),
        ("PUT /gpu-check", "X: y", 405),
        ("POST /nothing", "X: y", 404),
    ];
    for round in 0..50 {
        for (line, header, status) in rows {
            let mut connection = Connection::open(worker.addr);
            let head = format!("{line} HTTP/1.1\r\nHost: w\r\n{header}\r\nContent-Length: {}\r\n\r\n", body.len());
            connection.send(head.as_bytes()).unwrap();
            connection.send(&body).unwrap_or_else(|why| panic!("round {round}, {status}: {why}"));
            let answer = connection.answer().unwrap_or_else(|why| panic!("round {round}, {status}: {why}"));
            assert_eq!(answer.status, status);
        }
    }
    assert!(orchestrator.registered(NAME).is_some());
}

#[test]
fn of_fifty_jobs_at_once_ten_are_served_and_none_waits_for_nothing() {
    // Jobs take time only before the first sample. A machine that is too slow for that window gets another try.
    for _ in 0..10 {
        let ollama = FakeOllama::new();
        ollama.set_all(&Answer::Hang);
        let worker = Worker::start(&[("OLLAMA_URL", &ollama.url())]);
        let mut connections: Vec<Connection> = (0..50).map(|_| Connection::open(worker.addr)).collect();
        for (i, connection) in connections.iter_mut().enumerate() {
            connection.send(&bytes("POST", "/gpu-check", &job(&format!("job-{i}")))).unwrap();
        }
        let answers: Vec<_> = connections.iter_mut().map(|connection| connection.answer().unwrap()).collect();
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        let refused = answers.iter().filter(|answer| answer.status == 503);
        assert!(refused.clone().all(|answer| answer.header("retry-after").is_some() && answer.code() == "at_capacity"));
        assert_eq!(served + refused.count(), 50);
        if served == 10 {
            return;
        }
    }
    panic!("never ten of fifty");
}

/// More jobs than may wait for a slot: those beyond wait before that, and that counts as well.
#[test]
fn the_time_of_a_job_begins_when_its_request_is_whole() {
    // A machine that is too slow for the window before the first sample gets another try.
    for _ in 0..10 {
        let ollama = FakeOllama::new();
        ollama.set_all(&Answer::Hang);
        let worker = Worker::start(&[("OLLAMA_URL", &ollama.url()), ("CAPABILITY_CAPACITY", "1")]);
        let mut connections: Vec<Connection> = (0..250).map(|_| Connection::open(worker.addr)).collect();
        for connection in &mut connections {
            connection.send(&bytes("POST", "/gpu-check", &job("a"))).unwrap();
        }
        for connection in &mut connections {
            assert!(matches!(connection.answer().unwrap().status, 200 | 503));
        }
        let metrics = worker.get("/metrics").text().to_owned();
        let count = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().parse::<u32>().expect("a number")
        };
        let quick = count("agent_net_job_duration_seconds_bucket{le=\"0.5\"}");
        // The one that has the slot takes long as well.
        if count("agent_net_job_duration_seconds_count") - quick > 1 {
            return;
        }
    }
    panic!("no job has waited");
}
