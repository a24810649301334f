//! Who is connected, and who has to leave when there is no room for a newcomer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Everybody, by the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    stream: Arc<TcpStream>,
    /// None: it has left already.
    address: Option<IpAddr>,
    /// When somebody began to listen to it.
    since: Instant,
    standing: Arc<AtomicU8>,
}

/// Nobody has to leave before that: whoever means well has asked by then. Where only threads are short, there is time.
pub(super) const GRACE: Duration = Duration::from_millis(25);
pub(super) const LONG_GRACE: Duration = Duration::from_millis(250);

/// No thread has looked at it yet.
const QUEUED: u8 = 4;
/// It has asked for nothing to the end yet.
const NEW: u8 = 0;
/// It has been answered, and asks for nothing now.
const IDLE: u8 = 1;
/// It is being answered.
const BUSY: u8 = 2;
/// It was told to leave.
const LEAVING: u8 = 3;

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    standing: Arc<AtomicU8>,
}

impl Guest {
    /// Closes the connection if it stands so; its thread notices.
    fn leave(&self, standing: u8) -> bool {
        let told = self.standing.compare_exchange(standing, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if told {
            // Otherwise it has left by itself.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        told
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(seats: &Arc<Self>, stream: &Arc<TcpStream>) -> Seat {
        let standing = Arc::new(AtomicU8::new(QUEUED));
        let mut state = seats.lock();
        let number = state.next;
        state.next += 1;
        let guest = Guest {
            stream: Arc::clone(stream),
            address: address(stream),
            since: Instant::now(),
            standing: Arc::clone(&standing),
        };
        state.taken.insert(number, guest);
        Seat { seats: Arc::clone(seats), number, standing }
    }

    /// Somebody has asked for nothing to the end yet.
    pub(super) fn have_newcomers(&self) -> bool {
        let new = |guest: &Guest| matches!(guest.standing.load(Ordering::Acquire), QUEUED | NEW);
        self.lock().taken.values().any(new)
    }

    /// Closes a connection to make room for this newcomer: the oldest that has not asked for anything to the end in so long, else
    /// the oldest idle one of a stranger who holds more than half of all seats. Others may be of an orchestrator, which
    /// drops a capability when a connection that it wants to use again has been closed. False: nobody has to leave.
    pub(super) fn make_room(&self, newcomer: &TcpStream, grace: Duration) -> bool {
        let state = self.lock();
        let mut long_here = state.taken.values().filter(|guest| guest.since.elapsed() >= grace);
        if long_here.any(|guest| guest.leave(NEW)) {
            return true;
        }
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for address in state.taken.values().filter_map(|guest| guest.address) {
            *held.entry(address).or_default() += 1;
        }
        let most = held.into_iter().find(|(_, seats)| *seats * 2 > state.taken.len()).map(|(address, _)| address);
        most.filter(|most| address(newcomer) != Some(*most))
            .is_some_and(|most| state.taken.values().any(|guest| guest.address == Some(most) && guest.leave(IDLE)))
    }
}

fn address(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip().to_canonical())
}

impl Seat {
    /// A thread listens to it now.
    pub(super) fn listen(&self) {
        if let Some(guest) = self.seats.lock().taken.get_mut(&self.number) {
            guest.since = Instant::now();
        }
        // Nobody tells a queued one to leave.
        self.standing.store(NEW, Ordering::Release);
    }

    /// A whole request has come. False: too late, the connection is being closed.
    pub(super) fn begin(&self) -> bool {
        let busy = |standing: u8| (standing != LEAVING).then_some(BUSY);
        self.standing.fetch_update(Ordering::AcqRel, Ordering::Acquire, busy).is_ok()
    }

    /// It has been answered.
    pub(super) fn end(&self) {
        // It is still BUSY: nobody tells such a one to leave.
        self.standing.store(IDLE, Ordering::Release);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().taken.remove(&self.number);
    }
}
