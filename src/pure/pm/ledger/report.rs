//! What `pm ledger` says of the file.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Kept, Ledger, PENDING};
use crate::pure::pm::amount::{floor, shown};

/// Payments that people are shown.
const SHOWN: usize = 20;

/// Large numbers are decimal strings, fractions `n/d`; headers are never in it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// By result; those whose results were summed up are in it.
    totals: BTreeMap<String, SumReport>,
    payments: Vec<PaymentReport>,
    damaged_lines: usize,
}

#[derive(Debug, Serialize)]
struct SumReport {
    payments: i64,
    tickets: i64,
    ev: String,
    ev_floor: String,
}

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
    /// Only the recipient knows: None.
    wins: Option<u32>,
}

impl Report {
    pub(crate) fn of(ledger: &Ledger, damaged_lines: usize) -> Self {
        let sums = ledger.totals().by_result.iter().filter(|(_, sum)| sum.payments > 0);
        let sum = |(result, sum): (&String, &super::entry::Sum)| {
            let (ev, ev_floor) = (sum.ev.to_string(), sum.ev_floor().to_string());
            (result.clone(), SumReport { payments: sum.payments, tickets: sum.tickets, ev, ev_floor })
        };
        Self {
            totals: sums.map(sum).collect(),
            payments: ledger.payments().map(PaymentReport::of).collect(),
            damaged_lines,
        }
    }

    pub(crate) fn json(&self) -> String {
        // Only strings, numbers and lists: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        if self.totals.is_empty() {
            out.push_str("no tickets have come\n");
        }
        for (result, sum) in &self.totals {
            let ev = shown(&sum.ev_floor.parse().unwrap_or_default());
            out.push_str(&format!(
                "{result:<10}{} payments, {} tickets, expected value {ev}\n",
                sum.payments, sum.tickets
            ));
        }
        let older = self.payments.len().saturating_sub(SHOWN);
        for one in &self.payments[older..] {
            let status = one.status.map_or_else(String::new, |status| format!(" ({status})"));
            let ev = shown(&one.total_ev_floor.parse().unwrap_or_default());
            let tries =
                if one.failed_tries > 0 { format!(", {} failed tries", one.failed_tries) } else { String::new() };
            out.push_str(&format!(
                "{:.0} {} from {}: {} tickets, {ev}, round {}: {}{status}{tries} {}\n",
                one.received_at, one.id, one.sender, one.tickets, one.round, one.result, one.message
            ));
        }
        if self.damaged_lines > 0 {
            out.push_str(&format!("{} damaged lines are left out\n", self.damaged_lines));
        }
        out
    }
}

impl PaymentReport {
    fn of(kept: &Kept) -> Self {
        let (received, ended) = (&kept.received, kept.ended.as_ref());
        Self {
            id: received.id.clone(),
            received_at: received.at,
            sender: received.sender.clone(),
            tickets: received.tickets.len(),
            face_value: received.face_value.clone(),
            ev: received.ev.clone(),
            total_ev_floor: floor(&received.total_ev()).to_string(),
            round: received.round,
            result: ended.map_or(PENDING, |ended| ended.result.name()),
            ended_at: ended.map(|ended| ended.at),
            status: ended.and_then(|ended| ended.status),
            message: ended.map(|ended| ended.message.clone()).unwrap_or_default(),
            failed_tries: kept.tries,
            wins: None,
        }
    }
}
