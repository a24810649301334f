//! Whether a job is accepted and paid, by go-livepeer's rules in their order, for each era.
//!
//! The orchestrator makes a price and ticket parameters (`core/ai_orchestrator.go`, `pm/recipient.go`), the gateway
//! decides how many tickets it attaches and whether it signs them (`byoc/payment.go`, `pm/sender.go`), the orchestrator
//! takes them (`pm/recipient.go`) and checks the balance (`byoc/job_orchestrator.go`).

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::amount::{max_uint256, ratio};
use super::odds;
use super::terms::{Era, MAX_TIMEOUT, Terms};

/// A winner should be worth this many redemptions, or a ticket this many expected values.
const FACE_VALUE_MULTIPLIER: u32 = 100;
/// The gas price, in wei, at which go-livepeer considers even a small face value worth redeeming.
const AVERAGE_GAS_PRICE: u32 = 3_000_000_000;
/// Tickets that an orchestrator takes for one set of parameters.
pub(crate) const MAX_TICKETS: u32 = 600;
/// Seconds that an orchestrator requires in advance.
pub(crate) const MIN_UNITS: u32 = 60;
/// With this many seconds on the balance, a gateway of era C pays nothing.
const COVERED_UNITS: u32 = 120;
/// The largest balance that a token can hold, in wei: fixed point with three decimals in 63 bits.
const MAX_TOKEN_BALANCE: u64 = 9_223_372_036_854_775;
/// Prices are kept in these parts of a wei.
const PRICE_SCALE: u32 = 1000;

/// The check that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Ok,
    /// The price is 0: no ticket is requested.
    Free,
    /// An earlier balance covers the job.
    Covered,
    MaxTicketEv,
    MaxTotalEv,
    FaceValueTooLow,
    SenderReserve,
    Deposit,
    FaceValueOverDeposit,
    MinBalance,
    Nonces,
}

impl Check {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Free => "free",
            Self::Covered => "covered",
            Self::MaxTicketEv => "maxTicketEV",
            Self::MaxTotalEv => "maxTotalEV",
            Self::FaceValueTooLow => "faceValueTooLow",
            Self::SenderReserve => "senderReserve",
            Self::Deposit => "deposit",
            Self::FaceValueOverDeposit => "faceValueOverDeposit",
            Self::MinBalance => "minBalance",
            Self::Nonces => "nonces",
        }
    }

    pub(crate) fn accepts(self) -> bool {
        matches!(self, Self::Ok | Self::Free | Self::Covered)
    }
}

/// The tickets that an orchestrator requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) face_value: BigInt,
    pub(crate) win_prob: BigInt,
    /// Its expected value times 2^256 - 1: a whole number, which is cheap to compare.
    scaled_ev: BigInt,
}

impl Ticket {
    pub(super) fn new(terms: &Terms, face_value: BigInt) -> Self {
        let win_prob = odds::win_prob(&terms.ticket_ev, &face_value);
        let scaled_ev = &face_value * &win_prob;
        Self { face_value, win_prob, scaled_ev }
    }

    /// Its exact expected value in wei.
    pub(crate) fn ev(&self) -> BigRational {
        ratio(self.scaled_ev.clone(), max_uint256())
    }

    /// Whether `tickets` of them are worth more than `wei`.
    pub(super) fn exceeds(&self, tickets: u64, wei: &BigInt) -> bool {
        &self.scaled_ev * tickets > wei * max_uint256()
    }
}

/// The outcome of a job in one era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) era: Era,
    pub(crate) check: Check,
    /// Wei for a second.
    pub(crate) price: BigRational,
    /// None: the orchestrator requests none.
    pub(crate) ticket: Option<Ticket>,
    /// None: an earlier check decided.
    pub(crate) tickets: Option<u64>,
    /// Whole wei that they are worth to the orchestrator; None: they were not sent.
    pub(crate) credit: Option<BigInt>,
}

/// The outcome of a job of `terms.timeout` seconds.
pub(crate) fn job_outcome(terms: &Terms, era: Era) -> Outcome {
    let offer = Offer::of(terms, era);
    let (check, tickets) = offer.decision(terms.timeout);
    let sent = check.accepts() || check == Check::MinBalance;
    let credit = |tickets: u64| match &offer.ticket {
        Some(ticket) => &ticket.scaled_ev * tickets / max_uint256(),
        None => BigInt::ZERO,
    };
    Outcome {
        era,
        check,
        credit: tickets.filter(|_| sent).map(credit),
        tickets,
        price: offer.price,
        ticket: offer.ticket,
    }
}

/// The timeouts that are accepted, shortest and longest, in seconds: all between them are accepted as well. None: no timeout is.
pub(crate) fn timeouts(terms: &Terms, era: Era) -> Option<(u64, u64)> {
    Offer::of(terms, era).timeouts()
}

/// What does not depend on the timeout.
struct Offer<'a> {
    terms: &'a Terms,
    era: Era,
    price: BigRational,
    ticket: Option<Ticket>,
    /// What is decided whatever the timeout.
    decided: Option<Check>,
    /// What is decided whatever the timeout, wherever tickets are attached, except for the checks after MaxTotalEv.
    refused: Option<Check>,
    over_deposit: bool,
}

impl<'a> Offer<'a> {
    fn of(terms: &'a Terms, era: Era) -> Self {
        let mut offer = Self {
            terms,
            era,
            price: terms.base_price(),
            ticket: None,
            decided: None,
            refused: None,
            over_deposit: false,
        };
        let face_value = face_value(terms);
        match adjusted_price(terms, face_value.as_ref()) {
            Some(price) => offer.price = price,
            None => offer.decided = Some(Check::SenderReserve),
        }
        if era == Era::C {
            offer.price = offer.price.floor();
        }
        if offer.decided.is_some() {
            return offer;
        }
        if !offer.price.is_positive() {
            offer.decided = Some(Check::Free);
            return offer;
        }
        let Some(face_value) = face_value else {
            offer.decided = Some(Check::SenderReserve);
            return offer;
        };
        let ticket = Ticket::new(terms, face_value);
        if ticket.scaled_ev.is_positive() {
            offer.refused = sender_refuses(terms, &ticket);
            offer.over_deposit = ticket.face_value > terms.deposit.div_floor(&terms.deposit_multiplier);
        }
        offer.ticket = Some(ticket);
        offer
    }

    /// The check that decides for this timeout, and the tickets that are made for it.
    fn decision(&self, timeout: u64) -> (Check, Option<u64>) {
        let Some(ticket) = &self.ticket else {
            let check = self.decided.unwrap_or(Check::Free);
            return (check, Some(0).filter(|_| check == Check::Free));
        };
        let (balance, minimum) = (self.balance(), self.price.numer() * MIN_UNITS);
        let Some(tickets) = self.tickets(timeout) else {
            // Era C skips tickets at twice the minimum; before it, the gateway's own book decided.
            let enough = balance * self.price.denom() >= minimum;
            return (if enough { Check::Covered } else { Check::MinBalance }, Some(0));
        };
        let check = if let Some(refused) = self.refused {
            refused
        } else if ticket.scaled_ev.is_positive() && ticket.exceeds(tickets, &self.terms.max_total_ev) {
            Check::MaxTotalEv
        } else if self.over_deposit {
            Check::FaceValueOverDeposit
        } else if tickets > u64::from(MAX_TICKETS) {
            Check::Nonces
        } else if self.era == Era::C && (tickets == 0 || self.is_short(ticket, tickets, &balance, &minimum)) {
            // A gateway crashes on a request for 0 tickets.
            Check::MinBalance
        } else {
            Check::Ok
        };
        (check, Some(tickets))
    }

    /// Whether balance and tickets are less than the minimum, which is not yet divided by the price's denominator.
    fn is_short(&self, ticket: &Ticket, tickets: u64, balance: &BigInt, minimum: &BigInt) -> bool {
        let scale = max_uint256();
        (balance * &scale + &ticket.scaled_ev * tickets) * self.price.denom() < minimum * scale
    }

    /// The balance that the gateway knows of.
    fn balance(&self) -> BigInt {
        match self.era {
            Era::C => self.terms.balance.clone().min(MAX_TOKEN_BALANCE.into()),
            Era::A | Era::B => self.terms.balance.clone(),
        }
    }

    /// How many tickets the gateway attaches; None: the balance covers the job.
    fn tickets(&self, timeout: u64) -> Option<u64> {
        let (numer, denom) = (self.price.numer(), self.price.denom());
        let balance = self.balance() * denom;
        let cost = numer * timeout;
        let covered = match self.era {
            Era::A | Era::B => balance > cost,
            Era::C => balance >= numer * COVERED_UNITS,
        };
        if covered {
            return None;
        }
        Some(match (self.era, &self.ticket) {
            (Era::A, _) => timeout.div_ceil(60),
            (Era::B, _) => timeout,
            (Era::C, None) => 0,
            (Era::C, Some(ticket)) => tickets_for(&(cost * max_uint256()), &(denom * &ticket.scaled_ev)),
        })
    }

    fn timeouts(&self) -> Option<(u64, u64)> {
        if self.ticket.is_none() {
            return Some((1, MAX_TIMEOUT)).filter(|_| self.decided == Some(Check::Free));
        }
        let accepts = |timeout: u64| self.decision(timeout).0.accepts();
        // A longer job never needs fewer tickets, so that each of these turns from true to false once.
        // 0: for none.
        let last_timeout = |holds: &dyn Fn(u64) -> bool| last(0, MAX_TIMEOUT + 1, holds);
        let covered = last_timeout(&|timeout| self.tickets(timeout).is_none());
        let affordable = last_timeout(&|timeout| {
            self.tickets(timeout).is_none() || !matches!(self.decision(timeout).0, Check::MaxTotalEv | Check::Nonces)
        });
        let unpaid = last_timeout(&|timeout| timeout <= covered || self.decision(timeout).0 == Check::MinBalance);
        let first = if covered > 0 && accepts(1) { 1 } else { unpaid + 1 };
        let last = if accepts(affordable.max(1)) { affordable.max(1) } else { covered };
        Some((first, last)).filter(|(first, last)| first <= last && accepts(*first) && accepts(*last))
    }
}

/// The last number in `from..end` for which `holds`. It must hold for `from`, and turn from true to false at most once.
pub(super) fn last(from: u64, end: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut good, mut bad) = (from, end);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

/// The face value of a ticket. None: "insufficient sender reserve", which the orchestrator's own maxFaceValue causes as
/// well.
pub(crate) fn face_value(terms: &Terms) -> Option<BigInt> {
    let cost = terms.redeem_cost();
    let mut face_value = &cost * FACE_VALUE_MULTIPLIER;
    if face_value < terms.ticket_ev {
        face_value = &terms.ticket_ev * FACE_VALUE_MULTIPLIER;
    }
    face_value = face_value.min(terms.reserve_share());
    if terms.max_face_value.is_positive() {
        face_value = face_value.min(terms.max_face_value.clone());
    }
    let worth_redeeming = face_value >= cost || face_value >= &terms.redeem_gas * AVERAGE_GAS_PRICE;
    Some(face_value).filter(|value| *value >= terms.ticket_ev && worth_redeeming)
}

/// The smallest face value with which tickets are made and sent, whatever caps it.
pub(crate) fn least_face_value(terms: &Terms) -> BigInt {
    (&terms.ticket_ev + 1_u32).max(terms.redeem_cost().min(&terms.redeem_gas * AVERAGE_GAS_PRICE))
}

/// The price after autoAdjustPrice, which lets the client pay for redeeming. None: there is no face value to
/// spread that cost over.
fn adjusted_price(terms: &Terms, face_value: Option<&BigInt>) -> Option<BigRational> {
    let base = terms.base_price();
    let mut price = base.clone();
    if terms.auto_adjust_price {
        if base.is_positive() {
            let (cost, face_value) = (terms.redeem_cost(), face_value?);
            if cost.is_positive() {
                price *= BigRational::one() + ratio(cost, face_value.clone());
            }
        }
        return Some(fixed_point(&price));
    }
    let fits = |number: &BigInt| number.to_i64().is_some();
    Some(if fits(price.numer()) && fits(price.denom()) { price } else { fixed_point(&price) })
}

/// A price in thousandths of a wei in 63 bits: `new(big.Float).SetRat(x).Int64()`, which cuts and saturates. The quotient
/// is rounded before, to at least as many bits as its numerator and denominator have: too many to reach a whole number.
fn fixed_point(price: &BigRational) -> BigRational {
    let scaled = (price * BigRational::from_integer(PRICE_SCALE.into())).to_integer();
    ratio(scaled.clamp(i64::MIN.into(), i64::MAX.into()), PRICE_SCALE)
}

/// The gateway's checks before it counts tickets, in their order. All of them are exact.
pub(super) fn sender_refuses(terms: &Terms, ticket: &Ticket) -> Option<Check> {
    // Its expected value is not below its face value.
    if ticket.win_prob >= max_uint256() {
        Some(Check::FaceValueTooLow)
    } else if ticket.exceeds(1, &terms.max_ticket_ev) {
        Some(Check::MaxTicketEv)
    } else if terms.reserve.is_zero() {
        Some(Check::SenderReserve)
    } else if terms.deposit.is_zero() {
        Some(Check::Deposit)
    } else {
        None
    }
}

/// `ticketCountForCost` of `byoc/payment.go`: a float64 between two exact numbers. `cost` and `ev` have one unit.
pub(crate) fn tickets_for(cost: &BigInt, ev: &BigInt) -> u64 {
    if ev.is_zero() || cost.is_negative() || ev.is_negative() {
        return 0;
    }
    // Beyond it no rounding matters, and the float64 stays finite.
    if *cost > ev * (MAX_TICKETS + 1) {
        return MAX_TICKETS.into();
    }
    let count = nearest_f64(cost, ev);
    if count > f64::from(MAX_TICKETS) { MAX_TICKETS.into() } else { count.ceil().to_u64().unwrap_or(0) }
}

/// The float64 next to a positive fraction, halves to even, as `big.Rat.Float64` gives it; for a quotient below 2^53.
fn nearest_f64(numer: &BigInt, denom: &BigInt) -> f64 {
    if numer.is_zero() {
        return 0.0;
    }
    // A quotient of 53 bits: its first bit is at the difference of both first bits, or one lower.
    let bits = |number: &BigInt| i64::try_from(number.bits()).unwrap_or(i64::MAX);
    let divide = |shift: i64| {
        let factor = BigInt::one() << shift.unsigned_abs();
        if shift < 0 { numer.div_rem(&(denom * factor)) } else { (numer * factor).div_rem(denom) }
    };
    let mut shift = 53 - (bits(numer) - bits(denom));
    let (mut whole, mut rest) = divide(shift);
    if whole.bits() > 53 {
        shift -= 1;
        (whole, rest) = divide(shift);
    }
    let unit = if shift < 0 { denom << shift.unsigned_abs() } else { denom.clone() };
    let twice = rest * 2_u32;
    let up = twice > unit || (twice == unit && whole.is_odd());
    let mantissa = (whole + u32::from(up)).to_f64().unwrap_or(0.0);
    // Both factors are exact; below 2^-1022 the product would round again, far from any ticket.
    mantissa * 2_f64.powi(i32::try_from(-shift).unwrap_or(i32::MIN))
}
