//! Sums of payments, by result. Expected values are exact fractions, most of them with the divisor 2^256 - 1: those are
//! added as whole numbers, since a common divisor for each of a hundred thousand payments takes seconds.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::livepeer::payments::amount::{floor, max_uint256, ratio};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Totals {
    pub(crate) by_result: BTreeMap<String, Sum>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) payments: i64,
    pub(crate) tickets: i64,
    /// Expected value in wei: on disk a whole number or `n/d`.
    pub(crate) ev: Ev,
}

/// An expected value in wei, exact.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ev {
    /// Parts of 2^256 - 1.
    parts: BigInt,
    /// What is not a whole number of parts.
    rest: Option<BigRational>,
}

impl PartialEq for Ev {
    fn eq(&self, other: &Self) -> bool {
        self.exact() == other.exact()
    }
}

impl Ev {
    /// From a whole number or `n/d`; otherwise 0: the file may hold anything.
    pub(crate) fn parse(text: &str) -> Self {
        let (n, d) = text.split_once('/').unwrap_or((text, "1"));
        let number = |text: &str| text.parse::<BigInt>().ok();
        let Some((n, d)) = number(n).zip(number(d).filter(|d| !d.is_zero())) else { return Self::default() };
        let (times, none) = max_uint256().div_rem(&d);
        if none.is_zero() {
            return Self { parts: n * times, rest: None };
        }
        Self { parts: BigInt::ZERO, rest: Some(ratio(n, d)) }
    }

    /// Adds another value `times` times.
    pub(super) fn add(&mut self, times: i64, other: &Self) {
        self.parts += &other.parts * times;
        if let Some(rest) = &other.rest {
            let sum = self.exact_rest() + rest * BigRational::from_integer(times.into());
            self.rest = Some(sum).filter(|sum| !sum.is_zero());
        }
    }

    fn exact_rest(&self) -> BigRational {
        self.rest.clone().unwrap_or_else(BigRational::zero)
    }

    pub(crate) fn exact(&self) -> BigRational {
        ratio(self.parts.clone(), max_uint256()) + self.exact_rest()
    }

    /// Whole wei.
    pub(crate) fn floor(&self) -> BigInt {
        match &self.rest {
            None => self.parts.div_floor(&max_uint256()),
            Some(_) => floor(&self.exact()),
        }
    }
}

impl Serialize for Ev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.exact())
    }
}

impl<'de> Deserialize<'de> for Ev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::parse(&text))
    }
}

impl Totals {
    /// Adds or subtracts payments with `tickets` each.
    pub(super) fn change(&mut self, result: &str, payments: i64, tickets: u32, ev: &Ev) {
        let tickets = payments.saturating_mul(tickets.into());
        self.add_sum(result, payments, tickets, tickets, ev);
    }

    fn add_sum(&mut self, result: &str, payments: i64, tickets: i64, times: i64, ev: &Ev) {
        let sum = match self.by_result.get_mut(result) {
            Some(sum) => sum,
            None => self.by_result.entry(result.to_owned()).or_default(),
        };
        // The file may hold anything.
        sum.payments = sum.payments.saturating_add(payments);
        sum.tickets = sum.tickets.saturating_add(tickets);
        sum.ev.add(times, ev);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        for (result, sum) in &other.by_result {
            self.add_sum(result, sum.payments, sum.tickets, 1, &sum.ev);
        }
    }

    pub(crate) fn tickets(&self, result: &str) -> i64 {
        self.by_result.get(result).map_or(0, |sum| sum.tickets)
    }

    /// Wei, as a float64.
    pub(crate) fn ev(&self, result: &str) -> f64 {
        self.by_result.get(result).and_then(|sum| sum.ev.exact().to_f64()).unwrap_or(0.0)
    }
}

#[test]
fn expected_values_are_exact_whatever_their_divisor() {
    for text in [
        "0",
        "7/2",
        "29000000000000",
        "1/3",
        "-5/3",
        "1/115792089237316195423570985008687907853269984665640564039457584007913129639935",
    ] {
        assert_eq!(Ev::parse(text).exact().to_string(), text);
    }
    for junk in ["", "x", "1/0", "1/", "/2", "1/2/3", "0x10"] {
        assert_eq!(Ev::parse(junk), Ev::default(), "{junk}");
    }
    let mut sum = Ev::parse("1/3");
    sum.add(3, &Ev::parse("7/2"));
    sum.add(2, &Ev::parse("1/3"));
    assert_eq!((sum.exact().to_string(), sum.floor()), ("23/2".into(), 11.into()));
    sum.add(-3, &Ev::parse("7/2"));
    assert_eq!(sum, Ev::parse("1"));
}

#[test]
fn sums_that_a_file_makes_too_large_stay_at_the_largest_number() {
    let sum = |count: i64| Sum { payments: count, tickets: count, ev: Ev::parse("1") };
    let mut totals = Totals::default();
    for count in [i64::MAX, 5] {
        totals.add_all(&Totals { by_result: [("accepted".to_owned(), sum(count))].into() });
    }
    assert_eq!(totals.tickets("accepted"), i64::MAX);
    let mut totals = Totals::default();
    totals.change("accepted", i64::MIN, u32::MAX, &Ev::parse("1"));
}
