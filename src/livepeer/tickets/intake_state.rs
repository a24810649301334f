//! What the ticket intake's threads share, what it counts, and how a payment is read back from the file.

use std::io;

use super::file::lines::LineReader;
use super::ledger::entry::{Entry, Received};
use super::ledger::key::hash_of;
use super::ledger::{Due, Ledger};
use crate::sys::text::io_words;

#[derive(Debug, Default)]
pub(super) struct IntakeState {
    /// The ledger and its file. Err: why it cannot be used; None: it is being read.
    pub(super) ledger: Option<Result<(Ledger, LineReader), String>>,
    pub(super) stopping: bool,
    pub(super) submitting: bool,
}

impl IntakeState {
    /// The ledger, or why it cannot be used.
    pub(super) fn ledger(&mut self) -> Result<&mut Ledger, String> {
        match &mut self.ledger {
            Some(Ok((ledger, _))) => Ok(ledger),
            Some(Err(why)) => Err(why.clone()),
            None => Err("the ledger is being read".into()),
        }
    }
}

/// The result of a payment before it was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Kept,
    Invalid,
    Reused,
    Unwritten,
}

impl Taken {
    pub(super) const ALL: [Self; 4] = [Self::Kept, Self::Invalid, Self::Reused, Self::Unwritten];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Invalid => "invalid",
            Self::Reused => "reused",
            Self::Unwritten => "unwritten",
        }
    }
}

/// Reads a payment back from the file.
///
/// # Errors
/// When the file was changed or cannot be read.
pub(super) fn read_back(due: Due, reader: &LineReader) -> Result<Received, String> {
    let line = match reader.read(due.place) {
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
        line => line.map_err(|why| format!("cannot read a payment from STATE_DIR: {}", io_words(&why)))?,
    };
    match serde_json::from_slice(&line) {
        Ok(Entry::Payment(received)) if hash_of(&received.id) == Some(due.id) => Ok(received),
        _ => Err("a payment is missing from its place in STATE_DIR: another program has changed the file".into()),
    }
}
