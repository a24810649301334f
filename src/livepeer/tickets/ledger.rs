//! The ledger of tickets that reached the worker, and their results. The file holds the payments; memory holds the places
//! of those still waiting, and a key of each ticket.

pub(crate) mod compaction;
pub(crate) mod entry;
pub(crate) mod key;
pub(crate) mod lines;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod totals;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::livepeer::payments::ticket::Hash;
use entry::{Outcome, PENDING, Received};
use key::{Key, hash_of, key_of};
use lines::Place;
use totals::{Ev, Totals};

/// Payments that may wait for submission, and bytes of their lines.
pub(crate) const MAX_PENDING: usize = 65_536;
pub(crate) const MAX_PENDING_BYTES: u64 = 64 << 20;
/// Ended payments and tickets that are remembered for their lifetime: beyond these, a compaction forgets the oldest ended
/// ones early.
const MAX_ENDED: usize = 200_000;
const MANY_SEEN: usize = 800_000;
/// Beyond this many tickets none are accepted.
const MAX_SEEN: usize = 900_000;

/// What a line that is being written means to the ledger once it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Nothing,
    /// A payment, by its number.
    Payment(u64),
    /// The result of one.
    Result(Key),
}

/// Everything known about the tickets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Payments waiting for submission, in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    numbers: HashMap<Key, u64>,
    ended: HashMap<Key, End>,
    next: u64,
    /// Tickets of all payments, so that used ones are rejected; None: not needed.
    seen: Option<HashSet<Key>>,
    /// Sums of all payments, and of those no longer in the file.
    totals: Totals,
    older: Totals,
    pending_bytes: u64,
    /// When the file was read: see [`Ledger::opened`].
    opened: Option<(Duration, f64)>,
    /// The expected value of the last payment's tickets: most payments have the same, and share it.
    ev: (String, Arc<Ev>),
}

#[derive(Debug)]
struct Waiting {
    id: Hash,
    /// None: being written.
    place: Option<Place>,
    /// Since when this worker has it.
    since: Duration,
    bytes: u32,
    tickets: u32,
    /// Expected value of one ticket.
    ev: Arc<Ev>,
    /// Failed tries.
    tries: u32,
    /// One of them may have arrived.
    arrived: bool,
    under_way: bool,
}

/// The result of a payment, in few bytes: there are many.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Where its line is; None: not written yet.
    offset: Option<NonZeroU64>,
    length: u16,
    result: Outcome,
    /// Writing its line has failed.
    unwritten: bool,
    /// Failed tries before.
    tries: u32,
}

/// A payment to submit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Due {
    pub(crate) number: u64,
    pub(crate) id: Hash,
    pub(crate) place: Place,
    /// Since when this worker has it, by the clock of [`Ledger::insert`].
    pub(crate) since: Duration,
    pub(crate) tries: u32,
    /// An earlier try may have arrived.
    pub(crate) arrived: bool,
}

/// Why tickets are not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Reused,
    Full,
}

impl Ledger {
    /// `remember`: keep the tickets' keys, so that used ones are rejected.
    fn new(remember: bool) -> Self {
        Self { seen: remember.then(HashSet::new), ..Self::default() }
    }

    /// Whether these tickets may be accepted, as a line of `bytes`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_take(&self, tickets: &[Key], bytes: u64) -> Result<(), NotTaken> {
        let seen = self.seen.as_ref();
        if seen.is_some_and(|seen| tickets.iter().any(|key| seen.contains(key))) {
            return Err(NotTaken::Reused);
        }
        let full = self.waiting.len() >= MAX_PENDING
            || self.pending_bytes + bytes > MAX_PENDING_BYTES
            || seen.is_some_and(|seen| seen.len() + tickets.len() > MAX_SEEN);
        if full { Err(NotTaken::Full) } else { Ok(()) }
    }

    /// The file has been read, at `now` by any monotonic clock and at `unix` seconds. The age of a waiting payment counts
    /// from here: a machine may start with a clock of 2099, and a date alone must not make a payment worthless.
    pub(crate) fn opened(&mut self, now: Duration, unix: f64) {
        self.waiting.values_mut().for_each(|waiting| waiting.since = now);
        self.opened = Some((now, unix));
    }

    /// Unix seconds for the ages of payments that have ended: a clock that was set forward while the worker runs does not
    /// make them older.
    fn date(&self, now: Duration, unix: f64) -> f64 {
        self.opened.map_or(unix, |(since, at)| unix.min(at + now.saturating_sub(since).as_secs_f64()))
    }

    /// Adds a payment at `now` and returns its number. None: it is known already, or its id is invalid. `place`: None until
    /// its line is written.
    pub(crate) fn insert(
        &mut self,
        received: &Received,
        bytes: u64,
        place: Option<Place>,
        now: Duration,
    ) -> Option<u64> {
        let id = hash_of(&received.id)?;
        let key = key_of(&id);
        if self.numbers.contains_key(&key) || self.ended.contains_key(&key) {
            return None;
        }
        if let Some(seen) = &mut self.seen {
            seen.extend(received.keys());
        }
        if self.ev.0 != received.ev {
            self.ev = (received.ev.clone(), Arc::new(Ev::parse(&received.ev)));
        }
        let waiting = Waiting {
            id,
            place,
            since: now,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            tickets: u32::try_from(received.tickets.len()).unwrap_or(u32::MAX),
            ev: Arc::clone(&self.ev.1),
            tries: 0,
            arrived: false,
            under_way: false,
        };
        self.pending_bytes += u64::from(waiting.bytes);
        self.totals.change(PENDING, 1, waiting.tickets, &waiting.ev);
        let number = self.next;
        self.next += 1;
        self.numbers.insert(key, number);
        self.waiting.insert(number, waiting);
        Some(number)
    }

    /// A line is on the disk.
    pub(crate) fn placed(&mut self, mark: Mark, place: Place) {
        match mark {
            Mark::Nothing => {}
            Mark::Payment(number) => {
                if let Some(waiting) = self.waiting.get_mut(&number) {
                    waiting.place = Some(place);
                }
            }
            Mark::Result(key) => {
                if let Some(end) = self.ended.get_mut(&key) {
                    end.put(place);
                }
            }
        }
    }

    /// The file was cut there; returns how many waiting payments are no longer in it.
    pub(crate) fn cut(&mut self, length: u64) -> usize {
        let is_gone = |place: &Place| place.offset + place.length > length;
        let gone = self.waiting.values_mut().filter(|waiting| waiting.place.as_ref().is_some_and(is_gone));
        gone.map(|waiting| waiting.place = None).count()
    }

    /// A payment is being sent.
    pub(crate) fn sent(&mut self, id: &Hash) {
        if let Some(waiting) = self.find(id) {
            // An earlier try without a saved result: the worker was killed.
            waiting.arrived |= waiting.under_way;
            waiting.under_way = true;
        }
    }

    /// A payment must be sent again. `arrived`: it may have arrived without an answer.
    pub(crate) fn failed(&mut self, id: &Hash, tries: u32, arrived: bool) {
        if let Some(waiting) = self.find(id) {
            waiting.tries = tries;
            waiting.arrived |= arrived;
            waiting.under_way = false;
        }
    }

    /// A payment has a result, whose line is at `place`.
    pub(crate) fn end(&mut self, id: &Hash, result: Outcome, place: Option<Place>) {
        let Some(waiting) = self.take_out(id) else { return };
        self.totals.change(result.name(), 1, waiting.tickets, &waiting.ev);
        let mut end = End { offset: None, length: 0, result, unwritten: false, tries: waiting.tries };
        if let Some(place) = place {
            end.put(place);
        }
        self.ended.insert(key_of(id), end);
    }

    /// Its result could not be written: a compaction writes it.
    pub(crate) fn mark_unwritten(&mut self, id: &Hash) {
        if let Some(end) = self.ended.get_mut(&key_of(id)) {
            end.unwritten = true;
        }
    }

    /// Forgets a payment and its tickets; returns where its line is, if known.
    pub(crate) fn void(&mut self, id: &Hash, tickets: &[Key]) -> Option<Place> {
        let waiting = self.take_out(id)?;
        self.forget_tickets(tickets);
        waiting.place
    }

    fn take_out(&mut self, id: &Hash) -> Option<Waiting> {
        let waiting = self.waiting.remove(&self.numbers.remove(&key_of(id))?)?;
        self.pending_bytes -= u64::from(waiting.bytes);
        self.totals.change(PENDING, -1, waiting.tickets, &waiting.ev);
        Some(waiting)
    }

    fn find(&mut self, id: &Hash) -> Option<&mut Waiting> {
        self.waiting.get_mut(self.numbers.get(&key_of(id))?)
    }

    fn forget_tickets(&mut self, tickets: &[Key]) {
        let Some(seen) = &mut self.seen else { return };
        for key in tickets {
            seen.remove(key);
        }
        if seen.capacity() > 4 * seen.len().max(1024) {
            seen.shrink_to_fit();
        }
    }

    /// The next payment on the disk to submit after `number`, wrapping around to the first.
    pub(crate) fn next_due(&self, number: Option<u64>) -> Option<Due> {
        let after = number.map_or(0, |number| number + 1);
        let due = |(number, waiting): (&u64, &Waiting)| {
            let place = waiting.place?;
            let Waiting { id, since, tries, arrived, under_way, .. } = *waiting;
            Some(Due { number: *number, id, place, since, tries, arrived: arrived || under_way })
        };
        self.waiting.range(after..).find_map(due).or_else(|| self.waiting.range(..after).find_map(due))
    }

    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// By result, including `pending`.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// More is remembered than allowed.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.len() > MAX_ENDED || self.seen.as_ref().is_some_and(|seen| seen.len() > MANY_SEEN)
    }
}

impl End {
    fn put(&mut self, place: Place) {
        let offset = NonZeroU64::new(place.offset);
        if let Some((offset, length)) = offset.zip(u16::try_from(place.length).ok()) {
            (self.offset, self.length) = (Some(offset), length);
        }
    }

    fn place(&self) -> Option<Place> {
        self.offset.map(|offset| Place { offset: offset.get(), length: self.length.into() })
    }
}

#[cfg(test)]
mod tests;
