//! STATE_DIR/tickets.jsonl: tickets that reached the worker, one JSON object a line, and what became of them.

mod entry;
pub(crate) mod report;

use std::collections::{BTreeMap, HashSet};

use num_bigint::BigInt;

use super::ticket::{Hash, uint256};

pub(crate) use entry::{Ended, Entry, LIFETIME, Outcome, PENDING, Received, Totals, judge, message, void_of};

/// Payments that may wait for their submission, and the bytes of them.
pub(crate) const MAX_PENDING: usize = 10_000;
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Everything that is known of the tickets.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By the order in which they came.
    payments: BTreeMap<u64, Kept>,
    by_id: BTreeMap<String, u64>,
    next: u64,
    seen: HashSet<Hash>,
    /// Of all payments, and of those among them that are no longer listed.
    totals: Totals,
    older: Totals,
    pending: usize,
    pending_bytes: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) received: Received,
    /// That failed.
    pub(crate) tries: u32,
    /// One of them may have arrived all the same.
    pub(crate) arrived: bool,
    under_way: bool,
    pub(crate) ended: Option<Ended>,
}

/// Why tickets are not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Reused,
    Full,
}

impl Ledger {
    /// Reads a file's lines; how many of them make no sense.
    pub(crate) fn replay<'a>(lines: impl Iterator<Item = &'a str>) -> (Self, usize) {
        let mut ledger = Self::default();
        let mut damaged = 0;
        for line in lines.filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(entry) => ledger.apply(entry),
                Err(_) => damaged += 1,
            }
        }
        (ledger, damaged)
    }

    /// Takes in what a line says.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Payment(received) => self.insert(received),
            Entry::Void { id } => self.remove(&id),
            Entry::Sent { id, .. } => {
                if let Some(kept) = self.get_mut(&id) {
                    // A try whose end nobody wrote down: the worker was killed.
                    kept.arrived |= kept.under_way;
                    kept.under_way = true;
                }
            }
            Entry::Failed { id, tries, arrived, .. } => {
                if let Some(kept) = self.get_mut(&id) {
                    kept.tries = tries;
                    kept.arrived |= arrived;
                    kept.under_way = false;
                }
            }
            Entry::Result(ended) => {
                let id = ended.id.clone();
                let Some(kept) = self.get_mut(&id).filter(|kept| kept.ended.is_none()) else { return };
                let result = ended.result.name();
                kept.ended = Some(ended);
                // Nobody needs the headers any more.
                let bytes = kept.received.bytes();
                kept.received.payment = String::new();
                kept.received.job = String::new();
                let received = kept.received.clone();
                self.totals.take_off(PENDING, &received);
                self.totals.add(result, &received);
                self.pending -= 1;
                self.pending_bytes -= bytes;
            }
            Entry::Summary(totals) => {
                self.older.add_all(&totals);
                self.totals.add_all(&totals);
            }
        }
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Kept> {
        self.payments.get_mut(self.by_id.get(id)?)
    }

    fn insert(&mut self, received: Received) {
        if self.by_id.contains_key(&received.id) {
            return;
        }
        self.seen.extend(hashes(&received));
        self.pending += 1;
        self.pending_bytes += received.bytes();
        self.totals.add(PENDING, &received);
        self.by_id.insert(received.id.clone(), self.next);
        self.payments.insert(self.next, Kept { received, tries: 0, arrived: false, under_way: false, ended: None });
        self.next += 1;
    }

    fn remove(&mut self, id: &str) {
        let Some(kept) = self.by_id.remove(id).and_then(|number| self.payments.remove(&number)) else { return };
        self.forget_tickets(&kept.received);
        self.totals.take_off(kept.ended.as_ref().map_or(PENDING, |ended| ended.result.name()), &kept.received);
        if kept.ended.is_none() {
            self.pending -= 1;
            self.pending_bytes -= kept.received.bytes();
        }
    }

    fn forget_tickets(&mut self, received: &Received) {
        for hash in hashes(received) {
            self.seen.remove(&hash);
        }
    }

    /// Whether these tickets may be taken.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn may_take(&self, received: &Received) -> Result<(), NotTaken> {
        if hashes(received).any(|hash| self.seen.contains(&hash)) {
            return Err(NotTaken::Reused);
        }
        let full = self.pending >= MAX_PENDING || self.pending_bytes + received.bytes() > MAX_PENDING_BYTES;
        if full { Err(NotTaken::Full) } else { Ok(()) }
    }

    /// The next payment to submit after the one with `number`, around to the first; only of those whose id `may` be.
    pub(crate) fn next_pending(&self, number: Option<u64>, may: &dyn Fn(&str) -> bool) -> Option<(u64, &Kept)> {
        let after = number.map_or(0, |number| number + 1);
        let waiting = |(_, kept): &(&u64, &Kept)| kept.ended.is_none() && may(&kept.received.id);
        let found = self.payments.range(after..).find(waiting).or_else(|| self.payments.range(..after).find(waiting));
        found.map(|(number, kept)| (*number, kept))
    }

    pub(crate) fn kept(&self, id: &str) -> Option<&Kept> {
        self.payments.get(self.by_id.get(id)?)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// In the order in which they came.
    pub(crate) fn payments(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.payments.values()
    }

    /// By result, `pending` included.
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Forgets payments that ended longer than their lifetime ago; the lines that say the rest.
    pub(crate) fn compact(&mut self, now: f64) -> Vec<Entry> {
        let old: Vec<u64> = self
            .payments
            .iter()
            .filter(|(_, kept)| kept.ended.is_some() && now - kept.received.at > LIFETIME)
            .map(|(number, _)| *number)
            .collect();
        for number in old {
            let Some(kept) = self.payments.remove(&number) else { continue };
            let result = kept.ended.as_ref().map_or(PENDING, |ended| ended.result.name());
            self.older.add(result, &kept.received);
            self.by_id.remove(&kept.received.id);
            self.forget_tickets(&kept.received);
        }
        let mut lines = vec![Entry::Summary(self.older.clone())];
        for kept in self.payments.values() {
            let (id, at, arrived) = (kept.received.id.clone(), kept.received.at, kept.arrived || kept.under_way);
            lines.push(Entry::Payment(kept.received.clone()));
            lines.extend((kept.tries > 0 || arrived).then_some(Entry::Failed { id, at, tries: kept.tries, arrived }));
            lines.extend(kept.ended.clone().map(Entry::Result));
        }
        lines
    }
}

fn hashes(received: &Received) -> impl Iterator<Item = Hash> {
    received.tickets.iter().filter_map(|hash| bytes_of(hash))
}

/// 32 bytes from `0x` and 64 digits.
fn bytes_of(text: &str) -> Option<Hash> {
    let number = BigInt::parse_bytes(text.strip_prefix("0x").filter(|digits| digits.len() == 64)?.as_bytes(), 16)?;
    Some(uint256(&number))
}

#[cfg(test)]
mod tests;
