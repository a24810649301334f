//! Owns the public port: caps connections, head sizes and times, frames every request strictly and hands it to rouille in
//! memory, by src/tiny_http. The published tiny_http has none of these limits, and an error of accept ends its loop.

mod body;
pub(crate) mod body_parts;
mod connection;
mod connections;
mod head;
pub(crate) mod inside;
mod listen;
mod relay;
pub(crate) mod reply;
pub(crate) mod rouille;

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::counters::{Gauge, Pulse, Ticket};
use crate::sys::threads::{self, Crew};

use connections::{GRACE, LONG_GRACE, Room, Seats};

pub(crate) use listen::bind;

/// Connections above the cap that are told so; more are closed without a word.
const TURNED_AWAY: usize = 32;
/// Connections that were told to leave to make room for others, and have not yet.
const LEAVING: usize = 32;
/// How long a newcomer tries to get a seat while there are others who have just come, and how often it looks.
const RUSH: Duration = Duration::from_millis(100);
const RUSH_PAUSE: Duration = Duration::from_millis(2);
/// The same while somebody is leaving.
const LEAVING_PAUSE: Duration = Duration::from_micros(100);
/// Every connection has a thread, which keeps its buffers on the heap.
const STACK: usize = 96 * 1024;
/// Threads that wait for connections even when there are none.
const STAYING: usize = 8;
/// After an error of accept: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
pub(crate) struct Gate {
    /// Has the server take what was put into tiny_http.
    pub(crate) poll: Box<dyn Fn() + Send + Sync>,
    /// Largest body that is relayed, in bytes.
    pub(crate) max_body: usize,
    /// Most connections at a time.
    pub(crate) max_connections: usize,
    pub(crate) connections: Gauge,
    pub(crate) turned_away: Gauge,
    /// Requests from their first byte to the end of their answer.
    pub(crate) active: Gauge,
    /// The worker stops: no request after this one on any connection.
    pub(crate) draining: AtomicBool,
    /// What the registrations must know.
    pub(crate) pulse: Pulse,
    /// For tests: accepts nothing more after the first connection.
    pub(crate) deaf: bool,
    /// The JSON of an error, from its code and its message.
    pub(crate) error_body: fn(code: &str, message: &str) -> String,
}

impl Gate {
    /// Slots are getting rare: those who say nothing are given less time.
    fn crowded(&self) -> bool {
        self.connections.now() > self.max_connections / 4 * 3
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}

/// The port while it is open. Shows that this process still serves even when no answer comes by the port itself.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    gate: Arc<Gate>,
    accepted: Arc<AtomicU64>,
}

impl Port {
    /// From now on each answer is the last one on its connection, and requests that begin are marked as late. Idle
    /// connections stay: a POST that is on its way to one must get an answer, since nobody sends it a second time.
    pub(crate) fn drain(&self) {
        self.gate.draining.store(true, Ordering::Release);
    }

    /// Connections that were accepted so far, whatever became of them.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// The status of GET /health, asked without a connection; None: no answer in time.
    pub(crate) fn health(&self, timeout: Duration) -> Option<u16> {
        relay::health(&self.gate, timeout).ok()
    }
}

/// Accepts connections in a thread of its own as long as the process runs.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(listener: TcpListener, gate: Gate) -> io::Result<Port> {
    let gate = Arc::new(gate);
    let (seats, accepted) = (Arc::new(Seats::default()), Arc::<AtomicU64>::default());
    let port = Port { gate: Arc::clone(&gate), accepted: Arc::clone(&accepted) };
    let crew = Crew::start("connection", STACK, STAYING)?;
    threads::essential("accept", move || {
        let mut failing = false;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    failing = false;
                    accepted.fetch_add(1, Ordering::AcqRel);
                    admit(stream, &gate, &seats, &crew);
                    if gate.deaf {
                        loop {
                            thread::park();
                        }
                    }
                }
                Err(why) => {
                    if !failing {
                        log::warn!("cannot accept connections: {why}; trying on");
                    }
                    failing = true;
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    })?;
    Ok(port)
}

fn admit(stream: TcpStream, gate: &Arc<Gate>, seats: &Arc<Seats>, crew: &Arc<Crew>) {
    let stream = Arc::new(stream);
    let gate = Arc::clone(gate);
    if let Some(ticket) = seat_for(&gate, seats) {
        let seat = Seats::take(seats, &stream);
        let others = Arc::clone(crew);
        let has_thread = crew.give(move || {
            seat.listen();
            connection::serve(stream, &gate, &seat, gate.crowded() || others.is_short());
            // The stream is closed by it, before somebody else may come.
            drop(seat);
            drop(ticket);
        });
        if !has_thread {
            // Whoever says nothing takes a thread from it.
            seats.make_room(LONG_GRACE);
        }
    } else if let Some(ticket) = gate.turned_away.enter(TURNED_AWAY) {
        crew.give(move || {
            connection::turn_away(stream, &gate);
            drop(ticket);
        });
    }
}

/// A place among the connections. In a rush of newcomers the next one waits a moment, and all behind it in the kernel's
/// queue; None: everybody is of use.
fn seat_for(gate: &Gate, seats: &Seats) -> Option<Ticket> {
    let mut room = Room::Later;
    let end = Instant::now() + RUSH;
    while Instant::now() < end {
        let free = gate.connections.enter(gate.max_connections);
        if free.is_some() {
            return free;
        }
        if room != Room::Made {
            room = seats.make_room(GRACE);
        }
        match room {
            Room::Made => {
                // Whoever was told to leave still counts until its thread has noticed.
                let soon_free = gate.connections.enter(gate.max_connections + LEAVING);
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
