//! Owns the public port: limits connections, sizes, memory and times, reads every request strictly, and has it answered on
//! the connection's own thread.
//!
//! The sockets are ours because tiny_http, on which `rouille::Server` runs, limits neither heads nor times nor connections:
//! with 256 open files `Server::run` returns at 163 idle connections, since an error of accept ends its loop. rouille is
//! what requests, handlers and answers are made of (http/rouille.rs).

mod accept;
mod answer;
mod body;
pub(crate) mod body_parts;
mod budget;
mod connection;
mod connections;
mod gate;
mod gzip;
mod gzip_member;
mod head;
mod held;
mod listen;
mod peer;
pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod rouille;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use self::rouille::{Marks, Service, WholeRequest};
use crate::sys::counters::{Gauge, Pulse};
use crate::sys::threads::{self, ThreadPool};
use budget::Budget;
use gate::{Gate, Work};

pub(crate) use gate::GateLimits;
pub(crate) use held::{give, held_address};
pub(crate) use listen::{bind, inherited};

/// Every connection has a thread, on which its requests are answered. Memory is taken only where it is used: 12 KiB.
const STACK: usize = 256 * 1024;
/// Threads that wait for connections even when there are none.
const STAYING: usize = 8;

/// The port while it is open. Shows that this process still serves even when no answer comes by the port itself.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    gate: Arc<Gate>,
    questions: Sender<Question>,
}

/// A request of the watchdog, to be answered on this channel.
#[derive(Debug)]
struct Question {
    timeout: Duration,
    sender: Sender<u16>,
}

impl Port {
    /// From now on each answer is the last one on its connection, and requests that begin are marked as late. Idle
    /// connections stay: a POST that is on its way to one must get an answer, since no client sends it a second time.
    pub(crate) fn drain(&self) {
        self.gate.refusing.store(true, Ordering::Release);
        self.end_connections();
    }

    /// From now on each answer is the last one on its connection. Jobs are answered as before.
    pub(crate) fn end_connections(&self) {
        self.gate.draining.store(true, Ordering::Release);
    }

    /// Accepts nothing more. What has come and is not accepted stays in the queue of its socket.
    pub(crate) fn stop_accepting(&self) {
        self.gate.request_stop();
    }

    /// Whole requests are answered, those that have come in part are refused, and clients that do not read are closed.
    pub(crate) fn stop_reading(&self) {
        self.gate.deaf.store(true, Ordering::Release);
        self.gate.table.stop_reading();
    }

    /// Accepts also from the socket that the program behind `path` holds, in a thread of its own.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn accept_held(&self, path: PathBuf) -> io::Result<()> {
        let gate = Arc::clone(&self.gate);
        threads::service("held-port", move || accept::accept_held(&path, &gate))
    }

    /// Jobs also come through a socket that `agent-net hold-port` holds.
    pub(crate) fn is_held(&self) -> bool {
        self.gate.holds.load(Ordering::Acquire)
    }

    /// Every connection has had its last answer.
    pub(crate) fn has_ended(&self) -> bool {
        self.gate.connections.now() <= self.gate.ended.now()
    }

    /// Nothing is accepted, and no connection waits for the answer to its first request.
    pub(crate) fn is_quiet(&self) -> bool {
        self.gate.accepting.now() == 0 && self.gate.fresh.now() == 0 && self.active() == 0
    }

    /// Requests from their first byte to the end of their answer.
    pub(crate) fn active(&self) -> usize {
        self.gate.active.now()
    }

    /// Connections that were accepted so far, whatever became of them.
    pub(crate) fn accepted(&self) -> u64 {
        self.gate.accepted.load(Ordering::Acquire)
    }

    /// The status of GET /health, asked without a connection; None: no answer in time.
    pub(crate) fn health(&self, timeout: Duration) -> Option<u16> {
        let (sender, answer) = mpsc::channel();
        self.questions.send(Question { timeout, sender }).ok()?;
        answer.recv_timeout(timeout).ok()
    }
}

/// Answers GET /health without a connection. On a thread of its own, since an answer that never comes must not stop the
/// watchdog; and one that has been started before, since clients may hold all threads that the machine gives.
fn answer_watchdog(gate: &Gate, questions: &Receiver<Question>) {
    for Question { timeout, sender } in questions {
        let Some(_work) = gate.work(Work::Probe, timeout) else { continue };
        let request = WholeRequest {
            from: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            method: "GET".into(),
            target: "/health".into(),
            headers: Vec::new(),
            body: Some(Vec::new()),
            marks: Marks::default(),
        };
        // The watchdog may have stopped waiting.
        let _ = sender.send(gate.service.answer(request).status);
    }
}

/// Accepts connections in a thread for each socket, until the port stops. `deaf`, for tests: only the first one.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(
    listeners: Vec<TcpListener>,
    service: Service,
    limits: GateLimits,
    pulse: Pulse,
    deaf: bool,
) -> io::Result<Port> {
    let gate = Arc::new(Gate {
        service,
        limits,
        requests: Budget::new(limits.memory / 2),
        answers: Budget::new(limits.memory / 2),
        connections: Gauge::default(),
        turned_away: Gauge::default(),
        active: Gauge::default(),
        jobs: Gauge::default(),
        reads: Gauge::default(),
        probes: Gauge::default(),
        accepting: Gauge::default(),
        fresh: Gauge::default(),
        ended: Gauge::default(),
        draining: AtomicBool::new(false),
        refusing: AtomicBool::new(false),
        holds: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        stopped: AtomicBool::new(false),
        pulse,
        accepted: AtomicU64::new(0),
        pool: ThreadPool::start("connection", STACK, STAYING)?,
        table: Arc::default(),
    });
    let (questions, asked) = mpsc::channel();
    let port = Port { gate: Arc::clone(&gate), questions };
    let shared = Arc::clone(&gate);
    threads::service("health", move || answer_watchdog(&shared, &asked))?;
    for listener in listeners {
        let gate = Arc::clone(&gate);
        threads::service("accept", move || accept::accept(&listener, None, &gate, deaf))?;
    }
    Ok(port)
}

#[cfg(test)]
mod tests;
