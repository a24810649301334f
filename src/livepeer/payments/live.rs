//! Whether calls of a Live Runner are paid, by go-livepeer's rules in their order, since v0.9.0.
//!
//! The registry takes the worker and converts its dollars to wei (`ai/runner/live_runner.go`), the orchestrator requests
//! tickets (`server/ai_http.go:runnerChallenge`, `pm/recipient.go`), the client's remote signer counts and signs them
//! (`server/remote_signer.go:GenerateLivePayment`, `core/accounting.go:StageUpdate`, `pm/sender.go`), and the
//! orchestrator debits: once for a fixed price, else every `-livePaymentInterval` (`reservePaidLiveRunnerSession`).

pub(crate) mod advice;
pub(crate) mod findings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::amount::{ceil, floor, ratio, shown};
use super::rules::{self, Ticket};
use super::terms::Terms;
use crate::config::price::Price;

/// Tickets that a remote signer makes for one payment: "numTickets … exceeds maximum of 100".
pub(crate) const MAX_TICKETS: u64 = 100;
/// Seconds that the first payment of a metered session pays for: `RemoteType_Live` and `RemoteType_LiveVideoToVideo`.
pub(crate) const FIRST_SECONDS: u32 = 10;
const FIRST_VIDEO_SECONDS: u32 = 60;
/// Pixels of a second of 720p with 30 frames.
const VIDEO_PIXELS: u32 = 1280 * 720 * 30;
const WEI_PER_ETH: u64 = 1_000_000_000_000_000_000;
const SECONDS_PER_HOUR: u32 = 3600;

/// The most that a client's remote signer pays for a unit (`-maxPricePerUnit` by `-pixelsPerUnit`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cap {
    Wei(BigRational),
    Dollars(BigRational),
}

/// What a Live Runner's payment depends on beside the [`Terms`] of orchestrator and payer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// RUNNER_PRICE.
    pub(crate) price: Option<Price>,
    /// Dollars for an ETH, as the orchestrator's price feed says.
    pub(crate) eth_price: Option<BigRational>,
    /// The orchestrator's flags are known: a flag that was not found is not set.
    pub(crate) known: bool,
    /// -network; go-livepeer is off-chain without it.
    pub(crate) network: bool,
    /// -useLiveRunners.
    pub(crate) runners: bool,
    /// -liveRunnerConfig.
    pub(crate) listed: bool,
    /// -orchSecret.
    pub(crate) secret: bool,
    /// -livePaymentInterval.
    pub(crate) interval: Duration,
    /// -maxPricePerUnit of the signer, as written, and -pixelsPerUnit.
    pub(crate) cap: Option<Cap>,
    pub(crate) pixels_per_unit: BigRational,
    pub(crate) byoc: Byoc,
}

/// The price of the same worker's BYOC jobs, which orchestrators with Live Runners support as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Byoc {
    /// It has a price, or there are no BYOC jobs.
    Settled,
    /// No price was found, but the worker's settings are unknown.
    Unknown,
    Free,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            price: None,
            eth_price: None,
            known: false,
            network: false,
            runners: false,
            listed: false,
            secret: false,
            interval: Duration::from_secs(5),
            cap: None,
            pixels_per_unit: ratio(1, 1),
            byoc: Byoc::Settled,
        }
    }
}

/// The check that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Ok,
    /// There is no chain, so nothing is paid.
    Offchain,
    NoRunners,
    NoSecret,
    NoPrice,
    /// The price is less than a wei, or more than 63 bits can hold.
    WeiPrice,
    MaxPrice,
    NoTickets,
    TooManyTickets,
    /// A check of the tickets, as for BYOC jobs.
    Tickets(rules::Check),
    FreeByByoc,
}

impl Check {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Offchain => "offchain",
            Self::NoRunners => "useLiveRunners",
            Self::NoSecret => "orchSecret",
            Self::NoPrice => "runnerPrice",
            Self::WeiPrice => "weiPrice",
            Self::MaxPrice => "maxPricePerUnit",
            Self::NoTickets => "noTickets",
            Self::TooManyTickets => "tooManyTickets",
            Self::Tickets(check) => check.name(),
            Self::FreeByByoc => "freeByByoc",
        }
    }

    pub(crate) fn accepts(self) -> bool {
        matches!(self, Self::Ok | Self::Offchain)
    }
}

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) check: Check,
    /// Whole wei for a unit.
    pub(crate) price: Option<BigInt>,
    /// What the first payment has to cover, in wei.
    pub(crate) fee: Option<BigInt>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) tickets: Option<u64>,
    /// Whole wei that these tickets are worth.
    pub(crate) credit: Option<BigInt>,
}

impl Outcome {
    /// The tickets of the first payment.
    pub(crate) fn payment(&self) -> String {
        let credit = self.credit.as_ref().map(shown).unwrap_or_default();
        match self.tickets {
            Some(1) => format!("one ticket of {credit}"),
            tickets => format!("{} tickets, {credit} in total", tickets.unwrap_or(0)),
        }
    }
}

impl Live {
    /// Whether the price of an ETH decides.
    pub(crate) fn needs_eth_price(&self, terms: &Terms) -> bool {
        self.eth_price.is_none() && self.registry(terms).is_none()
    }

    /// The registry's checks, which come before those of money.
    fn registry(&self, terms: &Terms) -> Option<Check> {
        if self.known && !self.runners && !self.listed {
            return Some(Check::NoRunners);
        }
        // The operator's own list needs no secret.
        if self.known && !self.secret && !self.listed {
            return Some(Check::NoSecret);
        }
        if terms.offchain || (self.known && !self.network) {
            return Some(Check::Offchain);
        }
        self.price.is_none().then_some(Check::NoPrice)
    }

    pub(crate) fn unit(&self) -> &str {
        self.price.as_ref().map_or("", Price::unit)
    }

    /// Units that the first payment of a session pays for.
    pub(crate) fn first_units(&self) -> u32 {
        match self.unit() {
            "hour" => FIRST_SECONDS,
            "720p" => VIDEO_PIXELS * FIRST_VIDEO_SECONDS,
            _ => 1,
        }
    }

    /// Units of one `hour` or `720p`, by which its dollars are divided (`convertPrice`).
    fn divisor(&self) -> BigInt {
        match self.unit() {
            "hour" => SECONDS_PER_HOUR.into(),
            "720p" => BigInt::from(SECONDS_PER_HOUR) * VIDEO_PIXELS,
            _ => 1.into(),
        }
    }

    /// A price in dollars for a unit as it is charged: whole wei, rounded down (`common.PriceToInt64`).
    fn wei_price(&self) -> Option<BigInt> {
        let dollars = dollars(self.price.as_ref()?.dollars())?;
        let price = floor(&(dollars * self.wei_per_dollar()? / BigRational::from_integer(self.divisor())));
        (price.is_positive() && price.to_i64().is_some()).then_some(price)
    }

    /// The highest RUNNER_PRICE in dollars that is charged as `wei` for a unit.
    pub(crate) fn dollars_of(&self, wei: &BigInt) -> Option<BigRational> {
        Some(BigRational::from_integer(wei * self.divisor()) / self.wei_per_dollar()?)
    }

    fn wei_per_dollar(&self) -> Option<BigRational> {
        Some(BigRational::from_integer(WEI_PER_ETH.into()) / self.eth_price.as_ref()?)
    }

    /// The most that the signer pays for a unit, in wei.
    pub(crate) fn cap_in_wei(&self) -> Option<BigRational> {
        let amount = match self.cap.as_ref()? {
            Cap::Wei(amount) => amount.clone(),
            Cap::Dollars(amount) => amount * self.wei_per_dollar()?,
        };
        Some(amount / &self.pixels_per_unit)
    }

    /// The price of an ETH, in whole cents of a dollar, below which payments accepted now are refused: each dollar is more wei
    /// then.
    pub(crate) fn eth_price_floor(&self, payer: &Terms) -> Option<BigRational> {
        let cents = floor(&(self.eth_price.as_ref()? * ratio(100, 1))).to_u64().filter(|cents| *cents > 0)?;
        let at = |cents: u64| Self { eth_price: Some(ratio(cents, 100)), ..self.clone() };
        let accepts = |cents: u64| call_outcome(&at(cents), payer).check == Check::Ok;
        if !accepts(cents) {
            return None;
        }
        let (mut bad, mut good) = (0, cents);
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            if accepts(middle) { good = middle } else { bad = middle }
        }
        Some(ratio(good, 100))
    }
}

/// A plain decimal number.
pub(crate) fn dollars(text: &str) -> Option<BigRational> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() + part.len() > 60 || !digits(whole) || !digits(part) {
        return None;
    }
    let number: BigInt = format!("{whole}{part}").parse().ok()?;
    Some(BigRational::new(number, BigInt::from(10).pow(u32::try_from(part.len()).ok()?)))
}

/// The outcome of a call. `payer`: the orchestrator's terms with the limits of the client's signer.
pub(crate) fn call_outcome(live: &Live, payer: &Terms) -> Outcome {
    let mut outcome = Outcome { check: Check::Ok, price: None, fee: None, ticket: None, tickets: None, credit: None };
    outcome.check = decide(live, payer, &mut outcome);
    outcome
}

fn decide(live: &Live, payer: &Terms, found: &mut Outcome) -> Check {
    if let Some(check) = live.registry(payer) {
        return check;
    }
    let Some(price) = live.wei_price() else { return Check::WeiPrice };
    let fee = &price * live.first_units();
    found.price = Some(price.clone());
    found.fee = Some(fee.clone());
    let Some(face_value) = rules::face_value(payer) else { return Check::Tickets(rules::Check::SenderReserve) };
    let ticket = found.ticket.insert(Ticket::new(payer, face_value)).clone();
    if live.cap_in_wei().is_some_and(|cap| BigRational::from_integer(price) > cap) {
        return Check::MaxPrice;
    }
    let ev = ticket.ev();
    if !ev.is_positive() {
        return Check::NoTickets;
    }
    // At least one is sent, whatever its value (`newBalanceUpdate`).
    let tickets = ceil(&(BigRational::from_integer(fee) / &ev)).to_u64().unwrap_or(u64::MAX);
    found.tickets = Some(tickets);
    if tickets > MAX_TICKETS {
        return Check::TooManyTickets;
    }
    if let Some(check) = rules::sender_refuses(payer, &ticket) {
        return Check::Tickets(check);
    }
    if ticket.exceeds(tickets, &payer.max_total_ev) {
        return Check::Tickets(rules::Check::MaxTotalEv);
    }
    if ticket.face_value > payer.deposit.div_floor(&payer.deposit_multiplier) {
        return Check::Tickets(rules::Check::FaceValueOverDeposit);
    }
    found.credit = Some(floor(&(ev * ratio(tickets, 1))));
    if live.byoc == Byoc::Free { Check::FreeByByoc } else { Check::Ok }
}

impl Cap {
    /// `-maxPricePerUnit`: `1000`, `0.10USD`. None: not a price; the inner None: 0, which is not a limit.
    pub(crate) fn parse(text: &str) -> Option<Option<Self>> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let amount = dollars(number)?;
        let cap = match text[number.len()..].to_ascii_lowercase().as_str() {
            "" | "wei" => Self::Wei(amount.clone()),
            "eth" => Self::Wei(&amount * BigRational::from_integer(WEI_PER_ETH.into())),
            "usd" => Self::Dollars(amount.clone()),
            _ => return None,
        };
        Some(Some(cap).filter(|_| !amount.is_zero()))
    }
}
