//! Reads the file into a ledger, line by line, and examines its end.

use std::time::Duration;

use super::Ledger;
use super::entry::Entry;
use super::key::hash_of;
use super::lines::{Lines, Piece, Place};

/// What the end of the file needs before a line is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Fine,
    /// From here on a write was cut short, and never confirmed.
    Torn(u64),
    /// The line that ends here lacks only its newline.
    Unfinished(u64),
}

/// What was found in a file besides entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Damaged lines.
    pub(crate) damaged: usize,
    pub(crate) tail: Tail,
}

/// Reads a whole file. `remember`: see [`Ledger`].
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn replay(lines: &mut dyn Lines, remember: bool) -> Result<(Ledger, Findings), String> {
    let mut ledger = Ledger::new(remember);
    let (mut damaged, mut tail, mut intact) = (0, None, true);
    while let Some(piece) = lines.next()? {
        if piece.is_empty() {
            continue;
        }
        let (place, whole, torn) = (piece.place, piece.whole, piece.looks_torn());
        let voided = piece.entry().and_then(|entry| ledger.apply(entry, place));
        tail = match voided {
            Some(_) if whole => None,
            Some(_) => Some(Tail::Unfinished(lines.ends().0)),
            // The line before it must be intact: a foreign file is never cut.
            None if torn && intact => Some(Tail::Torn(place.offset)),
            None => {
                damaged += 1;
                Some(Tail::Fine)
            }
        };
        intact = voided.is_some();
        if let Some(place) = voided.flatten() {
            let line = lines.again(place)?;
            let piece = Piece { place, bytes: Some(&line), whole: true };
            if let Some(Entry::Payment(received)) = piece.entry() {
                ledger.forget_tickets(&received.keys().collect::<Vec<_>>());
            }
        }
    }
    let (end, length) = lines.ends();
    let nuls = if end < length { Tail::Torn(end) } else { Tail::Fine };
    Ok((ledger, Findings { damaged, tail: tail.unwrap_or(nuls) }))
}

impl Ledger {
    /// Applies a line; None: damaged. Some(Some): the place of a payment that it voids.
    pub(super) fn apply(&mut self, entry: Entry, place: Place) -> Option<Option<Place>> {
        match entry {
            Entry::Payment(received) => {
                hash_of(&received.id)?;
                self.insert(&received, place.length, Some(place), Duration::ZERO);
            }
            Entry::Void { id } => return Some(self.void(&hash_of(&id)?, &[])),
            Entry::Sent { id, .. } => self.sent(&hash_of(&id)?),
            Entry::Failed { id, tries, arrived, .. } => self.failed(&hash_of(&id)?, tries, arrived),
            Entry::Result(ended) => self.end(&hash_of(&ended.id)?, ended.result, Some(place)),
            Entry::Summary(totals) => {
                self.older.add_all(&totals);
                self.totals.add_all(&totals);
            }
        }
        Some(None)
    }
}
