//! Takes the tickets that come with jobs: verifies them, has them written down before the job is answered, and hands
//! them in until somebody answers for good.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::book::{Book, read_back};
use super::file::{Books, LedgerFile, Pages, Receipt};
use super::header::{NotAccepted, Tickets};
use super::ledger::{
    self, Due, Ended, Entry, Findings, Key, LIFETIME, Ledger, Mark, NotTaken, Outcome, Received, Sieve,
};
use crate::livepeer::orchestrator::Orchestrator;
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket::{Hash, hex};
use crate::sys::backoff::Backoff;
use crate::sys::exposition::{Exposition, Kind};
use crate::sys::limits::unix_now;
use crate::sys::text::counted;
use crate::sys::threads;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Clocks that show less have not been set yet: an age by them means nothing.
const SANE_CLOCK: f64 = 1.6e9;
/// For a disk that is to take that a payment is being handed in.
const SENT_PATIENCE: Duration = Duration::from_secs(5);
/// For a disk that is to take what became of a payment.
const RESULT_PATIENCE: Duration = Duration::from_secs(60);
/// At the end, for a payment that is being handed in.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Takes tickets. There is one where TICKET_SUBMIT_URL is set.
#[derive(Debug)]
pub(crate) struct Cashier {
    book: Mutex<Book>,
    changed: Condvar,
    file: OnceLock<LedgerFile>,
    counts: [AtomicU64; Taken::ALL.len()],
}

/// What became of a payment before it was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Kept,
    Invalid,
    Reused,
    Unwritten,
}

impl Taken {
    const ALL: [Self; 4] = [Self::Kept, Self::Invalid, Self::Reused, Self::Unwritten];

    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Invalid => "invalid",
            Self::Reused => "reused",
            Self::Unwritten => "unwritten",
        }
    }
}

impl Cashier {
    /// Opens the ledger below `dir` and begins to hand in what waits there. `to`: TICKET_SUBMIT_URL. `hurry`: so many
    /// times faster.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: &str, to: Orchestrator, hurry: u32) -> io::Result<Arc<Self>> {
        let cashier = Arc::new(Self {
            book: Mutex::default(),
            changed: Condvar::new(),
            file: OnceLock::new(),
            counts: Default::default(),
        });
        let file = LedgerFile::start(dir, Arc::clone(&cashier))?;
        // Nothing else sets it.
        let _ = cashier.file.set(file);
        let clerk = Arc::clone(&cashier);
        threads::service("cashier", move || clerk.submit_forever(&to, hurry))?;
        Ok(cashier)
    }

    /// Decodes and verifies tickets, before any work. Whoever sends them is not known yet: what costs little is looked at
    /// first, and a signature costs the most.
    ///
    /// # Errors
    /// Tickets that no orchestrator would take or that have paid before, or no room for them.
    pub(crate) fn verify(&self, tickets: Tickets) -> Result<Received, NotAccepted> {
        let invalid = |why: String| {
            self.count(Taken::Invalid);
            NotAccepted::Invalid(format!("the tickets in Livepeer-Payment cannot be taken: {why}"))
        };
        let payment = Payment::decode(&tickets.payment).map_err(invalid)?;
        payment.check_form().map_err(invalid)?;
        let hashes = payment.hashes();
        let keys: Vec<Key> = hashes.iter().map(ledger::key_of).collect();
        let bytes = tickets.payment.len() + tickets.job.len();
        match &mut self.lock().ledger {
            // Whoever takes them waits for it.
            None => {}
            Some(Ok((ledger, _))) => self.may_take(ledger, &keys, bytes)?,
            Some(Err(why)) => return Err(self.unwritten(why)),
        }
        payment.check_signatures(&hashes).map_err(invalid)?;
        Ok(Received::new(&payment, &hashes, (tickets.payment, tickets.job), unix_now()))
    }

    /// Writes verified tickets down; Ok once they are on the disk itself.
    ///
    /// # Errors
    /// 400 for a ticket that has paid before, 503 when they cannot be written within `patience`: then they are as if
    /// they had never come.
    pub(crate) fn take(&self, received: Received, patience: Duration) -> Result<(), NotAccepted> {
        let start = Instant::now();
        let (id, keys) = (ledger::hash_of(&received.id), ledger::keys(&received).collect::<Vec<_>>());
        let receipt = self.begin(received, &keys, patience)?;
        let written = receipt.wait(patience.saturating_sub(start.elapsed()));
        match (&written, id) {
            (Err(_), Some(id)) => self.void(&id, &keys),
            _ => self.count(Taken::Kept),
        }
        written.map_err(|why| self.unwritten(&why))
    }

    /// Takes tickets into the ledger, once it has been read, and has their line written.
    fn begin(&self, received: Received, keys: &[Key], patience: Duration) -> Result<Arc<Receipt>, NotAccepted> {
        let entry = Entry::Payment(received);
        let line = entry.line();
        let Entry::Payment(received) = entry else { return Err(self.unwritten("it has no line")) };
        let reading = |book: &mut Book| book.ledger.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), patience, reading);
        let (mut book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ledger = book.ledger().map_err(|why| self.unwritten(&why))?;
        self.may_take(ledger, keys, line.len())?;
        let number = ledger.insert(&received, line.len() as u64, None);
        let receipt = number.ok_or_else(|| "its number is taken".to_owned()).and_then(|number| {
            let file = self.file.get().ok_or("it is being opened")?;
            file.append(line, Mark::Payment(number))
        });
        receipt.map_err(|why| {
            if let Some(id) = ledger::hash_of(&received.id) {
                ledger.void(&id, keys);
            }
            self.unwritten(&why)
        })
    }

    fn may_take(&self, ledger: &Ledger, keys: &[Key], bytes: usize) -> Result<(), NotAccepted> {
        ledger.may_take(keys, bytes as u64).map_err(|why| match why {
            NotTaken::Reused => {
                self.count(Taken::Reused);
                let message = "a ticket in Livepeer-Payment has paid for a job before; send new ones";
                NotAccepted::Reused(message.into())
            }
            NotTaken::Full => self.unwritten("too many payments wait for TICKET_SUBMIT_URL"),
        })
    }

    /// A payment's job is refused after all.
    fn void(&self, id: &Hash, keys: &[Key]) {
        let mut book = self.lock();
        if let Ok(ledger) = book.ledger() {
            ledger.void(id, keys);
        }
        // The line itself may be written yet.
        let _ = self.write(&Entry::Void { id: hex(id) }, Mark::Nothing);
    }

    /// Has a line written; lines reach the file in the order of these calls.
    fn write(&self, entry: &Entry, mark: Mark) -> Result<Arc<Receipt>, String> {
        self.file.get().ok_or("it is being opened")?.append(entry.line(), mark)
    }

    fn unwritten(&self, why: &str) -> NotAccepted {
        self.count(Taken::Unwritten);
        let message = format!("the tickets cannot be written to STATE_DIR ({why}); they are not used, send them again");
        NotAccepted::Unwritten(message)
    }

    fn submit_forever(&self, to: &Orchestrator, hurry: u32) {
        // A panic may have left it set.
        self.lock().submitting = false;
        let mut backoff = Backoff::new(FIRST_WAIT / hurry, LONGEST_WAIT / hurry);
        // The payment whose failure was logged, and why: another one that is accepted does not clear it.
        let (mut last, mut failing) = (None, None::<(u64, String)>);
        while let Some((due, pages)) = self.next(last) {
            last = Some(due.number);
            let failed = self.hand_in(to, due, &pages).err();
            let pending = {
                let mut book = self.lock();
                book.submitting = false;
                self.changed.notify_all();
                book.ledger().map_or(0, |ledger| ledger.pending())
            };
            match failed {
                None => {
                    if failing.take_if(|(number, _)| *number == due.number).is_some() {
                        log::info!("TICKET_SUBMIT_URL answers again");
                    }
                    backoff.success();
                }
                Some(why) => {
                    if failing.as_ref().is_none_or(|(_, logged)| *logged != why) {
                        let waiting = counted(pending, "payment");
                        log::warn!("TICKET_SUBMIT_URL: {why}; {waiting} waiting, to be tried again until it answers");
                        failing = Some((due.number, why));
                    }
                    self.pause(backoff.after_failure(0.0));
                }
            }
        }
    }

    /// The next payment to hand in, and the file that it is in; None: the worker stops.
    fn next(&self, last: Option<u64>) -> Option<(Due, Pages)> {
        let mut book = self.lock();
        loop {
            if book.stopping {
                return None;
            }
            if let Some(Ok((ledger, pages))) = &book.ledger
                && let Some(due) = ledger.next_due(last)
            {
                let found = (due, pages.clone());
                book.submitting = true;
                return Some(found);
            }
            book = self.changed.wait(book).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Hands in one payment.
    ///
    /// # Errors
    /// Why it is to be tried again.
    fn hand_in(&self, to: &Orchestrator, due: Due, pages: &Pages) -> Result<(), String> {
        let (id, now) = (hex(&due.id), unix_now());
        let sane = now > SANE_CLOCK && due.at > SANE_CLOCK;
        if sane && now - due.at > LIFETIME {
            let ended = Ended { id, at: now, result: Outcome::Expired, status: None, message: String::new() };
            self.end(&due.id, ended);
            return Ok(());
        }
        let received = read_back(due, pages)?;
        let noted = {
            let mut book = self.lock();
            book.ledger()?.sent(&due.id);
            self.write(&Entry::Sent { id: id.clone(), at: now }, Mark::Nothing)
        };
        // A try that nobody knows of after a kill -9 would make the next one look refused. But a disk that takes nothing
        // must not keep the tickets until they are worth nothing.
        let _ = noted.and_then(|receipt| receipt.wait(SENT_PATIENCE));
        let (why, arrived) = match to.submit(&received.payment, &received.job) {
            Ok((status, text)) => match ledger::judge(status) {
                Some(result) => {
                    let unclear = result == Outcome::Refused && due.arrived;
                    let result = if unclear { Outcome::Unclear } else { result };
                    let (status, message) = (Some(status), ledger::message(&text));
                    self.end(&due.id, Ended { id, at: unix_now(), result, status, message });
                    return Ok(());
                }
                None => (format!("it answered {status}"), status >= 500),
            },
            Err(no_answer) => (no_answer.why, no_answer.arrived),
        };
        let tries = due.tries.saturating_add(1);
        let mut book = self.lock();
        book.ledger()?.failed(&due.id, tries, arrived);
        let _ = self.write(&Entry::Failed { id, at: unix_now(), tries, arrived }, Mark::Nothing);
        Err(why)
    }

    /// Writes down what became of a payment.
    fn end(&self, id: &Hash, ended: Ended) {
        let (result, status) = (ended.result, ended.status);
        if result == Outcome::Accepted {
            log::debug!("a payment was accepted");
        } else {
            let status = status.map_or_else(String::new, |status| format!(" with {status}"));
            log::warn!("a payment was {}{status}; agent-net pm ledger tells more", result.name());
        }
        let receipt = {
            // It is known whether or not it can be written.
            let mut book = self.lock();
            if let Ok(ledger) = book.ledger() {
                ledger.end(id, result, None);
            }
            self.write(&Entry::Result(ended), Mark::Result(ledger::key_of(id)))
        };
        // The next one waits for it: what is not written would be handed in twice after a restart.
        if let Err(why) = receipt.and_then(|receipt| receipt.wait(RESULT_PATIENCE)) {
            log::warn!("what became of a payment cannot be written: {why}");
            if let Ok(ledger) = self.lock().ledger() {
                ledger.owe(id);
            }
        }
    }

    fn pause(&self, wait: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |book| !book.stopping);
        drop(waited);
    }

    /// Hands in nothing more; waits for what is under way.
    pub(crate) fn stop(&self) {
        let mut book = self.lock();
        book.stopping = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(book, STOP_PATIENCE, |book| book.submitting);
        drop(waited);
    }

    pub(crate) fn write_metrics(&self, out: &mut Exposition) {
        let help = "Payments that came with jobs, by what became of them at the worker.";
        out.family("agent_net_ticket_payments_total", Kind::Counter, help);
        for (taken, count) in Taken::ALL.iter().zip(&self.counts) {
            out.sample_of("", &[("result", taken.name())], Some(count.load(Ordering::Relaxed) as f64));
        }
        let help = "Failed writes of the ticket ledger.";
        let errors = self.file.get().map(|file| file.errors() as f64);
        out.single("agent_net_ticket_write_errors_total", Kind::Counter, help, errors);
        let mut book = self.lock();
        let Ok(ledger) = book.ledger() else { return };
        let results: Vec<&str> = Outcome::ALL.iter().map(|result| result.name()).chain([ledger::PENDING]).collect();
        let help = "Tickets in the ledger, by what became of them at TICKET_SUBMIT_URL.";
        out.family("agent_net_tickets", Kind::Gauge, help);
        for result in &results {
            out.sample_of("", &[("result", result)], Some(ledger.totals().tickets(result) as f64));
        }
        out.family("agent_net_ticket_ev_wei", Kind::Gauge, "Expected value of these tickets in wei.");
        for result in &results {
            out.sample_of("", &[("result", result)], Some(ledger.totals().ev(result)));
        }
    }

    fn count(&self, taken: Taken) {
        self.counts[taken as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
