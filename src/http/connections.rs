//! Who is connected, and which connection is closed when there is no room for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// All connections, in the order in which they came.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    connections: Mutex<Connections>,
    /// What the connections' times count from.
    opened: Instant,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: Arc<TcpStream>,
    address: IpAddr,
    state: Arc<ConnectionState>,
}

/// What a connection does.
#[derive(Debug)]
struct ConnectionState {
    /// One of those below.
    now: AtomicU8,
    /// Milliseconds at which a thread took it, or at which it was answered last.
    since: AtomicU64,
    /// Requests that came when there was nothing left to answer.
    returns: AtomicU32,
}

/// A connection without a request is not closed before this time: an honest client has sent its request by then. Longer
/// where only threads or memory are short.
pub(super) const GRACE: Duration = Duration::from_millis(25);
pub(super) const LONG_GRACE: Duration = Duration::from_millis(250);
/// A client that has not taken its answer by then does not read: the kernel's buffers hold all but very large ones.
const STALLED: Duration = Duration::from_millis(250);

/// A client that has come back more often is likely to ask again within this time.
const FEW: u32 = 2;
const LONG_IDLE: Duration = Duration::from_secs(10);

/// No thread has looked at it yet.
const QUEUED: u8 = 4;
/// It has sent no whole request yet.
const NEW: u8 = 0;
/// It has been answered, and asks for nothing now.
const IDLE: u8 = 1;
/// Its answer is being made.
const BUSY: u8 = 2;
/// Its answer is being sent, and the client has to read it.
const SENDING: u8 = 5;
/// It is being closed, to make room.
const LEAVING: u8 = 3;

/// Whether there is room for a new connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Room {
    /// A connection is being closed for it.
    Made,
    /// A connection may be closed soon.
    Later,
    /// All connections are of use.
    Never,
}

/// One connection in the table, until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    table: Arc<ConnectionTable>,
    number: u64,
    state: Arc<ConnectionState>,
}

impl Connection {
    /// By the table's own time.
    fn since(&self) -> Duration {
        Duration::from_millis(self.state.since.load(Ordering::Acquire))
    }

    fn returns(&self) -> u32 {
        self.state.returns.load(Ordering::Acquire)
    }

    fn is(&self, state: u8) -> bool {
        self.state.now.load(Ordering::Acquire) == state
    }

    /// The kernel takes no more for the client. Otherwise the thread may only wait for a processor.
    fn is_full(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&*self.stream, PollFlags::OUT)], Some(&at_once)), Ok(0))
    }

    /// Closes the connection if it is in this state; its thread notices.
    fn close(&self, state: u8) -> bool {
        let closes = self.state.now.compare_exchange(state, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if closes {
            // Otherwise the client has closed it already.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        closes
    }
}

impl ConnectionTable {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of this table's own time.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn add(table: &Arc<Self>, stream: &Arc<TcpStream>, address: IpAddr) -> Entry {
        let state = Arc::new(ConnectionState {
            now: AtomicU8::new(QUEUED),
            since: AtomicU64::new(table.now()),
            returns: AtomicU32::new(0),
        });
        let connection =
            Connection { stream: Arc::clone(stream), address: address.to_canonical(), state: Arc::clone(&state) };
        let mut connections = table.lock();
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, connection);
        Entry { table: Arc::clone(table), number, state }
    }

    /// Closes the oldest connection that has sent no whole request in so long, or does not read what it asked for.
    pub(super) fn close_useless(&self, grace: Duration) -> bool {
        let now = Duration::from_millis(self.now());
        let lasts = |one: &Connection| now.saturating_sub(one.since());
        let stalls = |one: &Connection| one.is(SENDING) && lasts(one) >= STALLED && one.is_full();
        let is_useless = |one: &Connection| lasts(one) >= grace && one.close(NEW) || stalls(one) && one.close(SENDING);
        self.lock().open.values().any(is_useless)
    }

    /// Lets every connection read what the kernel has of it, and then nothing more. Closes those that do not read.
    pub(super) fn stop_reading(&self) {
        for one in self.lock().open.values() {
            let stalls = one.is(SENDING) && one.is_full() && one.close(SENDING);
            if !stalls && !one.is(BUSY) {
                // Otherwise the client has closed it already.
                let _ = one.stream.shutdown(Shutdown::Read);
            }
        }
    }

    /// Closes a connection to make room: a useless one; else, where more than a quarter of all connections are idle ones of a
    /// single address, one of these, those first that have come back least and were answered longest ago. Others may be of
    /// an orchestrator, which drops a capability when a connection that it wants to use again has been closed; it never
    /// holds that many.
    pub(super) fn make_room(&self, grace: Duration) -> Room {
        if self.close_useless(grace) {
            return Room::Made;
        }
        let now = Duration::from_millis(self.now());
        let connections = self.lock();
        let lasts = |one: &Connection| now.saturating_sub(one.since());
        let idle = || connections.open.values().filter(|one| one.is(IDLE));
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for one in idle() {
            *held.entry(one.address).or_default() += 1;
        }
        let most = held.into_iter().max_by_key(|(_, count)| *count);
        let most = most.filter(|(_, count)| *count * 4 > connections.open.len()).map(|(address, _)| address);
        let of_most = idle().filter(|one| {
            let grace = if one.returns() > FEW { LONG_IDLE } else { grace };
            Some(one.address) == most && lasts(one) >= grace
        });
        if of_most.min_by_key(|one| (one.returns(), one.since())).is_some_and(|one| one.close(IDLE)) {
            return Room::Made;
        }
        let may_close = |one: &Connection| !one.is(BUSY) && (!one.is(IDLE) || Some(one.address) == most);
        if connections.open.values().any(may_close) { Room::Later } else { Room::Never }
    }
}

impl Default for ConnectionTable {
    fn default() -> Self {
        Self { connections: Mutex::default(), opened: Instant::now() }
    }
}

impl Entry {
    /// A thread serves it now.
    pub(super) fn listen(&self) {
        self.state.since.store(self.table.now(), Ordering::Release);
        // A queued connection is never closed.
        self.state.now.store(NEW, Ordering::Release);
    }

    /// It waits for the worker, and not the worker for it.
    pub(super) fn delay(&self) {
        self.state.since.store(self.table.now(), Ordering::Release);
    }

    /// A whole request has come. False: too late, the connection is being closed.
    pub(super) fn begin(&self) -> bool {
        let busy = |state: u8| (state != LEAVING).then_some(BUSY);
        self.state.now.fetch_update(Ordering::AcqRel, Ordering::Acquire, busy).is_ok()
    }

    /// The answer is there, and is sent now.
    pub(super) fn send(&self) {
        self.state.since.store(self.table.now(), Ordering::Release);
        // A busy connection is never closed.
        self.state.now.store(SENDING, Ordering::Release);
    }

    /// It has been answered. `returned`: its request was waited for, and had not come along with an earlier one. False: it
    /// did not read, and is being closed.
    pub(super) fn end(&self, returned: bool) -> bool {
        self.state.returns.fetch_add(u32::from(returned), Ordering::AcqRel);
        self.state.now.compare_exchange(SENDING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.number);
    }
}
