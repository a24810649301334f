//! What the cashier knows of its file, and what the file's thread tells it.

use super::file::Pages;
use super::ledger::{self, Due, Entry, Ledger, Received};

#[derive(Debug, Default)]
pub(super) struct Book {
    /// What is known, and the file that it is in. Err: why that cannot be used; None: it is being read.
    pub(super) ledger: Option<Result<(Ledger, Pages), String>>,
    pub(super) stopping: bool,
    pub(super) submitting: bool,
}

impl Book {
    /// The ledger, or why there is none.
    pub(super) fn ledger(&mut self) -> Result<&mut Ledger, String> {
        match &mut self.ledger {
            Some(Ok((ledger, _))) => Ok(ledger),
            Some(Err(why)) => Err(why.clone()),
            None => Err("the ledger is being read".into()),
        }
    }
}

/// A payment from the file.
///
/// # Errors
/// When the file was changed, or the disk cannot be read.
pub(super) fn read_back(due: Due, pages: &Pages) -> Result<Received, String> {
    let line = pages.read(due.place).map_err(|why| format!("a payment cannot be read from STATE_DIR: {why}"))?;
    match serde_json::from_slice(&line) {
        Ok(Entry::Payment(received)) if ledger::hash_of(&received.id) == Some(due.id) => Ok(received),
        _ => Err("a payment is not where it was written in STATE_DIR: the file was changed".into()),
    }
}
