//! Figures about terms that are accepted, or nearly so.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::amount::{floor, ratio};
use super::rules::{self, Check, Outcome, job_outcome, last};
use super::terms::{Era, Terms};
use crate::sys::order;

/// Gas prices are searched up to this one, in wei; a thousand ETH for one redemption.
const HIGHEST_GAS_PRICE: u64 = 1_000_000_000_000_000;
/// A payment without tickets, and one ticket in it, in bytes (`net/lp_rpc.proto`).
const HEADER_BYTES: u64 = 254;
const TICKET_BYTES: u64 = 71;
/// From here on a ticket's number takes one byte more.
const LONG_NONCE: u64 = 128;

/// Seconds that one payment pays for. None: no tickets, or nothing to pay.
pub(crate) fn prepaid_units(outcome: &Outcome) -> Option<BigRational> {
    let credit = paid(outcome).filter(|_| outcome.price.is_positive())?;
    Some(credit / &outcome.price)
}

/// The most that a client loses if it sends nothing for ten minutes after a job of a second, or if a paid job is refused:
/// whole wei.
pub(crate) fn credit_at_risk(outcome: &Outcome) -> Option<BigInt> {
    let credit = paid(outcome)?;
    let used = if outcome.check.accepts() { outcome.price.clone() } else { ratio(0, 1) };
    let left = credit - used;
    Some(floor(&left).max(BigInt::zero()))
}

/// The exact credit of the tickets, if they are sent.
fn paid(outcome: &Outcome) -> Option<BigRational> {
    let (ticket, tickets) = (outcome.ticket.as_ref()?, outcome.tickets.filter(|_| outcome.credit.is_some())?);
    Some(ticket.ev() * BigRational::from_integer(tickets.into()))
}

/// About how many characters the payment header has.
pub(crate) fn header_characters(tickets: u64) -> u64 {
    let bytes = HEADER_BYTES + TICKET_BYTES * tickets + tickets.saturating_sub(LONG_NONCE - 1);
    bytes.div_ceil(3) * 4
}

/// The part of a winner's value that redeeming costs.
pub(crate) fn redeem_share(terms: &Terms, outcome: &Outcome) -> Option<BigRational> {
    let ticket = outcome.ticket.as_ref()?;
    (!ticket.face_value.is_zero()).then(|| ratio(terms.redeem_cost(), ticket.face_value.clone()))
}

/// The deposit that the gateway needs for these tickets.
pub(crate) fn needed_deposit(terms: &Terms, outcome: &Outcome) -> Option<BigInt> {
    let ticket = outcome.ticket.as_ref()?;
    Some((&ticket.face_value * &terms.deposit_multiplier).max(BigInt::one()))
}

/// The smallest reserve with which tickets are made; None: maxFaceValue is too small for any.
pub(crate) fn needed_reserve(terms: &Terms) -> Option<BigInt> {
    let least = rules::least_face_value(terms);
    let possible = !terms.max_face_value.is_positive() || terms.max_face_value >= least;
    possible.then(|| terms.reserve_for(&least))
}

/// The smallest reserve that does not cap the face value.
pub(crate) fn full_reserve(terms: &Terms) -> Option<BigInt> {
    let plenty = Terms { reserve: BigInt::one() << 400_u32, ..terms.clone() };
    rules::face_value(&plenty).map(|value| terms.reserve_for(&value))
}

/// The highest gas price, in wei, up to which the terms are accepted as they are now; None: they are not, or at any
/// price.
pub(crate) fn gas_limit(terms: &Terms, era: Era) -> Option<BigInt> {
    let at = |gas: u64| job_outcome(&Terms { gas_price: gas.into(), ..terms.clone() }, era);
    let now = u64::try_from(terms.effective_gas_price()).ok().filter(|gas| *gas <= HIGHEST_GAS_PRICE)?;
    let first = at(now);
    if !first.check.accepts() || first.check == Check::Free {
        return None;
    }
    // Between these the face value follows one rule, so that what is accepted is refused at most once.
    let hundredfold = &terms.redeem_gas * 100_u32;
    let cap = if terms.max_face_value.is_positive() {
        terms.max_face_value.clone().min(terms.reserve_share())
    } else {
        terms.reserve_share()
    };
    let turns = [&terms.ticket_ev, &cap].map(|value| u64::try_from(value.div_ceil(&hundredfold)).unwrap_or(u64::MAX));
    let mut starts: Vec<u64> = turns.iter().flat_map(|turn| [*turn, turn.saturating_add(1)]).collect();
    starts.retain(|start| (now + 1..=HIGHEST_GAS_PRICE).contains(start));
    starts.push(HIGHEST_GAS_PRICE + 1);
    order::sort(&mut starts);
    let mut from = now;
    for next in starts {
        while from < next {
            if !at(from).check.accepts() {
                return Some((from - 1).into());
            }
            // A short job may be refused and, with one ticket more, accepted again: one count of tickets at a time.
            let tickets = at(from).tickets;
            let same = |gas: u64| terms.timeout >= rules::MIN_UNITS.into() || at(gas).tickets == tickets;
            let end = last(from, next, same);
            let good = last(from, end + 1, |gas| at(gas).check.accepts());
            if good < end {
                return Some(good.into());
            }
            from = end + 1;
        }
    }
    None
}
