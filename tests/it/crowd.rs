//! More connections than there may be: clients that ask are served, whatever the others do.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::harness::{TIMEOUT, Worker, command};
use crate::http::{Connection, Response};
use crate::jobs::{bytes, job};
use crate::programs;

/// Connections that the worker may have.
const CONNECTIONS: usize = 512;
/// More than that.
const CROWD: usize = 600;

/// 96 files are for other things.
fn worker() -> Worker {
    let mut limited = command("/bin/sh");
    let files = format!("ulimit -n {} && exec \"$0\" \"$@\"", CONNECTIONS + 96);
    limited.args(["-c", &files, programs::server()]);
    Worker::of(limited, &[])
}

/// From this address of our own machine.
fn from(address: [u8; 4], worker: &Worker) -> Connection {
    let std::net::SocketAddr::V4(to) = worker.addr else { panic!("an IPv4 address") };
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::from(address), 0)).expect("all of 127 is ours");
    connect(&socket, &to).expect("the worker accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    Connection::of(stream)
}

fn ask(connection: &mut Connection, method: &str, path: &str, body: &str) -> std::io::Result<Response> {
    connection.send(&bytes(method, path, body))?;
    connection.answer()
}

#[track_caller]
fn jobs_are_answered(worker: &Worker, address: [u8; 4]) {
    for number in 0..100 {
        let answer = ask(&mut from(address, worker), "POST", "/gpu-check", &job("a"));
        assert_eq!(answer.unwrap_or_else(|why| panic!("{number}: {why}")).status, 200, "{number}");
    }
}

#[test]
fn idle_and_slow_clients_do_not_keep_others_out() {
    let worker = worker();
    let mut regular = from([127, 0, 0, 1], &worker);
    assert_eq!(ask(&mut regular, "POST", "/gpu-check", &job("a")).unwrap().status, 200);
    let crowd: Vec<Connection> = (0..CROWD)
        .map(|number| {
            let mut connection = from([127, 0, 0, 1], &worker);
            let part: &[u8] = match number % 3 {
                0 => b"",
                1 => b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nX-Slow: ",
                _ => b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            };
            // Those who came first may have been closed.
            let _ = connection.send(part);
            connection
        })
        .collect();
    jobs_are_answered(&worker, [127, 0, 0, 1]);
    assert_eq!(ask(&mut regular, "POST", "/gpu-check", &job("a")).unwrap().status, 200, "it stays connected");
    drop(crowd);
}

#[test]
fn a_stranger_who_holds_most_connections_gives_some_back() {
    let worker = worker();
    // An orchestrator's connections, which it wants to use again.
    let mut regulars: Vec<Connection> = (0..20).map(|_| from([127, 0, 0, 2], &worker)).collect();
    for regular in &mut regulars {
        assert_eq!(ask(regular, "POST", "/gpu-check", &job("a")).unwrap().status, 200);
    }
    let stranger: Vec<Connection> = (0..CROWD)
        .map(|_| {
            let mut connection = from([127, 0, 0, 3], &worker);
            let _ = ask(&mut connection, "GET", "/health", "");
            connection
        })
        .collect();
    jobs_are_answered(&worker, [127, 0, 0, 4]);
    for regular in &mut regulars {
        assert_eq!(ask(regular, "POST", "/gpu-check", &job("a")).unwrap().status, 200, "it stays connected");
    }
    drop(stranger);
}

/// They may all be of one orchestrator: it takes up again what it used last.
#[test]
fn of_all_idle_connections_of_one_address_those_used_last_stay() {
    let worker = worker();
    let mut all: Vec<Connection> = (0..CONNECTIONS).map(|_| from([127, 0, 0, 2], &worker)).collect();
    for one in &mut all {
        assert_eq!(ask(one, "GET", "/health", "").unwrap().status, 200);
    }
    jobs_are_answered(&worker, [127, 0, 0, 2]);
    for one in &mut all[200..] {
        assert_eq!(ask(one, "GET", "/health", "").unwrap().status, 200, "it stays connected");
    }
    let left = all[..200].iter_mut().map(|one| ask(one, "GET", "/health", "")).filter(Result::is_err).count();
    assert!((1..=100).contains(&left), "{left} had to leave for a hundred");
}
