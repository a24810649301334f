//! Takes the tickets that come with jobs: verifies them, saves them before the job is answered, and submits them until
//! there is a final answer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::file::LedgerFile;
use super::file::access::LedgerAccess;
use super::file::lines::LineReader;
use super::file::receipt::Receipt;
use super::header::{NotAccepted, Tickets};
use super::intake_state::{IntakeState, Taken, read_back};
use super::ledger::compaction::CompactionPlan;
use super::ledger::entry::{Ended, Entry, LIFETIME, Outcome, PENDING, Received, outcome_of};
use super::ledger::key::{Key, hash_of, key_of};
use super::ledger::replay::Findings;
use super::ledger::{Due, Ledger, Mark, NotTaken};
use crate::livepeer::orchestrator::Orchestrator;
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket::{Hash, hex};
use crate::sys::backoff::Backoff;
use crate::sys::exposition::{Exposition, counter, gauge, metrics};
use crate::sys::limits::unix_now;
use crate::sys::text::{self, counted};
use crate::sys::threads;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Characters of an answer that are kept.
const MAX_MESSAGE: usize = 200;
/// For the disk to save that a payment is being submitted.
const SENT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the disk to save the result of a payment.
const RESULT_TIMEOUT: Duration = Duration::from_secs(60);
/// At the end, for a payment that is being submitted.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

metrics! {
    PAYMENTS = counter(
        "agent_net_ticket_payments_total", &["result"], "Payments that came with jobs, by what the worker did with them."
    );
    TICKETS = gauge("agent_net_tickets", &["result"], "Tickets in the ledger, by the result at TICKET_SUBMIT_URL.");
    EXPECTED_VALUE = gauge("agent_net_ticket_ev_wei", &["result"], "Expected value of these tickets in wei.");
    WRITE_ERRORS = counter("agent_net_ticket_write_errors_total", &[], "Failed writes of the ticket ledger.");
}

/// Takes tickets, where TICKET_SUBMIT_URL is set.
#[derive(Debug)]
pub(crate) struct TicketIntake {
    state: Mutex<IntakeState>,
    changed: Condvar,
    file: OnceLock<LedgerFile>,
    counts: [AtomicU64; Taken::ALL.len()],
    started: Instant,
    time_scale: u32,
}

impl TicketIntake {
    /// Opens the ledger in `dir` and starts to submit what waits there. `to`: TICKET_SUBMIT_URL. Waits are divided by
    /// `time_scale`.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: &str, to: Orchestrator, time_scale: u32) -> io::Result<Arc<Self>> {
        let intake = Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            file: OnceLock::new(),
            counts: Default::default(),
            started: Instant::now(),
            time_scale,
        });
        let file = LedgerFile::start(dir, Arc::clone(&intake))?;
        let _ = intake.file.set(file);
        let submitting = Arc::clone(&intake);
        threads::service("tickets", move || submitting.submit_forever(&to))?;
        Ok(intake)
    }

    /// Decodes and verifies tickets, before any work. The sender is unknown yet: cheap checks come first, and signatures,
    /// which cost most, last.
    ///
    /// # Errors
    /// Tickets that no orchestrator would accept or that were used before, or no room for them.
    pub(crate) fn verify(&self, tickets: Tickets) -> Result<Received, NotAccepted> {
        let invalid = |why: String| {
            self.count(Taken::Invalid);
            NotAccepted::Invalid(format!("the tickets in Livepeer-Payment are not valid: {why}"))
        };
        let payment = Payment::decode(&tickets.payment).map_err(invalid)?;
        payment.check_form().map_err(invalid)?;
        let hashes = payment.hashes();
        let keys: Vec<Key> = hashes.iter().map(key_of).collect();
        let bytes = tickets.payment.len() + tickets.job.len();
        match &mut self.lock().ledger {
            // `take` waits for it.
            None => {}
            Some(Ok((ledger, _))) => self.may_take(ledger, &keys, bytes)?,
            Some(Err(why)) => return Err(self.unwritten(why)),
        }
        payment.check_signatures(&hashes).map_err(invalid)?;
        Ok(Received::new(&payment, &hashes, (tickets.payment, tickets.job), unix_now()))
    }

    /// Saves verified tickets; Ok once they are synced to the disk.
    ///
    /// # Errors
    /// 400 for a ticket that was used before, 503 when they cannot be saved within `timeout`: then nothing of them is kept.
    pub(crate) fn take(&self, received: Received, timeout: Duration) -> Result<(), NotAccepted> {
        let start = Instant::now();
        let (id, keys) = (hash_of(&received.id), received.keys().collect::<Vec<_>>());
        let receipt = self.begin(received, &keys, timeout)?;
        let written = receipt.wait(timeout.saturating_sub(start.elapsed()));
        match (&written, id) {
            (Err(_), Some(id)) => self.void(&id, &keys),
            _ => self.count(Taken::Kept),
        }
        written.map_err(|why| self.unwritten(&why))
    }

    /// Puts tickets into the ledger, once that has been read, and has their line written.
    fn begin(&self, received: Received, keys: &[Key], timeout: Duration) -> Result<Arc<Receipt>, NotAccepted> {
        let entry = Entry::Payment(received);
        let line = entry.line();
        let Entry::Payment(received) = entry else { return Err(self.unwritten("it cannot be written as a line")) };
        let reading = |state: &mut IntakeState| state.ledger.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, reading);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ledger = state.ledger().map_err(|why| self.unwritten(&why))?;
        self.may_take(ledger, keys, line.len())?;
        let number = ledger.insert(&received, line.len() as u64, None, self.now());
        let receipt = number.ok_or_else(|| "it is in the ledger already".to_owned()).and_then(|number| {
            let file = self.file.get().ok_or("it is being opened")?;
            file.append(line, Mark::Payment(number))
        });
        receipt.map_err(|why| {
            if let Some(id) = hash_of(&received.id) {
                ledger.void(&id, keys);
            }
            self.unwritten(&why)
        })
    }

    fn may_take(&self, ledger: &Ledger, keys: &[Key], bytes: usize) -> Result<(), NotAccepted> {
        ledger.may_take(keys, bytes as u64).map_err(|why| match why {
            NotTaken::Reused => {
                self.count(Taken::Reused);
                let message = "a ticket in Livepeer-Payment was already used. Send new ones";
                NotAccepted::Reused(message.into())
            }
            NotTaken::Full => self.unwritten("too many payments are waiting for TICKET_SUBMIT_URL"),
        })
    }

    /// A payment's job is rejected after all.
    fn void(&self, id: &Hash, keys: &[Key]) {
        let mut state = self.lock();
        if let Ok(ledger) = state.ledger() {
            ledger.void(id, keys);
        }
        let _ = self.write(&Entry::Void { id: hex(id) }, Mark::Nothing);
    }

    /// Has a line written; lines reach the file in the order of these calls.
    fn write(&self, entry: &Entry, mark: Mark) -> Result<Arc<Receipt>, String> {
        self.file.get().ok_or("it is being opened")?.append(entry.line(), mark)
    }

    fn unwritten(&self, why: &str) -> NotAccepted {
        self.count(Taken::Unwritten);
        let message = format!("the tickets cannot be saved ({why}). They were not used: send them again");
        NotAccepted::Unwritten(message)
    }

    fn submit_forever(&self, to: &Orchestrator) {
        // A panic may have left it set.
        self.lock().submitting = false;
        let mut backoff = Backoff::new(FIRST_WAIT / self.time_scale, LONGEST_WAIT / self.time_scale);
        // The payment whose failure was logged, and why: only its own success clears that.
        let (mut last, mut failing) = (None, None::<(u64, String)>);
        while let Some((due, reader)) = self.next(last) {
            last = Some(due.number);
            let failed = self.submit(to, due, &reader).err();
            let pending = {
                let mut state = self.lock();
                state.submitting = false;
                self.changed.notify_all();
                state.ledger().map_or(0, |ledger| ledger.pending())
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
                        log::warn!("TICKET_SUBMIT_URL: {why}; {waiting} waiting, retrying");
                        failing = Some((due.number, why));
                    }
                    self.pause(backoff.after_failure(0.0));
                }
            }
        }
    }

    /// The next payment to submit, and its file; None: the worker stops.
    fn next(&self, last: Option<u64>) -> Option<(Due, LineReader)> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(Ok((ledger, reader))) = &state.ledger
                && let Some(due) = ledger.next_due(last)
            {
                let found = (due, reader.clone());
                state.submitting = true;
                return Some(found);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Submits one payment.
    ///
    /// # Errors
    /// Why it must be tried again.
    fn submit(&self, to: &Orchestrator, due: Due, reader: &LineReader) -> Result<(), String> {
        let (id, now) = (hex(&due.id), unix_now());
        if self.now().saturating_sub(due.since) > LIFETIME {
            let ended = Ended { id, at: now, result: Outcome::Expired, status: None, message: String::new() };
            self.end(&due.id, ended);
            return Ok(());
        }
        let received = read_back(due, reader)?;
        let noted = {
            let mut state = self.lock();
            state.ledger()?.sent(&due.id);
            self.write(&Entry::Sent { id: id.clone(), at: now }, Mark::Nothing)
        };
        // After a kill -9 an unsaved try would make the next one look refused. But a disk that does not respond must not
        // hold the tickets until they expire.
        let _ = noted.and_then(|receipt| receipt.wait(SENT_TIMEOUT));
        let (why, arrived) = match to.submit(&received.payment, &received.job) {
            Ok((status, answer)) => match outcome_of(status, &answer) {
                Some(result) => {
                    let unclear = result == Outcome::Refused && due.arrived;
                    let result = if unclear { Outcome::Unclear } else { result };
                    let (status, message) = (Some(status), text::start(&answer, MAX_MESSAGE));
                    self.end(&due.id, Ended { id, at: unix_now(), result, status, message });
                    return Ok(());
                }
                // A proxy's page of a status of 500 and more says only that the orchestrator is down.
                None if status < 500 && text::is_web_page(&answer) => {
                    let why =
                        format!("a web page (HTML) came with {status}: check the URL, and the proxy in front of it");
                    (why, false)
                }
                None => (format!("it answered {status}"), status >= 500),
            },
            Err(no_answer) => (no_answer.why, no_answer.arrived),
        };
        let (tries, at) = (due.tries.saturating_add(1), unix_now());
        let mut state = self.lock();
        state.ledger()?.failed(&due.id, tries, arrived);
        let _ = self.write(&Entry::Failed { id, at, tries, arrived }, Mark::Nothing);
        Err(why)
    }

    /// Saves the result of a payment.
    fn end(&self, id: &Hash, ended: Ended) {
        let (result, status) = (ended.result, ended.status);
        if result == Outcome::Accepted {
            log::debug!("a payment was accepted");
        } else {
            let status = status.map_or_else(String::new, |status| format!(" with {status}"));
            log::warn!("a payment was {}{status}. Details: agent-net pm ledger", result.name());
        }
        let receipt = {
            // The result counts even if it cannot be saved.
            let mut state = self.lock();
            if let Ok(ledger) = state.ledger() {
                ledger.end(id, result, None);
            }
            self.write(&Entry::Result(ended), Mark::Result(key_of(id)))
        };
        // The next one waits for it: an unsaved payment would be submitted again after a restart.
        if let Err(why) = receipt.and_then(|receipt| receipt.wait(RESULT_TIMEOUT)) {
            log::warn!("cannot save the result of a payment: {why}");
            if let Ok(ledger) = self.lock().ledger() {
                ledger.mark_unwritten(id);
            }
        }
    }

    fn pause(&self, wait: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |state| !state.stopping);
        drop(waited);
    }

    /// Submits nothing more; waits for a submission under way.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, STOP_TIMEOUT, |state| state.submitting);
        drop(waited);
    }

    pub(crate) fn write_metrics(&self, out: &mut Exposition) {
        out.family(&PAYMENTS);
        for (taken, count) in Taken::ALL.iter().zip(&self.counts) {
            out.sample(&[taken.name()], Some(count.load(Ordering::Relaxed) as f64));
        }
        out.single(&WRITE_ERRORS, self.file.get().map(|file| file.errors() as f64));
        let mut state = self.lock();
        let Ok(ledger) = state.ledger() else { return };
        let results: Vec<&str> = Outcome::ALL.iter().map(|result| result.name()).chain([PENDING]).collect();
        out.family(&TICKETS);
        for result in &results {
            out.sample(&[result], Some(ledger.totals().tickets(result) as f64));
        }
        out.family(&EXPECTED_VALUE);
        for result in &results {
            out.sample(&[result], Some(ledger.totals().ev(result)));
        }
    }

    /// The time for which this worker has run, without the time that the machine slept: only that can have been used to
    /// submit payments.
    fn now(&self) -> Duration {
        self.started.elapsed() * self.time_scale
    }

    fn count(&self, taken: Taken) {
        self.counts[taken as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, IntakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LedgerAccess for Arc<TicketIntake> {
    fn opened(&self, read: Result<(Ledger, Findings, LineReader), String>) {
        let ledger = read.map(|(mut ledger, findings, reader)| {
            ledger.opened(self.now(), unix_now());
            if findings.damaged > 0 {
                log::warn!("ticket ledger: {} left out", counted(findings.damaged, "damaged line"));
            }
            if ledger.pending() > 0 {
                log::info!("{} waiting for TICKET_SUBMIT_URL", counted(ledger.pending(), "payment"));
            }
            (ledger, reader)
        });
        let why = ledger.as_ref().err().cloned();
        let before = self.lock().ledger.replace(ledger);
        self.changed.notify_all();
        if let Some(why) = why.filter(|why| before.and_then(Result::err).as_ref() != Some(why)) {
            log::warn!("cannot use the ticket ledger: {why}; rejecting jobs with tickets until it works");
        }
    }

    fn plan_compaction(&self, until: u64) -> Option<CompactionPlan> {
        self.lock().ledger().ok().map(|ledger| ledger.plan_compaction(self.now(), unix_now(), until))
    }

    fn with(&self, work: &mut dyn FnMut(&mut Ledger, &mut LineReader)) {
        if let Some(Ok((ledger, reader))) = &mut self.lock().ledger {
            work(ledger, reader);
        }
    }

    fn wake(&self) {
        self.changed.notify_all();
    }
}
