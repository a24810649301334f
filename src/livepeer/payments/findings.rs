//! The result of `pm check`, as one JSON object or as tables for people.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Signed;
use serde::Serialize;

use super::advice::{self, Change, Setting};
use super::amount::{self, decimal, grouped, shown};
use super::inputs::{Inputs, Program};
use super::live::findings::{self as live, LiveFinding};
use super::reserve;
use super::rules::{self, Check, MAX_TICKETS, MIN_UNITS, Outcome, job_outcome};
use super::table::{self, Row};
use super::terms::{Era, MAX_TIMEOUT, Terms};
use super::{figures, odds};
use crate::sys::text::counted;

/// Digits of a share or a number of units.
const DIGITS: u32 = 6;

/// Everything that `pm check` prints. Numbers that may be large are decimal strings, fractions `n/d`.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    eras: Vec<EraFinding>,
    live_runner: Option<LiveFinding>,
    table: Vec<Row>,
    suggestions: Vec<String>,
    changes: Vec<ChangeFinding>,
    /// Wei that the gateway's account needs for these tickets.
    needed_deposit: Option<String>,
    needed_reserve: Option<String>,
    full_reserve: Option<String>,
    notes: Vec<String>,
    inputs: Vec<InputFinding>,
    /// Wei; the figures above hold at this price.
    #[serde(skip)]
    gas_price: BigInt,
}

#[derive(Debug, Serialize)]
struct EraFinding {
    era: &'static str,
    releases: &'static str,
    accepted: bool,
    check: &'static str,
    message: String,
    /// Wei for a second.
    price: String,
    face_value: Option<String>,
    win_prob: Option<String>,
    ev: Option<String>,
    tickets: Option<u64>,
    credit: Option<String>,
    shortest_timeout: Option<u64>,
    longest_timeout: Option<u64>,
    prepaid_units: Option<String>,
    credit_at_risk: Option<String>,
    header_characters: Option<u64>,
    redeem_cost_share: Option<String>,
    gas_price_limit: Option<String>,
}

#[derive(Debug, Serialize)]
struct ChangeFinding {
    set: Vec<SettingFinding>,
    eras: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct SettingFinding {
    name: &'static str,
    value: String,
    owner: &'static str,
}

#[derive(Debug, Serialize)]
struct InputFinding {
    name: String,
    value: String,
    from: String,
    /// Why it has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<String>,
}

/// Checks the terms for BYOC jobs in `eras`, and for calls of a Live Runner if any flag concerns one.
pub(crate) fn check(inputs: &Inputs, eras: &[Era]) -> Findings {
    let terms = &inputs.terms;
    let outcomes: Vec<Outcome> = eras.iter().map(|era| job_outcome(terms, *era)).collect();
    let changes = advice::changes(terms, eras);
    let mut live = inputs.live().map(|live| live::find(&live, &inputs.payer(), inputs.signer_known));
    let ticket = outcomes.iter().find(|outcome| outcome.ticket.is_some());
    let text = |value: Option<BigInt>| value.map(|value| value.to_string());
    let mut suggestions: Vec<String> = changes.iter().map(|change| suggestion(terms, change, eras)).collect();
    let mut notes = notes(inputs, &outcomes, live.as_ref());
    let mut rows = Vec::new();
    if let Some(live) = &mut live {
        let prefix = if eras.is_empty() { "" } else { "Live Runner: " };
        suggestions.extend(live.suggestions.iter().map(|text| format!("{prefix}{text}")));
        notes.splice(0..0, live.notes.iter().map(|text| format!("{prefix}{text}")));
        rows.append(&mut live.rows);
    }
    let tickets = live.as_ref().is_some_and(|live| live.asks_for_tickets());
    let payer = if eras.is_empty() { Some("signer").filter(|_| tickets) } else { Some("gateway") };
    let needed_deposit = text(ticket.and_then(|outcome| figures::needed_deposit(terms, outcome)));
    Findings {
        eras: outcomes.iter().map(|outcome| EraFinding::of(terms, outcome)).collect(),
        table: table::rows(inputs, &outcomes, rows, payer),
        suggestions,
        changes: changes.iter().map(ChangeFinding::of).collect(),
        needed_deposit: needed_deposit.or_else(|| live.as_ref()?.needed_deposit.clone()),
        needed_reserve: text(figures::needed_reserve(terms)),
        full_reserve: text(figures::full_reserve(terms)),
        notes,
        live_runner: live,
        gas_price: terms.effective_gas_price().clone(),
        inputs: inputs
            .sources
            .iter()
            .map(|s| InputFinding {
                name: s.name.clone(),
                value: s.value.clone(),
                from: s.place.clone(),
                idle: s.idle.clone(),
            })
            .collect(),
    }
}

impl Findings {
    /// Every requested era accepts the job, and calls of the Live Runner are paid.
    pub(crate) fn accepted(&self) -> bool {
        self.eras.iter().all(|era| era.accepted) && self.live_runner.as_ref().is_none_or(|live| live.accepted)
    }

    pub(crate) fn json(&self) -> String {
        // Only strings, numbers and lists: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

impl EraFinding {
    fn of(terms: &Terms, outcome: &Outcome) -> Self {
        let ticket = outcome.ticket.as_ref();
        let timeouts = rules::timeouts(terms, outcome.era);
        Self {
            era: outcome.era.letter(),
            releases: outcome.era.releases(),
            accepted: outcome.check.accepts(),
            check: outcome.check.name(),
            message: message(terms, outcome),
            price: outcome.price.to_string(),
            face_value: ticket.map(|ticket| ticket.face_value.to_string()),
            win_prob: ticket.map(|ticket| ticket.win_prob.to_string()),
            ev: ticket.map(|ticket| ticket.ev().to_string()),
            tickets: outcome.tickets,
            credit: outcome.credit.as_ref().map(ToString::to_string),
            shortest_timeout: timeouts.map(|(first, _)| first),
            longest_timeout: timeouts.map(|(_, last)| last),
            prepaid_units: figures::prepaid_units(outcome).map(|units| decimal(&units, 12)),
            credit_at_risk: figures::credit_at_risk(outcome).map(|wei| wei.to_string()),
            header_characters: ticket.and(outcome.tickets).map(figures::header_characters),
            redeem_cost_share: figures::redeem_share(terms, outcome).map(|share| decimal(&share, DIGITS)),
            gas_price_limit: figures::gas_limit(terms, outcome.era).map(|gas| gas.to_string()),
        }
    }
}

impl ChangeFinding {
    fn of(change: &Change) -> Self {
        let setting = |(setting, value): &(Setting, BigInt)| SettingFinding {
            name: setting.name(),
            value: value.to_string(),
            owner: setting.owner(),
        };
        Self {
            set: change.settings.iter().map(setting).collect(),
            eras: change.eras.iter().map(|(era, _)| era.letter()).collect(),
        }
    }
}

/// Which program decided what, with the numbers.
fn message(terms: &Terms, outcome: &Outcome) -> String {
    let tickets = outcome.tickets.unwrap_or(0);
    let price = decimal_price(&outcome.price);
    let (face_value, ev) = match &outcome.ticket {
        Some(ticket) => (ticket.face_value.clone(), amount::floor(&ticket.ev())),
        None => (BigInt::default(), BigInt::default()),
    };
    let total = &ev * tickets;
    match outcome.check {
        Check::Ok if total == BigInt::ZERO => {
            format!("accepted, but without pay: the tickets ({tickets}) have no value")
        }
        Check::Ok if tickets == 1 => format!("accepted: one ticket of {}", shown(&total)),
        Check::Ok => format!("accepted: {tickets} tickets, {} in total", shown(&total)),
        Check::Free => {
            format!("accepted: the price is {price} wei a second, so no ticket is requested and nothing is earned")
        }
        Check::Covered => {
            format!("accepted: the balance of {} covers the job, no ticket is sent", shown(&terms.balance))
        }
        Check::MaxTicketEv => format!(
            "the gateway refuses: a ticket's expected value, {}{}, is above its -maxTicketEV of {}",
            shown(&ev),
            if ev == terms.max_ticket_ev { " and a fraction of a wei" } else { "" },
            shown(&terms.max_ticket_ev)
        ),
        Check::MaxTotalEv => format!(
            "the gateway refuses: {} of {}, more than {} in total; its -maxTotalEV is {}",
            counted(tickets, "ticket"),
            shown(&ev),
            shown(&total),
            shown(&terms.max_total_ev)
        ),
        Check::FaceValueTooLow => format!(
            "the gateway refuses: the face value of {} is not above the expected value of {}",
            shown(&face_value),
            shown(&terms.ticket_ev)
        ),
        Check::SenderReserve => reserve::refusal(terms),
        Check::Deposit => "the gateway refuses: its account has no deposit".into(),
        Check::FaceValueOverDeposit => format!(
            "the gateway refuses: the face value of {} is above {}, its deposit divided by -depositMultiplier",
            shown(&face_value),
            shown(&(&terms.deposit / &terms.deposit_multiplier))
        ),
        Check::Nonces => {
            format!("the orchestrator refuses: {tickets} tickets of one kind, it takes at most {MAX_TICKETS}")
        }
        Check::MinBalance if outcome.era == Era::C && tickets == 0 => {
            "the gateway crashes: the orchestrator requests 0 tickets, without value".into()
        }
        Check::MinBalance => {
            let wanted = amount::ceil(&(&outcome.price * BigRational::from_integer(MIN_UNITS.into())));
            let paid = if tickets > 0 { ". It keeps the tickets" } else { "" };
            format!(
                "the orchestrator refuses: tickets ({tickets}) bring the balance to {}, it requires {MIN_UNITS} s in advance, {}{paid}",
                shown(&(&terms.balance + total)),
                shown(&wanted)
            )
        }
    }
}

/// A price in wei; fractions of a wei as decimals.
fn decimal_price(price: &BigRational) -> String {
    if price.is_integer() || *price < BigRational::from_integer(0.into()) {
        price.to_string()
    } else {
        decimal(price, DIGITS)
    }
}

/// One change as a sentence.
fn suggestion(terms: &Terms, change: &Change, asked: &[Era]) -> String {
    let mut text = String::new();
    for (setting, value) in &change.settings {
        let joined = if text.is_empty() { "" } else { " and " };
        let how = match setting {
            Setting::Price => price_change(terms, value),
            Setting::Deposit | Setting::Reserve => format!("a {} of {value} wei ({})", setting.name(), shown(value)),
            Setting::Timeout => format!("a timeout of {value} s"),
            _ => format!("{}={value}", setting.name()),
        };
        text.push_str(&format!("{joined}{how} ({})", setting.owner()));
    }
    let range = |(era, (first, last)): &(Era, (u64, u64))| format!("{} {}", era.letter(), seconds(*first, *last));
    let ranges: Vec<String> = change.eras.iter().map(range).collect();
    let refusing = asked.iter().filter(|era| !change.eras.iter().any(|(known, _)| known == *era));
    let refusing: Vec<&str> = refusing.map(|era| era.letter()).collect();
    let but = match &refusing[..] {
        [] => String::new(),
        [era] => format!("; era {era} still refuses"),
        eras => format!("; eras {} still refuse", eras.join(" and ")),
    };
    format!("{text}: accepted with timeouts {}{but}", ranges.join(", "))
}

fn price_change(terms: &Terms, value: &BigInt) -> String {
    let mut text = format!("{}={value}", Setting::Price.name());
    if terms.price_scaling > BigInt::from(1) {
        text.push_str(" CAPABILITY_PRICE_SCALING=1");
    }
    if terms.price_in_eth {
        text.push_str(" CAPABILITY_CURRENCY=wei");
    }
    text
}

/// A range of timeouts.
pub(crate) fn seconds(first: u64, last: u64) -> String {
    match last {
        MAX_TIMEOUT => format!("{first} s and longer"),
        _ if first == last => format!("{first} s"),
        _ => format!("{first}-{last} s"),
    }
}

/// What costs money although no check refuses it.
fn notes(inputs: &Inputs, outcomes: &[Outcome], live: Option<&LiveFinding>) -> Vec<String> {
    let terms = &inputs.terms;
    let mut notes: Vec<String> = Vec::new();
    for source in &inputs.sources {
        if let Some(idle) = &source.idle {
            notes.push(format!("{}={} ({}) {idle}", source.name, source.value, source.place));
        }
    }
    if let Some(source) = inputs.source("runner-price").filter(|_| inputs.is_byoc_only()) {
        notes.push(format!("{}={} has no effect: ORCH_PROTOCOL is byoc", source.name, source.value));
    }
    let asked = inputs.source("maxPricePerUnit").filter(|source| source.program == Program::Asked && live.is_none());
    if let Some(source) = asked {
        notes.push(format!(
            "{}={} is for transcoding and remote signers: it has no effect on these jobs",
            source.name, source.value
        ));
    }
    let of_live = live.and_then(|live| live.outcome.ticket.as_ref());
    let ticket = outcomes.iter().find_map(|outcome| outcome.ticket.as_ref()).or(of_live);
    if let Some(ticket) = ticket {
        let cost = terms.redeem_cost();
        if ticket.face_value <= cost {
            notes.push(format!(
                "a winner of {} is never redeemed: redeeming costs {}",
                shown(&ticket.face_value),
                shown(&cost)
            ));
        }
        if ticket.face_value >= BigInt::from(1) << 63_u32 {
            notes.push("a face value of 2^63 wei (9.22 ETH) or more corrupts the gateway's accounts".into());
        }
        let redeemable = ticket.face_value.clone() / &terms.redeem_gas;
        notes.push(format!("winners are redeemed while the gas price is below {}", shown(&redeemable)));
        let chance = odds::probability(&ticket.win_prob);
        // Tickets of no value never win.
        if chance.is_positive() {
            let one_in = grouped(&decimal(&chance.recip(), DIGITS));
            notes.push(format!("1 in {one_in} tickets wins {}", shown(&ticket.face_value)));
        }
    }
    if terms.max_gas_price > BigInt::ZERO && terms.max_gas_price < *terms.effective_gas_price() {
        notes.push(format!("-maxGasPrice={} is below the gas price: nothing is redeemed", terms.max_gas_price));
    }
    if outcomes.iter().any(|o| o.era == Era::C && o.price > BigRational::from_integer(CLAMPED_PRICE.into())) {
        notes.push(format!(
            "above {CLAMPED_PRICE} wei a second, a token cannot hold a balance that covers two minutes: every job is paid again"
        ));
    }
    for outcome in outcomes.iter().filter(|o| o.tickets.is_some_and(|n| n > PROXY_TICKETS)) {
        notes.push(format!(
            "era {}: a payment of {} tickets exceeds a reverse proxy's header limit of 8 KiB",
            outcome.era.letter(),
            outcome.tickets.unwrap_or(0)
        ));
    }
    notes
}

/// A 120th of the largest balance that a token can hold.
const CLAMPED_PRICE: u64 = 76_861_433_640_456;
/// More of them make a header larger than 8 KiB.
const PROXY_TICKETS: u64 = 80;

mod text;
