//! Owns the public port: limits connections, sizes, memory and times, reads every request strictly, and has it answered on
//! the connection's own thread.
//!
//! The sockets are ours because tiny_http, on which `rouille::Server` runs, limits neither heads nor times nor connections:
//! with 256 open files `Server::run` returns at 163 idle connections, since an error of accept ends its loop. rouille is
//! what requests, handlers and answers are made of (http/rouille.rs).

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
mod listen;
mod peer;
pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod rouille;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use self::rouille::{Marks, Service, WholeRequest};
use crate::sys::counters::{Gauge, Permit, Pulse};
use crate::sys::threads::{self, ThreadPool};
use budget::Budget;
use connections::{ConnectionTable, GRACE, LONG_GRACE, Room};
use gate::Gate;

pub(crate) use gate::GateLimits;
pub(crate) use listen::bind;

/// Connections above the limit that are answered with 503; more are closed without an answer.
const TURNED_AWAY: usize = 32;
/// Connections that are being closed to make room for others, and still count.
const LEAVING: usize = 32;
/// How long a new connection waits for room while others have just come, and how often it looks.
const RUSH: Duration = Duration::from_millis(100);
const RUSH_PAUSE: Duration = Duration::from_millis(2);
/// The same while a connection is being closed.
const LEAVING_PAUSE: Duration = Duration::from_micros(100);
/// Every connection has a thread, on which its requests are answered. Memory is taken only where it is used: 12 KiB.
const STACK: usize = 256 * 1024;
/// Threads that wait for connections even when there are none.
const STAYING: usize = 8;
/// After an error of accept: without descriptors it would fail again immediately.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
        self.gate.draining.store(true, Ordering::Release);
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
        let Some(_work) = gate.work(false, timeout) else { continue };
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

/// Accepts connections in a thread of its own as long as the process runs. `deaf`, for tests: only the first one.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(
    listener: TcpListener,
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
        draining: AtomicBool::new(false),
        pulse,
        accepted: AtomicU64::new(0),
        pool: ThreadPool::start("connection", STACK, STAYING)?,
        table: Arc::default(),
    });
    let (questions, asked) = mpsc::channel();
    let port = Port { gate: Arc::clone(&gate), questions };
    let shared = Arc::clone(&gate);
    threads::service("health", move || answer_watchdog(&shared, &asked))?;
    threads::service("accept", move || accept(&listener, &gate, deaf))?;
    Ok(port)
}

fn accept(listener: &TcpListener, gate: &Arc<Gate>, deaf: bool) {
    let mut failing = false;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                failing = false;
                gate.accepted.fetch_add(1, Ordering::AcqRel);
                admit(stream, from, gate);
                if deaf {
                    loop {
                        thread::park();
                    }
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("cannot accept connections: {why}; trying again until it works");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn admit(stream: TcpStream, from: SocketAddr, gate: &Arc<Gate>) {
    let stream = Arc::new(stream);
    let shared = Arc::clone(gate);
    if let Some(permit) = room_for_one(gate) {
        let entry = ConnectionTable::add(&gate.table, &stream, from.ip());
        let has_thread = gate.pool.submit(move || {
            entry.listen();
            let crowded = shared.crowded() || shared.pool.is_short();
            connection::serve(stream, from, &shared, &entry, crowded);
            // The stream is closed by it, before another one may come.
            drop(entry);
            drop(permit);
        });
        if !has_thread {
            // Idle clients hold the threads.
            gate.table.make_room(LONG_GRACE);
        }
    } else if let Some(permit) = gate.turned_away.enter(TURNED_AWAY) {
        gate.pool.submit(move || {
            connection::turn_away(stream, &shared);
            drop(permit);
        });
    }
}

/// A place for one more connection. In a rush the next one waits a moment, and all behind it in the kernel's queue; None:
/// all connections are of use.
fn room_for_one(gate: &Gate) -> Option<Permit> {
    let mut room = Room::Later;
    let end = Instant::now() + RUSH;
    while Instant::now() < end {
        let free = gate.connections.enter(gate.limits.connections);
        if free.is_some() {
            return free;
        }
        if room != Room::Made {
            room = gate.table.make_room(GRACE);
        }
        match room {
            Room::Made => {
                // The closed one still counts until its thread has noticed.
                let soon_free = gate.connections.enter(gate.limits.connections + LEAVING);
                if soon_free.is_some() {
                    return soon_free;
                }
                thread::sleep(LEAVING_PAUSE);
            }
            Room::Later => thread::sleep(RUSH_PAUSE),
            Room::Never => return None,
        }
    }
    None
}
