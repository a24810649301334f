//! Holders of the port that end, are busy, start at the same moment or are none.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::process::Signal;

use crate::harness::{Worker, folder, run, wait_for};
use crate::hold_port::{Holder, NAME, Scene, free_port, give, second_holder};
use crate::http::Connection;
use crate::jobs::{bytes, job};

/// Accepting from it would always fail.
#[test]
fn a_socket_that_does_not_listen_is_not_used() {
    let socket = folder("holders-connected").join("port.sock");
    let unix = UnixListener::bind(&socket).unwrap();
    unix.set_nonblocking(true).unwrap();
    let worker = Worker::start(&[("PORT_SOCKET", socket.to_str().unwrap())]);
    let connected = TcpStream::connect(worker.addr).unwrap();
    // It asks again, in case that changes.
    for _ in 0..2 {
        give(&wait_for("a question", || unix.accept().ok()).0, &connected);
    }
    wait_for("a warning", || worker.log().contains("it gives no listening TCP socket").then_some(()));
    assert_eq!(worker.get("/health").status, 200);
}

/// The port closes with the worker then: the orchestrator would send jobs to a closed port.
#[test]
fn a_worker_whose_holder_has_gone_unregisters_at_its_end() {
    let scene = Scene::new("gone", free_port());
    let holder = Holder::start(scene.port, &scene.socket());
    let worker = scene.beside_holder(&[]);
    scene.is_registered();
    holder.end(Signal::TERM);
    wait_for("a warning", || worker.log().contains("waiting for another one").then_some(()));
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(scene.orchestrator.registered(NAME).is_none(), "{log}");
}

#[test]
fn jobs_that_wait_when_the_holder_ends_are_answered() {
    let scene = Scene::new("waiting", free_port());
    let holder = Holder::start(scene.port, &scene.socket());
    let worker = scene.beside_holder(&[]);
    worker.report();
    // It finds both at once: jobs in the queue, and that the holder is gone.
    worker.signal(Signal::STOP);
    wait_for("each thread's stop", || is_stopped(&worker).then_some(()));
    let held = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let mut waiting: Vec<Connection> = (0..5).map(|_| Connection::open(held)).collect();
    for connection in &mut waiting {
        connection.send(&bytes("POST", "/gpu-check", &job("waits"))).unwrap();
    }
    holder.end(Signal::KILL);
    worker.signal(Signal::CONT);
    for mut connection in waiting {
        assert_eq!(connection.answer().expect("it is answered").status, 200);
    }
}

fn is_stopped(worker: &Worker) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.pid().as_raw_nonzero())).unwrap().flatten();
    let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    states.all(|state| state.contains("State:\tT"))
}

/// Two that start at the same moment could each take the other's socket for one that was left behind.
#[test]
fn two_holders_do_not_make_a_socket_in_one_folder_at_once() {
    let dir = folder("holders-lock");
    let socket = dir.join("port.sock");
    let other = std::fs::File::open(&dir).unwrap();
    flock(&other, FlockOperation::LockExclusive).unwrap();
    let (status, _, err) = run(&mut second_holder(&socket));
    assert!(status.code() == Some(1) && err.contains("retrying for 2 s"), "{status}: {err}");
    assert!(!socket.exists());
    drop(other);
    drop(Holder::start(free_port(), &socket));
}

/// A socket whose queue is full refuses connections for another reason than one that was left behind.
#[test]
fn the_socket_of_a_busy_holder_is_not_taken() {
    let socket = folder("holders-busy").join("port.sock");
    let stream = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let address = SocketAddrUnix::new(&socket).unwrap();
    let busy = stream();
    bind(&busy, &address).unwrap();
    listen(&busy, 0).unwrap();
    let is_waiting = |client: &OwnedFd| connect(client.as_fd(), &address).is_ok();
    let waiting: Vec<OwnedFd> = std::iter::repeat_with(stream).take_while(is_waiting).collect();
    let (status, _, err) = run(&mut second_holder(&socket));
    assert!(status.code() == Some(1) && err.contains("another process is using it"), "{status}: {err}");
    assert!(Path::exists(&socket));
    drop(waiting);
}

/// In a container the next worker starts only after the end of this one, and all jobs wait for it.
#[test]
fn a_half_sent_request_or_a_client_that_does_not_read_keeps_no_worker_from_its_end() {
    let scene = Scene::new("half-sent", free_port());
    let _holder = Holder::start(scene.port, &scene.socket());
    let worker = scene.beside_holder(&[]);
    worker.report();
    let held = SocketAddr::from(([127, 0, 0, 1], scene.port));
    let whole = bytes("POST", "/gpu-check", &job("half"));
    // Both lack a part of their body, for which the worker would wait a minute.
    let mut new = Connection::open(held);
    new.send(&whole[..whole.len() - 1]).unwrap();
    let mut used = Connection::open(held);
    used.send(&whole).unwrap();
    assert_eq!(used.answer().unwrap().status, 200);
    used.send(&whole[..whole.len() - 1]).unwrap();
    let deaf = Connection::open(held);
    set_socket_recv_buffer_size(deaf.stream(), 4096).expect("a small buffer");
    deaf.stream().set_nonblocking(true).unwrap();
    let flood = bytes("GET", "/metrics", "").repeat(1000);
    while deaf.stream().write_all(&flood).is_ok() {}
    let (status, log) = worker.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("did not finish within"), "{log}");
    for mut connection in [new, used] {
        let answer = connection.answer().expect("it is answered");
        assert_eq!((answer.status, answer.code().as_str()), (503, "draining"), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
}
