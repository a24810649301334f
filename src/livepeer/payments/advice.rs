//! The smallest changes that make refused terms pass. Each is checked by the same rules before it is proposed.

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::amount::ceil;
use super::rules::{self, Check, MIN_UNITS, job_outcome, timeouts};
use super::terms::{Era, Terms};
use crate::sys::order;

/// Repairs are made one after the other; they are always enough.
const MOST_REPAIRS: usize = 32;

/// What can be changed, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Price,
    TicketEv,
    MaxFaceValue,
    MaxTicketEv,
    MaxTotalEv,
    DepositMultiplier,
    Deposit,
    Reserve,
    Timeout,
}

impl Setting {
    /// As the operator writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Price => "CAPABILITY_PRICE_PER_UNIT",
            Self::TicketEv => "-ticketEV",
            Self::MaxFaceValue => "-maxFaceValue",
            Self::MaxTicketEv => "-maxTicketEV",
            Self::MaxTotalEv => "-maxTotalEV",
            Self::DepositMultiplier => "-depositMultiplier",
            Self::Deposit => "deposit",
            Self::Reserve => "reserve",
            Self::Timeout => "timeout",
        }
    }

    /// The program or person that changes it.
    pub(crate) fn owner(self) -> &'static str {
        match self {
            Self::Price => "worker",
            Self::TicketEv | Self::MaxFaceValue => "orchestrator",
            Self::Deposit | Self::Reserve => "gateway's account",
            Self::MaxTicketEv | Self::MaxTotalEv | Self::DepositMultiplier => "gateway",
            Self::Timeout => "client",
        }
    }

    pub(super) fn set(self, terms: &mut Terms, value: &BigInt) {
        let field = match self {
            Self::Price => {
                (terms.price_scaling, terms.price_in_eth) = (BigInt::one(), false);
                &mut terms.price_per_unit
            }
            Self::Timeout => {
                terms.timeout = u64::try_from(value).unwrap_or(terms.timeout);
                return;
            }
            Self::TicketEv => &mut terms.ticket_ev,
            Self::MaxFaceValue => &mut terms.max_face_value,
            Self::MaxTicketEv => &mut terms.max_ticket_ev,
            Self::MaxTotalEv => &mut terms.max_total_ev,
            Self::DepositMultiplier => &mut terms.deposit_multiplier,
            Self::Deposit => &mut terms.deposit,
            Self::Reserve => &mut terms.reserve,
        };
        field.clone_from(value);
    }
}

/// New values, and the eras that accept the job with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) settings: Vec<(Setting, BigInt)>,
    /// With the shortest and longest timeout that they accept then.
    pub(crate) eras: Vec<(Era, (u64, u64))>,
}

/// Changes after which at least one more of `eras` accepts and all that accepted before still do. Those with which all
/// accept come first, and there is always one. Empty: nothing is refused.
pub(crate) fn changes(terms: &Terms, eras: &[Era]) -> Vec<Change> {
    let accepted = |terms: &Terms| -> Vec<Era> {
        eras.iter().copied().filter(|era| job_outcome(terms, *era).check.accepts()).collect()
    };
    let before = accepted(terms);
    if before.len() == eras.len() {
        return Vec::new();
    }
    let mut all: Vec<Change> = Vec::new();
    let mut keep = |settings: Vec<(Setting, BigInt)>| {
        let changed = apply(terms, &settings);
        let after = accepted(&changed);
        let better = after.len() > before.len() && before.iter().all(|era| after.contains(era));
        if better && !all.iter().any(|change| change.settings == settings) {
            let eras = after.iter().filter_map(|era| Some((*era, timeouts(&changed, *era)?))).collect();
            all.push(Change { settings, eras });
        }
    };
    for era in eras.iter().filter(|era| !before.contains(era)) {
        for change in single(terms, *era) {
            keep(vec![change]);
        }
    }
    // The job itself, and with it every shorter one: a gateway pays for those that an orchestrator refuses as too short.
    for timeouts in [&[terms.timeout][..], &[terms.timeout, 1]] {
        repair(terms, eras, timeouts).map(&mut keep);
    }
    order::sort_by_key(&mut all, |change| (eras.len() - change.eras.len(), change.settings.len()));
    all
}

fn apply(terms: &Terms, settings: &[(Setting, BigInt)]) -> Terms {
    let mut changed = terms.clone();
    for (setting, value) in settings {
        setting.set(&mut changed, value);
    }
    changed
}

/// What may help against the check that refuses the job in this era, each as small as it can be.
fn single(terms: &Terms, era: Era) -> Vec<(Setting, BigInt)> {
    let outcome = job_outcome(terms, era);
    let mut all: Vec<(Setting, BigInt)> = repairs(terms, era);
    let price = best_price(terms, era, true).or_else(|| best_price(terms, era, false));
    all.extend(price.map(|price| (Setting::Price, price)));
    if let Some(ticket) = &outcome.ticket {
        let affordable = terms.deposit.div_floor(&terms.deposit_multiplier);
        match outcome.check {
            Check::MaxTicketEv => all.push((Setting::TicketEv, &terms.max_ticket_ev - 1)),
            Check::MinBalance if ticket.ev().is_positive() => all.push((Setting::TicketEv, minimum(&outcome.price))),
            Check::FaceValueOverDeposit => {
                all.push((Setting::MaxFaceValue, affordable));
                all.push((Setting::DepositMultiplier, terms.deposit.div_floor(&ticket.face_value)));
            }
            _ => {}
        }
    }
    if let Some((first, last)) = timeouts(terms, era) {
        all.push((Setting::Timeout, terms.timeout.clamp(first, last).into()));
    }
    all.retain(|(_, value)| value.is_positive());
    all
}

/// The balance that the orchestrator requires, in whole wei.
fn minimum(price: &BigRational) -> BigInt {
    ceil(&(price * BigRational::from_integer(MIN_UNITS.into())))
}

/// The highest price in whole wei, not above the present one, with which the job is accepted; `shorter`: and every
/// shorter one.
fn best_price(terms: &Terms, era: Era, shorter: bool) -> Option<BigInt> {
    let accepts = |price: &BigInt| {
        let changed = apply(terms, &[(Setting::Price, price.clone())]);
        let at = |timeout: u64| job_outcome(&Terms { timeout, ..changed.clone() }, era).check;
        let good = |check: Check| check.accepts() && check != Check::Free;
        good(at(terms.timeout)) && (!shorter || good(at(1)))
    };
    highest(&ceil(&terms.base_price()), accepts)
}

/// The settings that together make all of `eras` accept jobs of all these timeouts; it repairs one refusal
/// after the other.
fn repair(terms: &Terms, eras: &[Era], timeouts: &[u64]) -> Option<Vec<(Setting, BigInt)>> {
    let mut settings: Vec<(Setting, BigInt)> = Vec::new();
    for _ in 0..MOST_REPAIRS {
        let changed = apply(terms, &settings);
        let jobs = timeouts.iter().flat_map(|timeout| eras.iter().map(move |era| (era, *timeout)));
        // The asked timeout itself may be what is changed.
        let mut jobs =
            jobs.map(|(era, timeout)| (era, Terms { timeout: timeout.min(changed.timeout), ..changed.clone() }));
        let Some((era, job)) = jobs.find(|(era, job)| !job_outcome(job, **era).check.accepts()) else {
            return Some(settings);
        };
        let repaired = repairs(&job, *era);
        if repaired.is_empty() {
            return None;
        }
        for (setting, value) in repaired {
            settings.retain(|(known, _)| *known != setting);
            settings.push((setting, value));
        }
    }
    None
}

/// The changes that satisfy the check that refuses the job.
fn repairs(terms: &Terms, era: Era) -> Vec<(Setting, BigInt)> {
    let outcome = job_outcome(terms, era);
    let ticket = outcome.ticket.as_ref();
    let ev = ticket.map_or_else(BigRational::zero, |ticket| ticket.ev());
    let tickets = outcome.tickets.unwrap_or(0);
    match outcome.check {
        Check::Ok | Check::Free | Check::Covered => Vec::new(),
        Check::MaxTicketEv => vec![(Setting::MaxTicketEv, ceil(&ev))],
        // An orchestrator takes no more tickets for any sum.
        Check::MaxTotalEv | Check::Nonces if tickets > rules::MAX_TICKETS.into() => {
            let minutes = if era == Era::A { 60 } else { 1 };
            vec![(Setting::Timeout, (u64::from(rules::MAX_TICKETS) * minutes).into())]
        }
        Check::MaxTotalEv | Check::Nonces => {
            vec![(Setting::MaxTotalEv, ceil(&(ev * BigRational::from_integer(tickets.into()))))]
        }
        Check::SenderReserve | Check::FaceValueTooLow => larger_face_value(terms),
        Check::Deposit | Check::FaceValueOverDeposit => {
            let face_value = ticket.map(|ticket| ticket.face_value.clone()).unwrap_or_default();
            vec![(Setting::Deposit, (face_value * &terms.deposit_multiplier).max(BigInt::one()))]
        }
        Check::MinBalance => {
            let enough = |price: &BigInt| {
                let changed = apply(terms, &[(Setting::Price, price.clone())]);
                let at = |timeout: u64| job_outcome(&Terms { timeout, ..changed.clone() }, era).check;
                at(terms.timeout) != Check::MinBalance && at(1) != Check::MinBalance
            };
            match highest(&ceil(&terms.base_price()), enough).filter(|_| ev.is_positive() || tickets > 0) {
                Some(price) => vec![(Setting::Price, price)],
                None => vec![(Setting::TicketEv, minimum(&outcome.price))],
            }
        }
    }
}

/// The highest number from 1 to `most` for which `holds`, which turns from true to false at most once.
fn highest(most: &BigInt, holds: impl Fn(&BigInt) -> bool) -> Option<BigInt> {
    let (mut good, mut bad) = (BigInt::zero(), most + 1_u32);
    while &bad - &good > BigInt::one() {
        let middle: BigInt = (&good + &bad) / 2_u32;
        if holds(&middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(good).filter(Signed::is_positive)
}

/// Changes that allow a face value above the expected value.
pub(super) fn larger_face_value(terms: &Terms) -> Vec<(Setting, BigInt)> {
    let least = rules::least_face_value(terms);
    let mut settings = Vec::new();
    if terms.max_face_value.is_positive() && terms.max_face_value < least {
        settings.push((Setting::MaxFaceValue, least.clone()));
    }
    if terms.reserve_share() < least {
        settings.push((Setting::Reserve, terms.reserve_for(&least)));
    }
    if settings.is_empty() {
        // A hundred redemptions cost exactly one ticket's expected value.
        settings.push((Setting::TicketEv, &terms.ticket_ev - 1));
    }
    settings
}
