//! The lines of STATE_DIR/tickets.jsonl.

use serde::{Deserialize, Serialize};

use super::totals::Totals;
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket::{Hash, hex};

/// Seconds for which a payment is worth submitting: two rounds of 6377 blocks of 12 s, after which the chain redeems
/// none of its tickets.
pub(crate) const LIFETIME: f64 = 2.0 * 6377.0 * 12.0;
/// Characters of an answer that are kept.
const MAX_MESSAGE: usize = 200;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// Tickets that came with a job, with their headers as they came. They are on disk before the job is answered.
    Payment(Received),
    /// The job was refused after all: they are not submitted.
    Void { id: String },
    /// They are being sent.
    Sent { id: String, at: f64 },
    /// They are to be sent again. `arrived`: they may have arrived, though nobody answered.
    Failed { id: String, at: f64, tries: u32, arrived: bool },
    /// What became of them.
    Result(Ended),
    /// What older lines added up to when they were taken out.
    Summary(Totals),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    /// The hash of its first ticket.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) at: f64,
    pub(crate) sender: String,
    /// Wei.
    pub(crate) face_value: String,
    /// Expected value of one ticket: wei, an exact fraction.
    pub(crate) ev: String,
    pub(crate) round: i64,
    /// Hashes.
    pub(crate) tickets: Vec<String>,
    /// `Livepeer-Payment` and `Livepeer`.
    pub(crate) payment: String,
    pub(crate) job: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) at: f64,
    pub(crate) result: Outcome,
    /// The HTTP status that decided.
    pub(crate) status: Option<u16>,
    pub(crate) message: String,
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Accepted,
    /// For good, by the first answer.
    Refused,
    /// Refused, but an earlier try had no answer: it may have been accepted then.
    Unclear,
    /// Nobody answered in time.
    Expired,
}

impl Outcome {
    pub(crate) const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::Unclear, Self::Expired];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
            Self::Expired => "expired",
        }
    }
}

/// What an answer to a submission means; None: it is tried again.
pub(crate) fn judge(status: u16) -> Option<Outcome> {
    match status {
        200..=299 => Some(Outcome::Accepted),
        // It has looked at the tickets. 401, 403, 404 and the like are about the address.
        400 | 402 | 409 | 410 | 422 => Some(Outcome::Refused),
        _ => None,
    }
}

/// The start of an answer, fit for one line.
pub(crate) fn message(text: &str) -> String {
    crate::sys::text::start(text, MAX_MESSAGE)
}

impl Received {
    /// What is kept of a payment that was verified. `tickets`: its hashes.
    pub(crate) fn new(payment: &Payment, tickets: &[Hash], headers: (String, String), at: f64) -> Self {
        let tickets: Vec<String> = tickets.iter().map(|hash| hex(hash)).collect();
        Self {
            id: tickets.first().cloned().unwrap_or_default(),
            at,
            sender: payment.sender().to_string(),
            face_value: payment.face_value().to_string(),
            ev: payment.ev().to_string(),
            round: payment.creation_round(),
            tickets,
            payment: headers.0,
            job: headers.1,
        }
    }
}

/// What a payment that has no result yet is summed up as.
pub(crate) const PENDING: &str = "pending";

impl Entry {
    /// As a line of the file.
    pub(crate) fn line(&self) -> String {
        // Only strings, numbers and lists: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The line that takes a written one back; None: it needs none.
pub(crate) fn void_of(line: &str) -> Option<String> {
    match serde_json::from_str(line) {
        Ok(Entry::Payment(received)) => Some(Entry::Void { id: received.id }.line()),
        _ => None,
    }
}
