//! Compaction: which lines of the file go on into a smaller one. Lines are looked at one by one, in their order, while
//! more are appended; those beyond the end that the file had at the start are taken over as they are.

use std::collections::HashSet;

use super::{Ended, Entry, Key, LIFETIME, Ledger, MANY_SEEN, MAX_ENDED, Piece, Place, Received, Totals};
use super::{hash_of, key_of, keys};

/// Tickets that one compaction forgets at most, so that it needs little memory: the next one forgets more.
const FORGOTTEN_AT_ONCE: usize = 300_000;

/// A compaction under way. Nothing is changed in the ledger before it has succeeded.
#[derive(Debug)]
pub(crate) struct Sieve {
    now: f64,
    /// Lines from here on are taken over as they are.
    until: u64,
    /// Payments that are summed up, and their tickets.
    forgotten: HashSet<Key>,
    tickets: Vec<Key>,
    older: Totals,
    /// Payments and tickets that are forgotten before their lifetime is over: there is no room for them.
    early: (usize, usize),
    /// Where payments that wait are in the new file, by their number.
    moved: Vec<(u64, Place)>,
}

/// What becomes of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sifted {
    /// It is kept as it is.
    pub(crate) kept: bool,
    /// And these follow.
    pub(crate) more: String,
}

impl Ledger {
    /// Begins a compaction of a file that ends at `until`.
    pub(crate) fn sieve(&self, now: f64, until: u64) -> Sieve {
        let seen = self.seen.as_ref().map_or(0, HashSet::len);
        let excess = |count: usize, most: usize| count.saturating_sub(most / 4 * 3);
        let early = (excess(self.ended.len(), MAX_ENDED), excess(seen, MANY_SEEN));
        Sieve {
            now,
            until,
            forgotten: HashSet::new(),
            tickets: Vec::new(),
            older: self.older.clone(),
            early: if self.is_over() { early } else { (0, 0) },
            moved: Vec::new(),
        }
    }

    /// Looks at a line that would be kept at `to` in the new file.
    pub(crate) fn sift(&self, sieve: &mut Sieve, piece: &Piece<'_>, to: u64) -> Sifted {
        let kept = Sifted { kept: true, more: String::new() };
        match piece.entry() {
            Some(Entry::Payment(received)) => self.sift_payment(sieve, piece, received, to).unwrap_or_default(),
            Some(Entry::Result(ended)) => {
                let key = hash_of(&ended.id).map(|id| key_of(&id));
                let known = |key: &Key| self.ended.contains_key(key) && !sieve.forgotten.contains(key);
                if key.as_ref().is_some_and(known) { kept } else { Sifted::default() }
            }
            // What they say is known, and written with the payment or in the summary.
            Some(Entry::Void { .. } | Entry::Sent { .. } | Entry::Failed { .. } | Entry::Summary(_)) => {
                Sifted::default()
            }
            // A line that makes no sense: an operator may still be able to repair it.
            None => kept,
        }
    }

    fn sift_payment(&self, sieve: &mut Sieve, piece: &Piece<'_>, mut received: Received, to: u64) -> Option<Sifted> {
        let key = key_of(&hash_of(&received.id)?);
        if let Some(number) = self.numbers.get(&key) {
            // The same tickets may have come before, for a job that was refused.
            let waiting = self.waiting.get(number)?;
            waiting.place.filter(|place| place.offset == piece.place.offset)?;
            let newline = u64::from(!piece.whole);
            sieve.moved.push((*number, Place { offset: to, length: piece.place.length + newline }));
            let (tries, arrived) = (waiting.tries, waiting.arrived || waiting.under_way);
            let failed = Entry::Failed { id: received.id, at: received.at, tries, arrived };
            let more = if tries > 0 || arrived { failed.line() } else { String::new() };
            return Some(Sifted { kept: true, more });
        }
        let end = self.ended.get(&key).filter(|_| !sieve.forgotten.contains(&key))?;
        let early = sieve.early != (0, 0);
        let old = early || sieve.now - received.at > LIFETIME;
        if old && sieve.tickets.len() < FORGOTTEN_AT_ONCE {
            let count = received.tickets.len();
            sieve.early = (sieve.early.0.saturating_sub(1), sieve.early.1.saturating_sub(count));
            sieve.older.add_payment(end.result.name(), &received);
            sieve.tickets.extend(keys(&received));
            sieve.forgotten.insert(key);
            return None;
        }
        if end.offset.is_none() && !end.owed {
            // Its result is being written at this moment: without that the headers are needed.
            return Some(Sifted { kept: true, more: String::new() });
        }
        // Nobody needs the headers any more.
        received.payment = String::new();
        received.job = String::new();
        let (id, at) = (received.id.clone(), received.at);
        let owed = Ended { id, at, result: end.result, status: None, message: String::new() };
        let mut more = Entry::Payment(received).line();
        if end.offset.is_none() {
            more.push_str(&Entry::Result(owed).line());
        }
        Some(Sifted { kept: false, more })
    }

    /// The new file is in place; in it `base` is where the first line stands that was taken over as it was.
    pub(crate) fn compacted(&mut self, sieve: Sieve, base: u64) {
        let Sieve { until, forgotten, tickets, older, moved, .. } = sieve;
        for place in self.waiting.values_mut().filter_map(|waiting| waiting.place.as_mut()) {
            if place.offset >= until {
                place.offset = place.offset - until + base;
            }
        }
        for (number, place) in moved {
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.place = Some(place);
            }
        }
        self.ended.retain(|key, _| !forgotten.contains(key));
        self.forget_tickets(&tickets);
        self.older = older;
    }
}

impl Sieve {
    /// The line that says what others added up to.
    pub(crate) fn summary(&self) -> String {
        Entry::Summary(self.older.clone()).line()
    }

    pub(crate) fn until(&self) -> u64 {
        self.until
    }
}
