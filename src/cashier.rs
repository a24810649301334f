//! Takes the tickets that come with jobs: verifies them, has them written down before the job is answered, and hands
//! them in until somebody answers for good.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::edge::disk::ledger::{LedgerFile, Receipt};
use crate::edge::limits::unix_now;
use crate::edge::orchestrator::Orchestrator;
use crate::pure::exposition::{Exposition, Kind};
use crate::pure::pm::ledger::{self, Ended, Entry, LIFETIME, Ledger, NotTaken, Outcome, Received};
use crate::pure::pm::payment::Payment;
use crate::pure::route::{Refusal, Tickets};
use crate::pure::schedule::Backoff;
use crate::threads;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Old results are summed up when the file is larger than this, and twice as large as after the last time.
const LARGE_FILE: u64 = 64 << 20;
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

#[derive(Debug)]
struct Book {
    /// Err: why the file cannot be used; None: it is being read.
    ledger: Option<Result<Ledger, String>>,
    /// Ids that are being written: not yet to be handed in.
    unwritten: Vec<String>,
    /// The file's length after old results were summed up.
    compacted: u64,
    stopping: bool,
    submitting: bool,
}

impl Book {
    /// The ledger, or why there is none.
    fn ledger(&mut self) -> Result<&mut Ledger, String> {
        match &mut self.ledger {
            Some(Ok(ledger)) => Ok(ledger),
            Some(Err(why)) => Err(why.clone()),
            None => Err("the ledger is being read".into()),
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
            book: Mutex::new(Book {
                ledger: None,
                unwritten: Vec::new(),
                compacted: 0,
                stopping: false,
                submitting: false,
            }),
            changed: Condvar::new(),
            file: OnceLock::new(),
            counts: Default::default(),
        });
        let loader = Arc::clone(&cashier);
        let file = LedgerFile::start(dir, move |text| loader.load(text), ledger::void_of)?;
        // Nothing else sets it.
        let _ = cashier.file.set(file);
        let clerk = Arc::clone(&cashier);
        threads::essential("cashier", move || clerk.submit_forever(&to, hurry))?;
        Ok(cashier)
    }

    /// Decodes and verifies tickets, before any work.
    ///
    /// # Errors
    /// 400 for what no orchestrator would take.
    pub(crate) fn verify(&self, tickets: Tickets) -> Result<Received, Refusal> {
        let verified = Payment::decode(&tickets.payment).and_then(|payment| {
            let verified = payment.verify(None);
            match payment.problems(&verified).first() {
                Some(problem) => Err(problem.clone()),
                None => Ok(Received::new(&payment, &verified, (tickets.payment, tickets.job), unix_now())),
            }
        });
        verified.map_err(|why| {
            self.count(Taken::Invalid);
            Refusal::new(400, "bad_payment", format!("the tickets in Livepeer-Payment cannot be taken: {why}"))
        })
    }

    /// Writes verified tickets down; Ok once they are on the disk itself.
    ///
    /// # Errors
    /// 400 for a ticket that has paid before, 503 when they cannot be written within `patience`: then they are as if
    /// they had never come.
    pub(crate) fn take(&self, received: Received, patience: Duration) -> Result<(), Refusal> {
        let (id, start) = (received.id.clone(), Instant::now());
        let receipt = self.begin(received, patience)?;
        let written = receipt.wait(patience.saturating_sub(start.elapsed()));
        let mut book = self.lock();
        book.unwritten.retain(|other| *other != id);
        match &written {
            Ok(()) => self.count(Taken::Kept),
            // The line itself may have been written, by a compaction.
            Err(_) => drop(self.note(&mut book, Entry::Void { id })),
        }
        self.compact_if_large(&mut book);
        self.changed.notify_all();
        written.map_err(|why| self.unwritten(&why))
    }

    /// Takes tickets into the ledger, once it has been read, and has their line written.
    fn begin(&self, received: Received, patience: Duration) -> Result<Arc<Receipt>, Refusal> {
        let reading = |book: &mut Book| book.ledger.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), patience, reading);
        let (mut book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ledger = book.ledger().map_err(|why| self.unwritten(&why))?;
        match ledger.may_take(&received) {
            Ok(()) => {}
            Err(NotTaken::Reused) => {
                self.count(Taken::Reused);
                let message = "a ticket in Livepeer-Payment has paid for a job before; send new ones";
                return Err(Refusal::new(400, "ticket_reused", message));
            }
            Err(NotTaken::Full) => return Err(self.unwritten("too many payments wait for TICKET_SUBMIT_URL")),
        }
        let id = received.id.clone();
        let receipt = self.note(&mut book, Entry::Payment(received));
        if receipt.is_ok() {
            book.unwritten.push(id);
        }
        receipt.map_err(|why| self.unwritten(&why))
    }

    /// Applies an entry and has it written; the lines reach the file in the order of these calls.
    fn note(&self, book: &mut Book, entry: Entry) -> Result<Arc<Receipt>, String> {
        let file = self.file.get().ok_or("it is being opened")?;
        let ledger = book.ledger()?;
        let receipt = file.append(entry.line());
        // What becomes of a payment is known whether or not it can be written.
        if receipt.is_ok() || !matches!(entry, Entry::Payment(_)) {
            ledger.apply(entry);
        }
        receipt
    }

    fn unwritten(&self, why: &str) -> Refusal {
        self.count(Taken::Unwritten);
        let message = format!("the tickets cannot be written to STATE_DIR ({why}); they are not used, send them again");
        Refusal::new(503, "ledger_failed", message).with("Retry-After", "10")
    }

    fn load(&self, text: Result<String, String>) {
        let ledger = text.map(|text| {
            let (ledger, damaged) = Ledger::replay(text.lines());
            if damaged > 0 {
                log::warn!("{damaged} damaged lines of the ticket ledger are left out");
            }
            if ledger.pending() > 0 {
                log::info!("{} payments wait for TICKET_SUBMIT_URL", ledger.pending());
            }
            ledger
        });
        let why = ledger.as_ref().err().cloned();
        let before = self.lock().ledger.replace(ledger);
        self.changed.notify_all();
        if let Some(why) = why.filter(|why| before.and_then(Result::err).as_ref() != Some(why)) {
            log::warn!("the ticket ledger cannot be used: {why}; jobs with tickets are refused until it can be");
        }
    }

    fn compact_if_large(&self, book: &mut Book) {
        let Some(file) = self.file.get() else { return };
        let due = file.length() > LARGE_FILE.max(book.compacted.saturating_mul(2));
        if !(file.take_anew() || due) {
            return;
        }
        if let Ok(ledger) = book.ledger() {
            let lines: Vec<String> = ledger.compact(unix_now()).iter().map(Entry::line).collect();
            book.compacted = lines.iter().map(|line| line.len() as u64).sum();
            file.replace(lines);
        }
    }

    fn submit_forever(&self, to: &Orchestrator, hurry: u32) {
        let mut backoff = Backoff::new(FIRST_WAIT / hurry, LONGEST_WAIT / hurry);
        let (mut last, mut failing) = (None, false);
        while let Some((number, received)) = self.next(last) {
            last = Some(number);
            let failed = self.hand_in(to, received).err();
            let pending = {
                let mut book = self.lock();
                book.submitting = false;
                self.compact_if_large(&mut book);
                self.changed.notify_all();
                book.ledger().map_or(0, |ledger| ledger.pending())
            };
            match failed {
                None => {
                    if std::mem::take(&mut failing) {
                        log::info!("TICKET_SUBMIT_URL answers again");
                    }
                    backoff.success();
                }
                Some(why) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::warn!(
                            "TICKET_SUBMIT_URL: {why}; {pending} payments wait, and are tried again until it answers"
                        );
                    }
                    self.pause(backoff.after_failure(0.0));
                }
            }
        }
    }

    /// The next payment to hand in; None: the worker stops.
    fn next(&self, last: Option<u64>) -> Option<(u64, Received)> {
        let mut book = self.lock();
        loop {
            if book.stopping {
                return None;
            }
            let unwritten = book.unwritten.clone();
            let written = |id: &str| !unwritten.iter().any(|other| other == id);
            let ledger = book.ledger().ok();
            let found = ledger.as_ref().and_then(|ledger| ledger.next_pending(last, &written));
            if let Some((number, kept)) = found {
                let found = (number, kept.received.clone());
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
    fn hand_in(&self, to: &Orchestrator, received: Received) -> Result<(), String> {
        let (id, now) = (received.id, unix_now());
        let sane = now > SANE_CLOCK && received.at > SANE_CLOCK;
        if sane && now - received.at > LIFETIME {
            self.end(Ended { id, at: now, result: Outcome::Expired, status: None, message: String::new() });
            return Ok(());
        }
        let (noted, tries, may_have_arrived) = {
            let mut book = self.lock();
            let noted = self.note(&mut book, Entry::Sent { id: id.clone(), at: now });
            let kept = book.ledger().ok().and_then(|ledger| ledger.kept(&id));
            let (tries, arrived) = kept.map_or((0, false), |kept| (kept.tries, kept.arrived));
            (noted, tries, arrived)
        };
        // A try that nobody knows of after a kill -9 would make the next one look refused. But a disk that takes nothing
        // must not keep the tickets until they are worth nothing.
        let _ = noted.and_then(|receipt| receipt.wait(SENT_PATIENCE));
        let (why, arrived) = match to.submit(&received.payment, &received.job) {
            Ok((status, text)) => match ledger::judge(status) {
                Some(result) => {
                    let unclear = result == Outcome::Refused && may_have_arrived;
                    let result = if unclear { Outcome::Unclear } else { result };
                    self.end(Ended {
                        id,
                        at: unix_now(),
                        result,
                        status: Some(status),
                        message: ledger::message(&text),
                    });
                    return Ok(());
                }
                None => (format!("it answered {status}"), status >= 500),
            },
            Err(no_answer) => (no_answer.why, no_answer.arrived),
        };
        let failed = Entry::Failed { id, at: unix_now(), tries: tries.saturating_add(1), arrived };
        let _ = self.note(&mut self.lock(), failed);
        Err(why)
    }

    /// Writes down what became of a payment.
    fn end(&self, ended: Ended) {
        let (result, status) = (ended.result, ended.status);
        if result == Outcome::Accepted {
            log::debug!("a payment was accepted");
        } else {
            let status = status.map_or_else(String::new, |status| format!(" with {status}"));
            log::warn!("a payment was {}{status}; agent-net pm ledger tells more", result.name());
        }
        let receipt = self.note(&mut self.lock(), Entry::Result(ended));
        // The next one waits for it: what is not written would be handed in twice after a restart.
        if let Err(why) = receipt.and_then(|receipt| receipt.wait(RESULT_PATIENCE)) {
            log::warn!("what became of a payment cannot be written: {why}");
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
