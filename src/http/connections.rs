//! Who is connected, and who has to leave when there is no room for a newcomer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Everybody, by the order in which they came.
#[derive(Debug)]
pub(super) struct Seats {
    state: Mutex<State>,
    /// What the guests' times count from.
    opened: Instant,
}

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
    standing: Arc<Standing>,
}

/// What a guest does.
#[derive(Debug)]
struct Standing {
    /// One of those below.
    now: AtomicU8,
    /// Milliseconds at which it began to be listened to, or was answered last.
    since: AtomicU64,
    /// Requests that came when there was nothing left to answer.
    returns: AtomicU32,
}

/// Nobody has to leave before that: whoever means well has asked by then. Where only threads are short, there is time.
pub(super) const GRACE: Duration = Duration::from_millis(25);
pub(super) const LONG_GRACE: Duration = Duration::from_millis(250);
/// Whoever has not taken its answer by then does not read: the kernel's buffers hold all but very large ones.
const STALLED: Duration = Duration::from_millis(250);

/// Whoever has come back more often is likely to ask again within this time.
const FEW: u32 = 2;
const LONG_IDLE: Duration = Duration::from_secs(10);

/// No thread has looked at it yet.
const QUEUED: u8 = 4;
/// It has asked for nothing to the end yet.
const NEW: u8 = 0;
/// It has been answered, and asks for nothing now.
const IDLE: u8 = 1;
/// Its answer is being made.
const BUSY: u8 = 2;
/// Its answer is being sent.
const READING: u8 = 5;
/// It was told to leave.
const LEAVING: u8 = 3;

/// Whether there is a place for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Room {
    /// Somebody was told to leave.
    Made,
    /// Somebody may have to leave soon.
    Later,
    /// Everybody is of use.
    Never,
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    standing: Arc<Standing>,
}

impl Guest {
    /// By the seats' own time.
    fn since(&self) -> Duration {
        Duration::from_millis(self.standing.since.load(Ordering::Acquire))
    }

    fn returns(&self) -> u32 {
        self.standing.returns.load(Ordering::Acquire)
    }

    fn stands(&self) -> u8 {
        self.standing.now.load(Ordering::Acquire)
    }

    /// Closes the connection if it stands so; its thread notices.
    fn leave(&self, standing: u8) -> bool {
        let told = self.standing.now.compare_exchange(standing, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if told {
            // Otherwise it has left by itself.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        told
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of these seats' own time.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn take(seats: &Arc<Self>, stream: &Arc<TcpStream>) -> Seat {
        let standing = Arc::new(Standing {
            now: AtomicU8::new(QUEUED),
            since: AtomicU64::new(seats.now()),
            returns: AtomicU32::new(0),
        });
        let mut state = seats.lock();
        let number = state.next;
        state.next += 1;
        let guest = Guest { stream: Arc::clone(stream), address: address(stream), standing: Arc::clone(&standing) };
        state.taken.insert(number, guest);
        Seat { seats: Arc::clone(seats), number, standing }
    }

    /// Closes a connection to make room: the oldest that has asked for nothing to the end in so long, or does not read what
    /// it asked for; else, where more than a quarter of all seats are idle ones of a single address, one of these, those
    /// first that have come back least and were answered longest ago. Others may be of an orchestrator, which drops a
    /// capability when a connection that it wants to use again has been closed; it never holds that many.
    pub(super) fn make_room(&self, grace: Duration) -> Room {
        let now = Duration::from_millis(self.now());
        let state = self.lock();
        let lasts = |guest: &Guest| now.saturating_sub(guest.since());
        let is_of_no_use = |guest: &Guest| {
            lasts(guest) >= grace && guest.leave(NEW) || lasts(guest) >= STALLED && guest.leave(READING)
        };
        if state.taken.values().any(is_of_no_use) {
            return Room::Made;
        }
        let idle = || state.taken.values().filter(|guest| guest.stands() == IDLE);
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for address in idle().filter_map(|guest| guest.address) {
            *held.entry(address).or_default() += 1;
        }
        let most = held.into_iter().max_by_key(|(_, seats)| *seats);
        let most = most.filter(|(_, seats)| *seats * 4 > state.taken.len()).map(|(address, _)| address);
        let of_most = idle().filter(|guest| {
            let grace = if guest.returns() > FEW { LONG_IDLE } else { grace };
            guest.address.is_some() && guest.address == most && lasts(guest) >= grace
        });
        if of_most.min_by_key(|guest| (guest.returns(), guest.since())).is_some_and(|guest| guest.leave(IDLE)) {
            return Room::Made;
        }
        let may_leave = |guest: &Guest| guest.stands() != BUSY && (guest.stands() != IDLE || guest.address == most);
        if state.taken.values().any(may_leave) { Room::Later } else { Room::Never }
    }
}

fn address(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip().to_canonical())
}

impl Default for Seats {
    fn default() -> Self {
        Self { state: Mutex::default(), opened: Instant::now() }
    }
}

impl Seat {
    /// A thread listens to it now.
    pub(super) fn listen(&self) {
        self.standing.since.store(self.seats.now(), Ordering::Release);
        // Nobody tells a queued one to leave.
        self.standing.now.store(NEW, Ordering::Release);
    }

    /// A whole request has come. False: too late, the connection is being closed.
    pub(super) fn begin(&self) -> bool {
        let busy = |standing: u8| (standing != LEAVING).then_some(BUSY);
        self.standing.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, busy).is_ok()
    }

    /// The answer is there, and is sent now.
    pub(super) fn send(&self) {
        self.standing.since.store(self.seats.now(), Ordering::Release);
        // Nobody tells a busy one to leave.
        self.standing.now.store(READING, Ordering::Release);
    }

    /// It has been answered. `returned`: its request was waited for, and had not come along with an earlier one. False: it
    /// did not read, and is being closed.
    pub(super) fn end(&self, returned: bool) -> bool {
        self.standing.returns.fetch_add(u32::from(returned), Ordering::AcqRel);
        self.standing.now.compare_exchange(READING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().taken.remove(&self.number);
    }
}
