//! Compaction: which lines of the file go into a smaller one. Lines are read one by one, in order, while more are appended;
//! those after the file's end at the start are copied unchanged.

use std::collections::HashSet;
use std::time::Duration;

use super::entry::{CLOCK_UNSET_BEFORE, Ended, Entry, LIFETIME, Received};
use super::key::{Key, hash_of, key_of};
use super::lines::{Piece, Place};
use super::totals::{Ev, Totals};
use super::{Ledger, MANY_SEEN, MAX_ENDED};

/// Tickets that one compaction forgets at most, to limit its memory; the next one forgets more.
const FORGOTTEN_AT_ONCE: usize = 300_000;

/// A compaction under way. The ledger changes only once it has succeeded.
#[derive(Debug)]
pub(crate) struct CompactionPlan {
    /// Unix seconds.
    date: f64,
    /// Lines from here on are copied unchanged.
    until: u64,
    /// Payments that are only summed up, and their tickets.
    forgotten: HashSet<Key>,
    tickets: Vec<Key>,
    older: Totals,
    /// Payments and tickets still to be forgotten before their lifetime ends, for lack of room.
    early: (usize, usize),
    /// Where waiting payments are in the new file, by number.
    moved: Vec<(u64, Place)>,
}

/// What a line becomes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CompactedLine {
    /// It is copied unchanged.
    pub(crate) kept: bool,
    /// Lines that follow it.
    pub(crate) more: String,
}

impl Ledger {
    /// Starts a compaction of a file that ends at `until`, at `now` and at `unix` seconds.
    pub(crate) fn plan_compaction(&self, now: Duration, unix: f64, until: u64) -> CompactionPlan {
        let seen = self.seen.as_ref().map_or(0, HashSet::len);
        let excess = |count: usize, most: usize| count.saturating_sub(most / 4 * 3);
        let early = (excess(self.ended.len(), MAX_ENDED), excess(seen, MANY_SEEN));
        CompactionPlan {
            date: self.date(now, unix),
            until,
            forgotten: HashSet::new(),
            tickets: Vec::new(),
            older: self.older.clone(),
            early: if self.is_over() { early } else { (0, 0) },
            moved: Vec::new(),
        }
    }

    /// Decides about a line that would be at `to` in the new file.
    pub(crate) fn compact_line(&self, plan: &mut CompactionPlan, piece: &Piece<'_>, to: u64) -> CompactedLine {
        let kept = CompactedLine { kept: true, more: String::new() };
        match piece.entry() {
            Some(Entry::Payment(received)) => self.compact_payment(plan, piece, received, to).unwrap_or_default(),
            Some(Entry::Result(ended)) => {
                let key = hash_of(&ended.id).map(|id| key_of(&id));
                let known = |key: &Key| self.ended.contains_key(key) && !plan.forgotten.contains(key);
                if key.as_ref().is_some_and(known) { kept } else { CompactedLine::default() }
            }
            // Their content is written with the payment or in the summary.
            Some(Entry::Void { .. } | Entry::Sent { .. } | Entry::Failed { .. } | Entry::Summary(_)) => {
                CompactedLine::default()
            }
            // A damaged line: an operator may be able to repair it.
            None => kept,
        }
    }

    fn compact_payment(
        &self,
        plan: &mut CompactionPlan,
        piece: &Piece<'_>,
        mut received: Received,
        to: u64,
    ) -> Option<CompactedLine> {
        let key = key_of(&hash_of(&received.id)?);
        if let Some(number) = self.numbers.get(&key) {
            // The same tickets may have come before, for a job that was rejected.
            let waiting = self.waiting.get(number)?;
            waiting.place.filter(|place| place.offset == piece.place.offset)?;
            let newline = u64::from(!piece.whole);
            plan.moved.push((*number, Place { offset: to, length: piece.place.length + newline }));
            let (tries, arrived) = (waiting.tries, waiting.arrived || waiting.under_way);
            let failed = Entry::Failed { id: received.id, at: plan.date, tries, arrived };
            let more = if tries > 0 || arrived { failed.line() } else { String::new() };
            return Some(CompactedLine { kept: true, more });
        }
        let end = self.ended.get(&key).filter(|_| !plan.forgotten.contains(&key))?;
        let early = plan.early != (0, 0);
        let is_dated = received.at > CLOCK_UNSET_BEFORE;
        let old = early || (is_dated && plan.date - received.at > LIFETIME.as_secs_f64());
        if old && plan.tickets.len() < FORGOTTEN_AT_ONCE {
            let count = received.tickets.len();
            plan.early = (plan.early.0.saturating_sub(1), plan.early.1.saturating_sub(count));
            let tickets = u32::try_from(count).unwrap_or(u32::MAX);
            plan.older.change(end.result.name(), 1, tickets, &Ev::parse(&received.ev));
            plan.tickets.extend(received.keys());
            plan.forgotten.insert(key);
            return None;
        }
        if end.offset.is_none() && !end.unwritten {
            // Its result is being written now: until then the headers are needed.
            return Some(CompactedLine { kept: true, more: String::new() });
        }
        received.payment = String::new();
        received.job = String::new();
        let (id, at) = (received.id.clone(), received.at);
        let result = Ended { id, at, result: end.result, status: None, message: String::new() };
        let mut more = Entry::Payment(received).line();
        if end.offset.is_none() {
            more.push_str(&Entry::Result(result).line());
        }
        Some(CompactedLine { kept: false, more })
    }

    /// The new file is in place; `base` is where its first unchanged line begins.
    pub(crate) fn compacted(&mut self, plan: CompactionPlan, base: u64) {
        let CompactionPlan { until, forgotten, tickets, older, moved, .. } = plan;
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

impl CompactionPlan {
    /// The line with the sums of forgotten payments.
    pub(crate) fn summary(&self) -> String {
        Entry::Summary(self.older.clone()).line()
    }

    pub(crate) fn until(&self) -> u64 {
        self.until
    }
}
