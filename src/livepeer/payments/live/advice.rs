//! The smallest changes that make a refused call pass. Each is checked by the same rules before it is proposed.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed};

use super::{Check, Live, MAX_TICKETS, Outcome, call_outcome};
use crate::config::price::Price;
use crate::livepeer::payments::advice::{Setting, larger_face_value};
use crate::livepeer::payments::amount::{ceil, decimal, floor, max_uint256, ratio, shown};
use crate::livepeer::payments::rules;
use crate::livepeer::payments::terms::Terms;

/// Repairs are made one after the other; they are always enough.
const MOST_REPAIRS: usize = 8;
/// Digits of a price in dollars that is proposed.
const DIGITS: u32 = 4;

/// One change.
#[derive(Debug, Clone)]
enum Step {
    Terms(Setting, BigInt),
    /// RUNNER_PRICE: wei for a unit.
    Price(BigInt),
    /// -maxPricePerUnit: wei for a unit.
    Cap(BigInt),
}

impl Step {
    /// No flag and no account takes more.
    fn can_be_set(&self) -> bool {
        !matches!(self, Self::Terms(_, value) if *value > max_uint256())
    }
}

/// As sentences; empty: nothing is refused, or nothing helps.
pub(crate) fn suggestions(live: &Live, payer: &Terms) -> Vec<String> {
    let outcome = call_outcome(live, payer);
    let words = |words: &[&str]| words.iter().map(|text| (*text).to_owned()).collect();
    match outcome.check {
        Check::Ok | Check::Offchain => Vec::new(),
        Check::NoRunners => words(&["-useLiveRunners and -orchSecret=SECRET (orchestrator)"]),
        Check::NoSecret => words(&["-orchSecret=SECRET (orchestrator), the same as the worker's ORCH_SECRET"]),
        Check::NoPrice => words(&["RUNNER_PRICE, such as 0.0005usd/fixed (worker)"]),
        Check::WeiPrice => words(&["a RUNNER_PRICE that is at least 1 wei for a call, a second or a pixel (worker)"]),
        Check::FreeByByoc => {
            words(&["ORCH_PROTOCOL=live-runner (worker)", "CAPABILITY_PRICE_PER_UNIT, wei for a second (worker)"])
        }
        Check::MaxPrice | Check::NoTickets | Check::TooManyTickets | Check::Tickets(_) => {
            let mut all: Vec<Vec<Step>> = steps(live, payer, &outcome).into_iter().map(|step| vec![step]).collect();
            all.retain(|steps| passes(live, payer, steps));
            if all.iter().flatten().all(|step| matches!(step, Step::Price(_))) {
                all.splice(0..0, repair(live, payer));
            }
            all.retain(|steps| steps.iter().all(Step::can_be_set));
            all.iter().map(|steps| sentence(live, payer, steps)).collect()
        }
    }
}

fn passes(live: &Live, payer: &Terms, steps: &[Step]) -> bool {
    let (live, payer) = apply(live, payer, steps);
    // Whether BYOC jobs are free is a separate question.
    matches!(call_outcome(&live, &payer).check, Check::Ok | Check::FreeByByoc)
}

fn apply(live: &Live, payer: &Terms, steps: &[Step]) -> (Live, Terms) {
    let (mut live, mut payer) = (live.clone(), payer.clone());
    for step in steps {
        match step {
            Step::Terms(setting, value) => setting.set(&mut payer, value),
            Step::Price(wei) => live.price = price(&live, wei).and_then(|text| Price::parse(&text)),
            Step::Cap(wei) => {
                live.cap = Some(super::Cap::Wei(BigRational::from_integer(wei.clone()) * &live.pixels_per_unit));
            }
        }
    }
    (live, payer)
}

/// What may help against the check that refuses, each as small as it can be.
fn steps(live: &Live, payer: &Terms, outcome: &Outcome) -> Vec<Step> {
    let ev = outcome.ticket.as_ref().map(rules::Ticket::ev).unwrap_or_default();
    let tickets = BigInt::from(outcome.tickets.unwrap_or(0));
    let fee = outcome.fee.clone().unwrap_or_default();
    let terms = |setting: Setting, value: BigInt| Step::Terms(setting, value);
    let mut all = match outcome.check {
        Check::MaxPrice => {
            let cap = live.cap_in_wei().map(|cap| floor(&cap)).unwrap_or_default();
            vec![Step::Cap(outcome.price.clone().unwrap_or_default()), Step::Price(cap)]
        }
        // Two tickets for a payment: go-livepeer's documentation recommends 1 to 3.
        Check::NoTickets => vec![terms(Setting::TicketEv, ceil(&ratio(fee, 2)))],
        Check::TooManyTickets => {
            let most = floor(&(&ev * ratio(MAX_TICKETS, live.first_units())));
            vec![
                terms(Setting::TicketEv, ceil(&ratio(fee.clone(), 2)).min(&payer.max_ticket_ev - 1)),
                terms(Setting::TicketEv, ceil(&ratio(fee, MAX_TICKETS))),
                Step::Price(most),
            ]
        }
        Check::Tickets(rules::Check::MaxTicketEv) => {
            let half = ceil(&ratio(fee, 2));
            let lower = terms(Setting::TicketEv, half.clone().min(&payer.max_ticket_ev - 1));
            let higher = terms(Setting::MaxTicketEv, ceil(&ev));
            // Lower where that still pays with few tickets.
            if half < payer.max_ticket_ev { vec![lower, higher] } else { vec![higher] }
        }
        Check::Tickets(rules::Check::MaxTotalEv) => {
            vec![terms(Setting::MaxTotalEv, ceil(&(ev * BigRational::from_integer(tickets))))]
        }
        Check::Tickets(rules::Check::SenderReserve | rules::Check::FaceValueTooLow) => {
            larger_face_value(payer).into_iter().map(|(setting, value)| terms(setting, value)).collect()
        }
        Check::Tickets(_) => {
            let face_value = outcome.ticket.as_ref().map(|ticket| ticket.face_value.clone()).unwrap_or_default();
            vec![terms(Setting::Deposit, (face_value * &payer.deposit_multiplier).max(BigInt::one()))]
        }
        _ => Vec::new(),
    };
    all.retain(|step| match step {
        Step::Terms(_, value) | Step::Price(value) | Step::Cap(value) => value.is_positive(),
    });
    all
}

/// One repair after the other, with the price as it is.
fn repair(live: &Live, payer: &Terms) -> Option<Vec<Step>> {
    let mut made: Vec<Step> = Vec::new();
    for _ in 0..MOST_REPAIRS {
        let (changed, terms) = apply(live, payer, &made);
        let outcome = call_outcome(&changed, &terms);
        let half = ceil(&ratio(outcome.fee.clone().unwrap_or_default(), 2));
        let next = match outcome.check {
            Check::Ok | Check::FreeByByoc => return Some(made),
            Check::TooManyTickets | Check::NoTickets => vec![Step::Terms(Setting::TicketEv, half)],
            Check::Tickets(rules::Check::MaxTicketEv) if half < terms.max_ticket_ev => {
                vec![Step::Terms(Setting::TicketEv, half)]
            }
            _ => steps(&changed, &terms, &outcome).into_iter().filter(|step| !matches!(step, Step::Price(_))).collect(),
        };
        if next.is_empty() {
            return None;
        }
        for step in next {
            made.retain(|known| !matches!((known, &step), (Step::Terms(a, _), Step::Terms(b, _)) if a == b));
            made.push(step);
        }
    }
    None
}

fn sentence(live: &Live, payer: &Terms, steps: &[Step]) -> String {
    let words = |step: &Step| match step {
        Step::Terms(setting @ (Setting::Deposit | Setting::Reserve), value) => {
            format!("a {} of {value} wei ({}) (signer's account)", setting.name(), shown(value))
        }
        Step::Terms(setting, value) => {
            let owner = if setting.owner() == "gateway" { "remote signer" } else { setting.owner() };
            format!("{}={value} ({owner})", setting.name())
        }
        Step::Price(wei) => format!("RUNNER_PRICE={} (worker)", price(live, wei).unwrap_or_default()),
        Step::Cap(wei) => {
            let cap = ceil(&(BigRational::from_integer(wei.clone()) * &live.pixels_per_unit));
            format!("-maxPricePerUnit={cap} (remote signer)")
        }
    };
    let text: Vec<String> = steps.iter().map(words).collect();
    let (live, payer) = apply(live, payer, steps);
    let outcome = call_outcome(&live, &payer);
    format!("{}: a payment is {}", text.join(" and "), outcome.payment())
}

/// RUNNER_PRICE as it is written for `wei` a unit, rounded down to a few digits.
fn price(live: &Live, wei: &BigInt) -> Option<String> {
    let dollars = live.dollars_of(wei)?;
    // Half a digit less, so that rounding never ends above it.
    let low = &dollars - &dollars * ratio(1, 2 * 10_i64.pow(DIGITS - 1));
    Some(format!("{}usd/{}", decimal(&low, DIGITS), live.unit()))
}
