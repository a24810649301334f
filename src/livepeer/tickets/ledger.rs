//! STATE_DIR/tickets.jsonl: tickets that reached the worker, one JSON object a line, and what became of them. The file
//! holds the payments; memory holds where each one is that still waits, and a key of each ticket.

mod entry;
mod replay;
pub(crate) mod report;
mod sieve;
mod totals;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::livepeer::payments::ticket::Hash;

pub(crate) use entry::{Ended, Entry, LIFETIME, Outcome, PENDING, Received, judge, message, void_of};
pub(crate) use replay::{Findings, Lines, Piece, Tail, replay};
pub(crate) use sieve::Sieve;
pub(crate) use totals::{Ev, Totals};

/// Payments that may wait for their submission, and the bytes of their lines.
pub(crate) const MAX_PENDING: usize = 65_536;
pub(crate) const MAX_PENDING_BYTES: u64 = 64 << 20;
/// Payments that ended and tickets that are remembered for their lifetime: with more, a compaction forgets the oldest of
/// what has ended early.
const MAX_ENDED: usize = 200_000;
const MANY_SEEN: usize = 800_000;
/// Tickets beyond which none are taken.
const MAX_SEEN: usize = 900_000;

/// A hash, folded: 64 bits tell a million tickets apart, and whoever finds two of his own that share them gets the
/// second one refused.
pub(crate) type Key = u64;

/// Where a line is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What a line that is being written is to the ledger, for when it is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Nothing,
    /// A payment, by its number.
    Payment(u64),
    /// What became of one.
    Result(Key),
}

/// Everything that is known of the tickets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Payments that wait for their submission, by the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    numbers: HashMap<Key, u64>,
    ended: HashMap<Key, End>,
    next: u64,
    /// Tickets of all these payments; None: nobody will ask.
    seen: Option<HashSet<Key>>,
    /// Of all payments, and of those among them that are no longer listed.
    totals: Totals,
    older: Totals,
    pending_bytes: u64,
    /// The last payment's: most are alike.
    ev: (String, Arc<Ev>),
}

#[derive(Debug)]
struct Waiting {
    id: Hash,
    /// None: it is being written.
    place: Option<Place>,
    at: f64,
    bytes: u32,
    tickets: u32,
    /// Of one ticket.
    ev: Arc<Ev>,
    /// That failed.
    tries: u32,
    /// One of them may have arrived all the same.
    arrived: bool,
    under_way: bool,
}

/// What became of a payment, in few bytes: there are many.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Where its line is; None: it could not be written so far.
    offset: Option<NonZeroU64>,
    length: u16,
    result: Outcome,
    /// The disk did not take its line.
    owed: bool,
    /// That failed before.
    tries: u32,
}

/// A payment that is to be submitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Due {
    pub(crate) number: u64,
    pub(crate) id: Hash,
    pub(crate) place: Place,
    pub(crate) at: f64,
    pub(crate) tries: u32,
    /// An earlier try may have arrived.
    pub(crate) arrived: bool,
}

/// Why tickets are not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Reused,
    Full,
}

impl Ledger {
    /// `remember`: tickets that have paid, so that they can be refused.
    fn new(remember: bool) -> Self {
        Self { seen: remember.then(HashSet::new), ..Self::default() }
    }

    /// Whether these tickets may be taken, as a line of so many bytes.
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

    /// Takes a payment in; its number. None: it is known, or its id is none. `place` as soon as it has one.
    pub(crate) fn insert(&mut self, received: &Received, bytes: u64, place: Option<Place>) -> Option<u64> {
        let id = hash_of(&received.id)?;
        let key = key_of(&id);
        if self.numbers.contains_key(&key) || self.ended.contains_key(&key) {
            return None;
        }
        if let Some(seen) = &mut self.seen {
            seen.extend(keys(received));
        }
        if self.ev.0 != received.ev {
            self.ev = (received.ev.clone(), Arc::new(Ev::parse(&received.ev)));
        }
        let waiting = Waiting {
            id,
            place,
            at: received.at,
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

    /// It is being sent.
    pub(crate) fn sent(&mut self, id: &Hash) {
        if let Some(waiting) = self.find(id) {
            // A try whose end nobody wrote down: the worker was killed.
            waiting.arrived |= waiting.under_way;
            waiting.under_way = true;
        }
    }

    /// It is to be sent again. `arrived`: it may have arrived, though nobody answered.
    pub(crate) fn failed(&mut self, id: &Hash, tries: u32, arrived: bool) {
        if let Some(waiting) = self.find(id) {
            waiting.tries = tries;
            waiting.arrived |= arrived;
            waiting.under_way = false;
        }
    }

    /// It has a result, whose line is at `place`.
    pub(crate) fn end(&mut self, id: &Hash, result: Outcome, place: Option<Place>) {
        let Some(waiting) = self.take_out(id) else { return };
        self.totals.change(result.name(), 1, waiting.tickets, &waiting.ev);
        let mut end = End { offset: None, length: 0, result, owed: false, tries: waiting.tries };
        if let Some(place) = place {
            end.put(place);
        }
        self.ended.insert(key_of(id), end);
    }

    /// The disk did not take what became of it: a compaction writes that once more.
    pub(crate) fn owe(&mut self, id: &Hash) {
        if let Some(end) = self.ended.get_mut(&key_of(id)) {
            end.owed = true;
        }
    }

    /// It is as if it had never come, and so are its tickets. Where its line is, if that is known.
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

    /// The next payment to submit after the one with `number`, around to the first; only of those on the disk.
    pub(crate) fn next_due(&self, number: Option<u64>) -> Option<Due> {
        let after = number.map_or(0, |number| number + 1);
        let due = |(number, waiting): (&u64, &Waiting)| {
            let place = waiting.place?;
            let Waiting { id, at, tries, arrived, under_way, .. } = *waiting;
            Some(Due { number: *number, id, place, at, tries, arrived: arrived || under_way })
        };
        self.waiting.range(after..).find_map(due).or_else(|| self.waiting.range(..after).find_map(due))
    }

    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// By result, `pending` included.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// More is remembered than there is room for.
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

/// The keys of a payment's tickets.
pub(crate) fn keys(received: &Received) -> impl Iterator<Item = Key> {
    received.tickets.iter().filter_map(|hash| hash_of(hash)).map(|hash| key_of(&hash))
}

pub(crate) fn key_of(hash: &Hash) -> Key {
    let (words, _) = hash.as_chunks::<8>();
    words.iter().fold(0, |key, word| key ^ u64::from_be_bytes(*word))
}

/// 32 bytes from `0x` and 64 digits.
pub(crate) fn hash_of(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 64)?.as_bytes();
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
