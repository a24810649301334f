//! The watchdog: a worker that does not serve any more ends, and no other.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::harness::{TIMEOUT, Worker, command, wait_for, without_new_threads};
use crate::http::Connection;
use crate::jobs::bytes;
use crate::programs;

/// What it says when it ends the process.
const END: &str = "/health did not respond with 200 3 times in a row";

#[test]
fn a_worker_that_does_not_serve_any_more_ends() {
    for fault in ["deaf", "sick"] {
        let worker = Worker::start(&[("AGENT_NET_FAULT", fault)]);
        let (status, log) = worker.wait();
        assert_eq!(status.code(), Some(1), "{fault}: {log}");
        assert!(log.contains(END), "{fault}: {log}");
    }
}

/// A connection from this address of our own machine; None: it was closed.
fn stranger(last: u8, worker: &Worker) -> Option<Connection> {
    let std::net::SocketAddr::V4(to) = worker.addr else { panic!("an IPv4 address") };
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0)).expect("all of 127 is ours");
    connect(&socket, &to).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut connection = Connection::of(stream);
    connection.send(&bytes("GET", "/health", "")).ok()?;
    connection.answer().ok().filter(|answer| answer.status == 200).map(|_| connection)
}

#[test]
fn a_worker_whose_connections_are_all_taken_by_strangers_lives() {
    let mut limited = command("/bin/sh");
    limited.args(["-c", "ulimit -n 112 && exec \"$0\" \"$@\"", programs::server()]);
    let worker = Worker::of(limited, &[("AGENT_NET_FAULT", "watched"), ("LOG_LEVEL", "debug")]);
    // Sixteen are the most, and idle ones of many addresses keep their places.
    let mut guests: Vec<Connection> = Vec::new();
    wait_for("a full table", || {
        let guest = stranger(u8::try_from(guests.len() + 1).unwrap(), &worker);
        let full = guests.len() >= 16 && guest.is_none();
        guests.extend(guest);
        full.then_some(())
    });
    // The watchdog is turned away with a 503, or, once the places of those who are turned away are taken as well, without
    // a word.
    let looks =
        |how: &str| worker.log().lines().filter(|line| line.contains("watchdog: ") && line.contains(how)).count();
    wait_for("ten looks at a full table", || {
        (looks("accepted: true; within the process: Some(200)") >= 10).then_some(())
    });
    assert!(looks("Ok(503)") > 0, "{}", worker.log());
    let crowd = || (0..64).filter_map(|_| TcpStream::connect(worker.addr).ok()).collect::<Vec<_>>();
    let mut waiting = crowd();
    wait_for("ten looks that get no word", || {
        waiting = crowd();
        (looks("Err(Other") >= 10).then_some(())
    });
    drop(waiting);
    assert!(!worker.log().contains(END), "{}", worker.log());
    // It serves those whom it has.
    let first = guests.first_mut().expect("sixteen");
    first.send(&bytes("GET", "/health", "")).unwrap();
    assert_eq!(first.answer().expect("an answer").status, 200);
}

/// Threads for connections that the worker starts with.
const THREADS: u8 = 8;

#[test]
fn a_worker_that_may_start_no_more_threads_lives_although_strangers_hold_all_of_them() {
    let settings = [("AGENT_NET_FAULT", "watched"), ("LOG_LEVEL", "debug")];
    let Some(worker) = without_new_threads("watched", &settings, |_| {}) else { return };
    // Idle ones of many addresses keep their places.
    let _guests: Vec<Connection> = (1..=THREADS).map(|last| stranger(last, &worker).expect("an answer")).collect();
    let look = wait_for("a look that gets no word", || {
        let log = worker.log();
        log.lines().find(|line| line.contains("public port: Err(Other")).map(str::to_owned)
    });
    let log = worker.log();
    let short = log.lines().find(|line| line.contains("cannot start another connection thread")).expect("why");
    assert!(short.contains("ulimit -u") && !short.contains("os error"), "{short}");
    assert!(look.contains("accepted: true; within the process: Some(200)"), "{look}");
}
