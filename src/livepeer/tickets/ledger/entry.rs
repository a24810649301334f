//! The lines of STATE_DIR/tickets.jsonl.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::{Key, hash_of, key_of};
use super::totals::Totals;
use crate::livepeer::payments::payment::Payment;
use crate::livepeer::payments::ticket::{Hash, hex};
use crate::sys::json::json;
use crate::sys::text::is_web_page;

/// Until a payment is worthless: after two rounds of 6377 blocks of 12 s the chain redeems none of its tickets.
pub(crate) const LIFETIME: Duration = Duration::from_secs(2 * 6377 * 12);

/// A clock before this has not been set yet: ages by it mean nothing.
pub(crate) const CLOCK_UNSET_BEFORE: f64 = 1.6e9;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// Tickets that came with a job, with their headers as received. On the disk before the job is answered.
    Payment(Received),
    /// The job was rejected after all: they are not submitted.
    Void { id: String },
    /// They are being sent.
    Sent { id: String, at: f64 },
    /// They must be sent again. `arrived`: they may have arrived without an answer.
    Failed { id: String, at: f64, tries: u32, arrived: bool },
    /// Their result.
    Result(Ended),
    /// The sums of older lines that were removed.
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

/// The result of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Accepted,
    /// By the first answer.
    Refused,
    /// Refused, but an earlier try without an answer may have been accepted.
    Unclear,
    /// No answer in a lifetime's time of trying.
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

/// What an answer to a submission means; None: try again.
pub(crate) fn outcome_of(status: u16, text: &str) -> Option<Outcome> {
    match status {
        // Of a proxy: nginx answers 400 where headers are too long for it.
        _ if is_web_page(text) => None,
        200..=299 => Some(Outcome::Accepted),
        // These are about the tickets; 401, 403, 404 and the like are about the address.
        400 | 402 | 409 | 410 | 422 => Some(Outcome::Refused),
        _ => None,
    }
}

impl Received {
    /// What is kept of a verified payment. `tickets`: their hashes.
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

    /// The keys of its tickets.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.tickets.iter().filter_map(|hash| hash_of(hash)).map(|hash| key_of(&hash))
    }
}

/// The result under which payments without one are summed up.
pub(crate) const PENDING: &str = "pending";

impl Entry {
    /// As a line of the file.
    pub(crate) fn line(&self) -> String {
        json(self) + "\n"
    }
}

/// The line that voids a written one; None: only payments need that.
pub(crate) fn void_of(line: &str) -> Option<String> {
    match serde_json::from_slice(line.as_bytes()) {
        Ok(Entry::Payment(received)) => Some(Entry::Void { id: received.id }.line()),
        _ => None,
    }
}
