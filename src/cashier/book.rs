//! What the cashier knows of its file, and what the file's thread tells it.

use std::sync::Arc;

use super::Cashier;
use crate::edge::disk::ledger::{Books, Pages};
use crate::edge::limits::unix_now;
use crate::pure::pm::ledger::{self, Due, Entry, Findings, Ledger, Received, Sieve};
use crate::pure::text::counted;

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

impl Books for Arc<Cashier> {
    fn opened(&self, read: Result<(Ledger, Findings, Pages), String>) {
        let ledger = read.map(|(ledger, findings, pages)| {
            if findings.damaged > 0 {
                log::warn!("ticket ledger: {} left out", counted(findings.damaged, "damaged line"));
            }
            if ledger.pending() > 0 {
                log::info!("{} waiting for TICKET_SUBMIT_URL", counted(ledger.pending(), "payment"));
            }
            (ledger, pages)
        });
        let why = ledger.as_ref().err().cloned();
        let before = self.lock().ledger.replace(ledger);
        self.changed.notify_all();
        if let Some(why) = why.filter(|why| before.and_then(Result::err).as_ref() != Some(why)) {
            log::warn!("the ticket ledger cannot be used: {why}; jobs with tickets are refused until it can be");
        }
    }

    fn sieve(&self, until: u64) -> Option<Sieve> {
        self.lock().ledger().ok().map(|ledger| ledger.sieve(unix_now(), until))
    }

    fn with(&self, work: &mut dyn FnMut(&mut Ledger, &mut Pages)) {
        if let Some(Ok((ledger, pages))) = &mut self.lock().ledger {
            work(ledger, pages);
        }
    }

    fn wake(&self) {
        self.changed.notify_all();
    }
}
