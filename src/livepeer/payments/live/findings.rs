//! The result of `pm check` for a Live Runner, for programs and for people.

use num_bigint::BigInt;
use num_rational::BigRational;
use serde::Serialize;

use super::{Byoc, Check, FIRST_SECONDS, Live, MAX_TICKETS, Outcome, advice, call_outcome};
use crate::config::price::Price;
use crate::livepeer::payments::amount::{self, decimal, grouped, ratio, shown};
use crate::livepeer::payments::reserve;
use crate::livepeer::payments::rules;
use crate::livepeer::payments::table::{Row, row, ticket_rows};
use crate::livepeer::payments::terms::Terms;
use crate::sys::text::counted;

/// Digits of shares and seconds.
const DIGITS: u32 = 6;
/// Digits of a price of an ETH, which has whole cents: rounded down, it would be one at which calls are refused.
const CENTS: u32 = 20;

/// Everything that `pm check` prints about a Live Runner. Large numbers are decimal strings.
#[derive(Debug, Serialize)]
pub(crate) struct LiveFinding {
    pub(crate) accepted: bool,
    check: &'static str,
    message: String,
    /// RUNNER_PRICE.
    runner_price: Option<String>,
    /// Wei for a call, a second or a pixel.
    price: Option<String>,
    face_value: Option<String>,
    win_prob: Option<String>,
    ev: Option<String>,
    /// Tickets of the first payment.
    tickets: Option<u64>,
    /// Wei that the first payment has to cover.
    fee: Option<String>,
    credit: Option<String>,
    /// Seconds that a ticket pays for, of a price by the hour.
    ticket_seconds: Option<String>,
    /// Dollars for an ETH below which it is refused.
    eth_price_floor: Option<String>,
    pub(crate) needed_deposit: Option<String>,
    #[serde(skip)]
    pub(crate) notes: Vec<String>,
    #[serde(skip)]
    pub(crate) suggestions: Vec<String>,
    #[serde(skip)]
    pub(crate) rows: Vec<Row>,
    #[serde(skip)]
    pub(crate) outcome: Outcome,
}

/// Whether calls are paid. `signer_known`: the signer's flags were found.
pub(crate) fn find(live: &Live, payer: &Terms, signer_known: bool) -> LiveFinding {
    let outcome = call_outcome(live, payer);
    let text = |value: &Option<BigInt>| value.as_ref().map(ToString::to_string);
    let ticket = outcome.ticket.as_ref();
    LiveFinding {
        accepted: outcome.check.accepts(),
        check: outcome.check.name(),
        message: message(live, payer, &outcome),
        runner_price: live.price.as_ref().map(written),
        price: text(&outcome.price),
        face_value: ticket.map(|ticket| ticket.face_value.to_string()),
        win_prob: ticket.map(|ticket| ticket.win_prob.to_string()),
        ev: ticket.map(|ticket| ticket.ev().to_string()),
        tickets: outcome.tickets,
        fee: text(&outcome.fee),
        credit: text(&outcome.credit),
        ticket_seconds: ticket_seconds(live, &outcome).map(|seconds| decimal(&seconds, DIGITS)),
        eth_price_floor: live.eth_price_floor(payer).map(|price| decimal(&price, CENTS)),
        needed_deposit: ticket.map(|ticket| (&ticket.face_value * &payer.deposit_multiplier).to_string()),
        notes: notes(live, &outcome, signer_known),
        suggestions: advice::suggestions(live, payer),
        rows: rows(live, payer, &outcome),
        outcome,
    }
}

impl LiveFinding {
    /// Tickets were requested, or would have been with a larger reserve.
    pub(crate) fn asks_for_tickets(&self) -> bool {
        self.outcome.price.is_some()
    }

    /// For people: a few lines.
    pub(crate) fn text(&self) -> String {
        let verdict = match (self.accepted, self.check) {
            (true, "ok") => "ACCEPTED".to_owned(),
            (true, check) => format!("ACCEPTED ({check})"),
            (false, check) => format!("REFUSED by {check}"),
        };
        let mut out = format!("Live Runner (since v0.9.0): {verdict}\n  {}\n", self.message);
        if let Some(floor) = &self.eth_price_floor {
            out.push_str(&format!("  accepted while an ETH costs {floor} dollars or more\n"));
        }
        out
    }
}

fn written(price: &Price) -> String {
    format!("{}usd/{}", price.dollars(), price.unit())
}

/// What a unit is.
fn unit(live: &Live) -> &'static str {
    match live.unit() {
        "hour" => "a second",
        "720p" => "a pixel",
        _ => "a call",
    }
}

/// What the first payment has to cover.
fn covered(live: &Live) -> &'static str {
    match live.unit() {
        "hour" => "the first 10 s",
        "720p" => "the first minute of 720p video",
        _ => "the call",
    }
}

fn ticket_seconds(live: &Live, outcome: &Outcome) -> Option<BigRational> {
    let price = outcome.price.clone().filter(|_| live.unit() == "hour")?;
    Some(outcome.ticket.as_ref()?.ev() / BigRational::from_integer(price))
}

/// The part of the price that is lost by rounding, if it is 1 % or more.
fn lost(live: &Live, outcome: &Outcome) -> Option<BigRational> {
    let asked = super::dollars(live.price.as_ref()?.dollars())?;
    let charged = live.dollars_of(outcome.price.as_ref()?)?;
    Some(ratio(1, 1) - charged / asked).filter(|lost| *lost >= ratio(1, 100))
}

/// Which program decided what, with the numbers.
fn message(live: &Live, payer: &Terms, outcome: &Outcome) -> String {
    let price = outcome.price.clone().unwrap_or_default();
    let runner_price = live.price.as_ref().map(written).unwrap_or_default();
    match outcome.check {
        Check::Ok | Check::FreeByByoc => {
            let fee = outcome.fee.as_ref().map(shown).unwrap_or_default();
            let (unit, covered) = (unit(live), covered(live));
            let paid = outcome.payment();
            let debits = match live.unit() {
                "hour" | "720p" => format!(". The orchestrator debits every {} s", live.interval.as_secs_f64()),
                _ => ". The orchestrator debits one call".into(),
            };
            let text = format!("{runner_price} is {} for {unit}. For {covered} ({fee}) a client pays {paid}{debits}", shown(&price));
            match outcome.check {
                Check::FreeByByoc => format!(
                    "{text}. But the same worker serves BYOC jobs for free: CAPABILITY_PRICE_PER_UNIT is 0 or unset and ORCH_PROTOCOL is not live-runner"
                ),
                _ => text,
            }
        }
        Check::Offchain if live.network || !live.known => {
            "-network=offchain: nothing is paid, calls need no tickets".into()
        }
        Check::Offchain => "no -network, so go-livepeer is off-chain: nothing is paid, calls need no tickets".into(),
        Check::NoRunners => "the orchestrator has no registry (404): -useLiveRunners is not set".into(),
        Check::NoSecret => "the registry refuses workers (404 \"dynamic live runner registration is disabled\"): -orchSecret is not set".into(),
        Check::NoPrice => "the registry refuses the worker (400 \"price_info.price is required\"): RUNNER_PRICE is not set, and it is required on chain".into(),
        Check::WeiPrice => format!("the orchestrator refuses: {runner_price} is less than 1 wei for {}, or more than 63 bits can hold", unit(live)),
        Check::MaxPrice => format!(
            "the signer refuses (481): {} for {} is above its -maxPricePerUnit of {} wei",
            shown(&price),
            unit(live),
            live.cap_in_wei().map(|cap| grouped(&decimal(&cap, 12))).unwrap_or_default()
        ),
        Check::NoTickets => "the signer refuses (482 \"no tickets\"): -ticketEV=0 requests tickets without value".into(),
        Check::TooManyTickets => format!(
            "the signer refuses (400 \"numTickets {} exceeds maximum of {MAX_TICKETS}\"): {} has to be paid for {}, a ticket is worth {}",
            outcome.tickets.unwrap_or(0),
            outcome.fee.as_ref().map(shown).unwrap_or_default(),
            covered(live),
            shown(&payer.ticket_ev)
        ),
        Check::Tickets(check) => refused(payer, outcome, check),
    }
}

/// Refusals because of the tickets themselves.
fn refused(payer: &Terms, outcome: &Outcome, check: rules::Check) -> String {
    let tickets = outcome.tickets.unwrap_or(0);
    let ev = outcome.ticket.as_ref().map(|ticket| amount::floor(&ticket.ev())).unwrap_or_default();
    let face_value = outcome.ticket.as_ref().map(|ticket| ticket.face_value.clone()).unwrap_or_default();
    match check {
        rules::Check::MaxTicketEv => format!(
            "the signer refuses every payment: a ticket is worth {} (rounded down), its -maxTicketEV is {}",
            shown(&ev),
            shown(&payer.max_ticket_ev)
        ),
        rules::Check::MaxTotalEv => format!(
            "the signer refuses: {} of {}, more than {} in total; its -maxTotalEV is {}",
            counted(tickets, "ticket"),
            shown(&ev),
            shown(&(&ev * tickets)),
            shown(&payer.max_total_ev)
        ),
        rules::Check::FaceValueTooLow => {
            format!(
                "the signer refuses: the face value of {} is not above a ticket's worth of {}",
                shown(&face_value),
                shown(&ev)
            )
        }
        rules::Check::FaceValueOverDeposit => format!(
            "the signer refuses: the face value of {} is above {}, its deposit divided by -depositMultiplier",
            shown(&face_value),
            shown(&(&payer.deposit / &payer.deposit_multiplier))
        ),
        rules::Check::Deposit => "the signer refuses: its account has no deposit".into(),
        _ => reserve::refusal(payer),
    }
}

fn notes(live: &Live, outcome: &Outcome, signer_known: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if let (Check::Offchain, Some(price)) = (outcome.check, &live.price) {
        notes.push(format!("RUNNER_PRICE={} is ignored off-chain, and not shown to clients", written(price)));
    }
    if outcome.price.is_some() && !signer_known {
        notes.push(
            "no -remoteSigner was found: go-livepeer's default limits are assumed for the client's signer".into(),
        );
    }
    let (Some(ticket), Some(fee)) = (&outcome.ticket, &outcome.fee) else { return notes };
    let ev = ticket.ev();
    let paid = outcome.tickets.map(|tickets| &ev * ratio(tickets, 1));
    let fee = BigRational::from_integer(fee.clone());
    if let Some(paid) = paid.filter(|paid| *paid > &fee * ratio(3, 2)) {
        notes.push(format!(
            "clients pay {} times the price of {}, since a payment is at least one ticket and the rest is lost with the session; with -ticketEV={} it takes two tickets",
            decimal(&(paid / &fee), 4),
            covered(live),
            amount::ceil(&(&fee / ratio(2, 1)))
        ));
    }
    if let Some(lost) = lost(live, outcome) {
        notes.push(format!(
            "{} % of RUNNER_PRICE is lost by rounding down to {} wei for {}",
            decimal(&(lost * ratio(100, 1)), 3),
            outcome.price.clone().unwrap_or_default(),
            unit(live)
        ));
    }
    match live.unit() {
        "fixed" => notes.push("a call is debited before the worker gets it: a refused call costs the same".into()),
        "720p" => notes.push("livepeer/node refuses prices for 720p (400): use fixed or hour there".into()),
        _ => notes.push(format!(
            "a call that ends within {} s is never debited, but the first payment (at least {FIRST_SECONDS} s and one ticket) is not refunded",
            live.interval.as_secs_f64()
        )),
    }
    if let Some(seconds) = ticket_seconds(live, outcome).filter(|seconds| *seconds > ratio(FIRST_SECONDS, 1)) {
        notes.push(format!(
            "a ticket pays for {} s, and a session has a reserve of {FIRST_SECONDS} s: one late or lost payment ends it (go-livepeer#4077); -ticketEV={} pays for 5 s",
            decimal(&seconds, 4),
            outcome.price.clone().unwrap_or_default() * 5
        ));
    }
    if live.byoc == Byoc::Unknown {
        notes.push(
            "a worker without CAPABILITY_PRICE_PER_UNIT is free by BYOC, unless ORCH_PROTOCOL=live-runner".into(),
        );
    }
    notes
}

fn rows(live: &Live, payer: &Terms, outcome: &Outcome) -> Vec<Row> {
    let mut rows = Vec::new();
    if let (Some(price), Some(cap)) = (&outcome.price, live.cap_in_wei()) {
        let fits = BigRational::from_integer(price.clone()) <= cap;
        rows.push(row("RUNNER_PRICE in wei / maxPricePerUnit", price, &decimal(&cap, 12), Some(fits), unit(live)));
    }
    let Some(ticket) = &outcome.ticket else { return rows };
    if let Some(tickets) = outcome.tickets {
        let note = format!("tickets of a payment for {}", covered(live));
        rows.push(row("tickets", &tickets, &format!("at most {MAX_TICKETS}"), Some(tickets <= MAX_TICKETS), &note));
    }
    rows.extend(ticket_rows(payer, ticket, outcome.tickets.unwrap_or(1), "", "signer's account"));
    rows
}
