//! The lines of STATE_DIR/tickets.jsonl.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pure::pm::amount::floor;
use crate::pure::pm::payment::{Payment, Verified};
use crate::pure::pm::ticket::hex;
use crate::pure::text;

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
    text::start(text, MAX_MESSAGE)
}

/// Sums of payments, by result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Totals {
    pub(crate) by_result: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) payments: i64,
    pub(crate) tickets: i64,
    /// Expected value in wei, exact: on disk a whole number or `n/d`.
    #[serde(serialize_with = "write_fraction", deserialize_with = "read_fraction")]
    pub(crate) ev: BigRational,
}

impl Totals {
    pub(super) fn add(&mut self, result: &str, payment: &Received) {
        self.change(result, 1, payment);
    }

    pub(super) fn take_off(&mut self, result: &str, payment: &Received) {
        self.change(result, -1, payment);
    }

    fn change(&mut self, result: &str, sign: i64, payment: &Received) {
        let tickets = i64::try_from(payment.tickets.len()).unwrap_or(i64::MAX);
        let ev = payment.total_ev() * BigRational::from_integer(sign.into());
        self.add_sum(result, &Sum { payments: sign, tickets: sign * tickets, ev });
    }

    fn add_sum(&mut self, result: &str, more: &Sum) {
        let zero = || Sum { payments: 0, tickets: 0, ev: BigRational::from_integer(BigInt::ZERO) };
        let sum = self.by_result.entry(result.into()).or_insert_with(zero);
        sum.payments += more.payments;
        sum.tickets += more.tickets;
        sum.ev += &more.ev;
    }

    pub(crate) fn tickets(&self, result: &str) -> i64 {
        self.by_result.get(result).map_or(0, |sum| sum.tickets)
    }

    /// Wei, as near as a float64 tells.
    pub(crate) fn ev(&self, result: &str) -> f64 {
        self.by_result.get(result).and_then(|sum| sum.ev.to_f64()).unwrap_or(0.0)
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        other.by_result.iter().for_each(|(result, sum)| self.add_sum(result, sum));
    }
}

impl Sum {
    /// Whole wei.
    pub(crate) fn ev_floor(&self) -> BigInt {
        floor(&self.ev)
    }
}

/// Nothing where it is no fraction: the file may hold anything.
fn fraction(text: &str) -> BigRational {
    text.parse().unwrap_or_else(|_| BigRational::from_integer(BigInt::ZERO))
}

fn write_fraction<S: Serializer>(value: &BigRational, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn read_fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BigRational, D::Error> {
    String::deserialize(deserializer).map(|text| fraction(&text))
}

impl Received {
    /// What is kept of a payment that was verified.
    pub(crate) fn new(payment: &Payment, verified: &[Verified], headers: (String, String), at: f64) -> Self {
        let tickets: Vec<String> = verified.iter().map(|ticket| hex(&ticket.hash)).collect();
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

    pub(super) fn bytes(&self) -> usize {
        self.payment.len() + self.job.len()
    }

    pub(crate) fn total_ev(&self) -> BigRational {
        fraction(&self.ev) * BigRational::from_integer(self.tickets.len().into())
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
