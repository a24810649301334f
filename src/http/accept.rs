//! Accepts connections: on the worker's own sockets, and on the one that `agent-net hold-port` gives.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::connection;
use super::connections::{ConnectionTable, GRACE, LONG_GRACE, Room};
use super::gate::Gate;
use super::held;
use crate::sys::backoff::Backoff;
use crate::sys::counters::Permit;

/// Connections above the limit that are answered with 503; more are closed without an answer.
const TURNED_AWAY: usize = 32;
/// Connections that are being closed to make room for others, and still count.
const LEAVING: usize = 32;
/// How long a new connection waits for room, since others that have just come may be closed soon; and how often it tries.
const RUSH: Duration = Duration::from_millis(100);
const RUSH_PAUSE: Duration = Duration::from_millis(2);
/// How often a new connection tries while another one is being closed for it.
const LEAVING_PAUSE: Duration = Duration::from_micros(100);
/// After an error of accept: without descriptors it would fail again immediately.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between tries to get the socket of a program that holds it.
const FIRST_TRY: Duration = Duration::from_millis(100);
const LAST_TRY: Duration = Duration::from_secs(5);

/// Accepts until the port stops, or until `holder` is gone: then all that wait already are accepted before the end.
/// Connections that come after a stop stay in the kernel's queue, for another process that has the same socket. `deaf`,
/// for tests: only the first one.
pub(super) fn accept(listener: &TcpListener, holder: Option<&UnixStream>, gate: &Arc<Gate>, deaf: bool) {
    // The flag is the socket's, for all processes that have it. Without it, two of them could both see a connection, and
    // one would then wait for the next one.
    let mut failure = listener.set_nonblocking(true).err();
    let _accepting = gate.accepting.enter(usize::MAX);
    let (mut failing, mut ends) = (false, false);
    while !gate.stopped() {
        match failure.take().map_or_else(|| listener.accept(), Err) {
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
            Err(why) if why.kind() == ErrorKind::WouldBlock && ends => return,
            Err(why) if why.kind() == ErrorKind::WouldBlock => match wait(listener, holder, gate) {
                Ok(gone) => ends = gone,
                Err(why) => failure = Some(why),
            },
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("cannot accept connections: {why}; trying again until it works");
                }
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Waits for a connection, a stop, or the end of the holder. True: the holder is gone.
fn wait(listener: &TcpListener, holder: Option<&UnixStream>, gate: &Gate) -> io::Result<bool> {
    let readable = PollFlags::IN;
    let mut waits = vec![PollFd::new(listener, readable), PollFd::new(&gate.stop, readable)];
    waits.extend(holder.map(|holder| PollFd::new(holder, readable)));
    match poll(&mut waits, None) {
        Ok(_) | Err(Errno::INTR) => Ok(waits.get(2).is_some_and(|holder| !holder.revents().is_empty())),
        Err(why) => Err(why.into()),
    }
}

/// Accepts from the socket that the program behind `path` holds, again and again: that program may start later than the
/// worker, and may be restarted.
pub(super) fn accept_held(path: &Path, gate: &Arc<Gate>) {
    let mut tries = Backoff::new(FIRST_TRY, LAST_TRY);
    let mut failing = false;
    while !gate.stopped() {
        match held::take(path) {
            Ok((listener, holder)) => {
                failing = false;
                let addr = listener.local_addr().map_or_else(|why| why.to_string(), |addr| addr.to_string());
                log::info!("also accepting jobs on {addr}, whose socket came through {}", path.display());
                gate.holds.store(true, Ordering::Release);
                let start = Instant::now();
                accept(&listener, Some(&holder), gate, false);
                // One that ends right after its start, again and again, is not asked ten times a second.
                if start.elapsed() > LAST_TRY {
                    tries.success();
                }
                if gate.stopped() {
                    return;
                }
                gate.holds.store(false, Ordering::Release);
                log::warn!(
                    "{}: the connection to the program that holds the port has ended; waiting for another one",
                    path.display()
                );
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!(
                        "PORT_SOCKET={}: {why}; the worker serves without it and retries. Start agent-net hold-port as the \
                         same user",
                        path.display()
                    );
                }
            }
        }
        thread::sleep(tries.after_failure(0.0));
    }
}

fn admit(stream: TcpStream, from: SocketAddr, gate: &Arc<Gate>) {
    let stream = Arc::new(stream);
    let shared = Arc::clone(gate);
    if let Some(permit) = room_for_one(gate) {
        let entry = ConnectionTable::add(&gate.table, &stream, from.ip());
        let fresh = gate.fresh.enter(usize::MAX);
        let has_thread = gate.pool.submit(move || {
            entry.listen();
            let crowded = shared.crowded() || shared.pool.is_short();
            connection::serve(stream, from, &shared, (&entry, fresh), crowded);
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
