//! Reads the lines of the file, one after the other: what they say, and what its end looks like.

use serde::de::IgnoredAny;

use super::{Entry, Ledger, Place, hash_of, keys};

/// A file, read from its start.
pub(crate) trait Lines {
    /// The next line; None at the end of the text.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn next(&mut self) -> Result<Option<Piece<'_>>, String>;

    /// A line that was read before.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn again(&mut self, place: Place) -> Result<Vec<u8>, String>;

    /// The end of the text, and of the file: between them are only NUL bytes.
    fn ends(&self) -> (u64, u64);
}

/// One line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// With its newline.
    pub(crate) place: Place,
    /// Without its newline; None: it is longer than any line of ours.
    pub(crate) bytes: Option<&'a [u8]>,
    /// It ends with a newline.
    pub(crate) whole: bool,
}

impl Piece<'_> {
    /// None: it makes no sense.
    pub(crate) fn entry(&self) -> Option<Entry> {
        serde_json::from_slice(self.bytes?).ok()
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes.trim_ascii().is_empty())
    }

    /// As a write looks that a kill or a power loss cut short. A whole JSON value is somebody else's.
    fn looks_torn(&self) -> bool {
        let begun = |bytes: &[u8]| b"{\"".starts_with(&bytes[..bytes.len().min(2)]) || bytes[0] == 0;
        let ended = |bytes: &[u8]| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        !self.whole && self.bytes.is_some_and(|bytes| begun(bytes) && !ended(bytes))
    }
}

/// What the end of a file needs before something is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Fine,
    /// From here on a write was cut short: it was never confirmed.
    Torn(u64),
    /// A line that ends here lacks only its newline.
    Unfinished(u64),
}

/// What was found in a file beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Lines that make no sense.
    pub(crate) damaged: usize,
    pub(crate) tail: Tail,
}

/// Reads a whole file. `remember`: see [`Ledger`].
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn replay(lines: &mut dyn Lines, remember: bool) -> Result<(Ledger, Findings), String> {
    let mut ledger = Ledger::new(remember);
    let (mut damaged, mut tail, mut sound) = (0, None, true);
    while let Some(piece) = lines.next()? {
        if piece.is_empty() {
            continue;
        }
        let (place, whole, torn) = (piece.place, piece.whole, piece.looks_torn());
        let voided = piece.entry().and_then(|entry| ledger.apply(entry, place));
        tail = match voided {
            Some(_) if whole => None,
            Some(_) => Some(Tail::Unfinished(lines.ends().0)),
            // The lines before it must be sound: a file that is not ours is never cut.
            None if torn && sound => Some(Tail::Torn(place.offset)),
            None => {
                damaged += 1;
                Some(Tail::Fine)
            }
        };
        sound = voided.is_some();
        if let Some(place) = voided.flatten() {
            let line = lines.again(place)?;
            let piece = Piece { place, bytes: Some(&line), whole: true };
            if let Some(Entry::Payment(received)) = piece.entry() {
                ledger.forget_tickets(&keys(&received).collect::<Vec<_>>());
            }
        }
    }
    let (end, length) = lines.ends();
    let nuls = if end < length { Tail::Torn(end) } else { Tail::Fine };
    Ok((ledger, Findings { damaged, tail: tail.unwrap_or(nuls) }))
}

impl Ledger {
    /// Takes in what a line says; None: it makes no sense. The place of a payment that it voids.
    pub(super) fn apply(&mut self, entry: Entry, place: Place) -> Option<Option<Place>> {
        match entry {
            Entry::Payment(received) => {
                hash_of(&received.id)?;
                self.insert(&received, place.length, Some(place));
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
