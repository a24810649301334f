//! The report of `pm ledger`.

use std::collections::{BTreeMap, VecDeque};

use num_bigint::BigInt;
use serde::Serialize;

use super::Ledger;
use super::entry::{Ended, Entry, PENDING, Received};
use super::key::{hash_of, key_of};
use super::lines::{Lines, Place};
use super::totals::{Ev, Sum};
use crate::livepeer::payments::amount::{floor, shown};
use crate::sys::json;
use crate::sys::order;
use crate::sys::text::counted;

/// Payments listed in the text form.
const SHOWN: usize = 20;
const NOTHING: &str = "no tickets received\n";

#[derive(Debug, Serialize)]
struct SumReport {
    payments: i64,
    tickets: i64,
    ev: String,
    ev_floor: String,
}

/// Large numbers are decimal strings, fractions `n/d`. Headers are never included.
#[derive(Debug, Serialize)]
struct PaymentReport {
    id: String,
    received_at: f64,
    sender: String,
    tickets: usize,
    face_value: String,
    ev: String,
    total_ev_floor: String,
    round: i64,
    result: &'static str,
    ended_at: Option<f64>,
    status: Option<u16>,
    message: String,
    failed_tries: u32,
    /// Known to the recipient only: always None.
    wins: Option<u32>,
}

/// The report without a file.
pub(crate) fn nothing(json: bool) -> String {
    let nothing = if json { "{\"totals\":{},\"payments\":[],\"damaged_lines\":0}\n" } else { NOTHING };
    nothing.into()
}

/// Writes the report in pieces: a ledger may be larger than memory. `lines`: the file from its start, as far as `ledger`
/// has read it. `out` returns false once there is no reader.
///
/// # Errors
/// Why the file cannot be read.
pub(crate) fn write(
    (mut ledger, damaged): (Ledger, usize),
    lines: &mut dyn Lines,
    json: bool,
    out: &mut dyn FnMut(&str) -> bool,
) -> Result<(), String> {
    let sums = ledger.totals().by_result.iter().filter(|(_, sum)| sum.payments > 0);
    let sums = order::map(sums.map(|(result, sum)| (result.as_str(), SumReport::of(sum))));
    let head = if json { format!("{{\"totals\":{},\"payments\":[", json::json(&sums)) } else { text_of(&sums) };
    let mut reading = out(&head);
    let (mut last, mut comma) = (VecDeque::new(), "");
    while reading && let Some((received, place)) = next_payment(lines)? {
        let Some(payment) = ledger.report(received, place, lines)? else { continue };
        if json {
            reading = out(comma) && out(&json::json(&payment));
            comma = ",";
        } else {
            if last.len() == SHOWN {
                last.pop_front();
            }
            last.push_back(payment);
        }
    }
    let tail = if json {
        format!("],\"damaged_lines\":{damaged}}}\n")
    } else {
        let mut text: String = last.iter().map(PaymentReport::line).collect();
        if damaged > 0 {
            text.push_str(&format!("left out: {}\n", counted(damaged, "damaged line")));
        }
        text
    };
    if reading {
        out(&tail);
    }
    Ok(())
}

fn text_of(sums: &BTreeMap<&str, SumReport>) -> String {
    if sums.is_empty() {
        return NOTHING.into();
    }
    let line = |(result, sum): (&&str, &SumReport)| {
        let ev = shown(&sum.ev_floor.parse().unwrap_or_default());
        let (payments, tickets) = (counted(sum.payments, "payment"), counted(sum.tickets, "ticket"));
        format!("{result:<10}{payments}, {tickets}, expected value {ev}\n")
    };
    sums.iter().map(line).collect()
}

fn next_payment(lines: &mut dyn Lines) -> Result<Option<(Received, Place)>, String> {
    while let Some(piece) = lines.next()? {
        if let Some(Entry::Payment(received)) = piece.entry() {
            return Ok(Some((received, piece.place)));
        }
    }
    Ok(None)
}

impl Ledger {
    /// None: another line counts for this payment.
    fn report(
        &mut self,
        received: Received,
        place: Place,
        lines: &mut dyn Lines,
    ) -> Result<Option<PaymentReport>, String> {
        let Some(key) = hash_of(&received.id).map(|id| key_of(&id)) else { return Ok(None) };
        if let Some(waiting) = self.numbers.get(&key).and_then(|number| self.waiting.get(number)) {
            let counts = waiting.place == Some(place);
            return Ok(counts.then(|| PaymentReport::of(received, PENDING, None, waiting.tries)));
        }
        let Some(end) = self.ended.remove(&key) else { return Ok(None) };
        let line = end.place().map(|place| lines.again(place)).transpose()?;
        let ended = line.and_then(|line| match serde_json::from_slice(&line) {
            Ok(Entry::Result(ended)) => Some(ended),
            _ => None,
        });
        Ok(Some(PaymentReport::of(received, end.result.name(), ended, end.tries)))
    }
}

impl SumReport {
    fn of(sum: &Sum) -> Self {
        let ev = sum.ev.exact();
        Self { payments: sum.payments, tickets: sum.tickets, ev_floor: floor(&ev).to_string(), ev: ev.to_string() }
    }
}

impl PaymentReport {
    fn of(received: Received, result: &'static str, ended: Option<Ended>, tries: u32) -> Self {
        let tickets = received.tickets.len();
        let mut total = Ev::default();
        total.add(i64::try_from(tickets).unwrap_or(i64::MAX), &Ev::parse(&received.ev));
        let (ended_at, status) = (ended.as_ref().map(|ended| ended.at), ended.as_ref().and_then(|ended| ended.status));
        Self {
            id: received.id,
            received_at: received.at,
            sender: received.sender,
            tickets,
            face_value: received.face_value,
            ev: received.ev,
            total_ev_floor: total.floor().to_string(),
            round: received.round,
            result,
            ended_at,
            status,
            message: ended.map(|ended| ended.message).unwrap_or_default(),
            failed_tries: tries,
            wins: None,
        }
    }

    fn line(&self) -> String {
        let status = self.status.map_or_else(String::new, |status| format!(" ({status})"));
        let ev = shown(&self.total_ev_floor.parse::<BigInt>().unwrap_or_default());
        let tickets = counted(self.tickets, "ticket");
        let tries = match self.failed_tries {
            0 => String::new(),
            1 => ", 1 failed try".into(),
            tries => format!(", {tries} failed tries"),
        };
        format!(
            "{:.0} {} from {}: {tickets}, {ev}, round {}: {}{status}{tries} {}\n",
            self.received_at, self.id, self.sender, self.round, self.result, self.message
        )
    }
}
