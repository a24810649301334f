//! Amounts of money: read as whole wei with or without a unit, shown with a unit; odds and shares as rounded decimals.

use std::ops::Mul;

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// Units, with their power of ten.
const UNITS: &[(&str, u32)] = &[("wei", 0), ("gwei", 9), ("eth", 18), ("ether", 18)];

/// 2^256 - 1: the largest number a ticket can hold.
pub(crate) fn max_uint256() -> BigInt {
    (BigInt::one() << 256_u32) - 1
}

/// `n / d` as an exact fraction; `d` must not be 0.
pub(crate) fn ratio(n: impl Into<BigInt>, d: impl Into<BigInt>) -> BigRational {
    BigRational::new(n.into(), d.into())
}

/// The smallest whole number that is not below `value`.
pub(crate) fn ceil(value: &BigRational) -> BigInt {
    value.ceil().to_integer()
}

/// The largest whole number that is not above `value`.
pub(crate) fn floor(value: &BigRational) -> BigInt {
    value.floor().to_integer()
}

/// Parses `29000000000000`, `18gwei`, `0.001eth`; spaces before the unit do not count.
///
/// # Errors
/// What is valid, unless it is a whole number of wei from 0 to 2^256 - 1.
pub(crate) fn parse(text: &str) -> Result<BigInt, String> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[number.len()..].to_ascii_lowercase();
    let number = number.trim_end();
    let power = if unit.is_empty() { Some(0) } else { UNITS.iter().find(|(name, _)| *name == unit).map(|(_, p)| *p) };
    let valid = "must be whole wei or an amount such as 18gwei or 0.001eth";
    let power = power.ok_or(valid)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || number.ends_with('.') || number.len() > 100 {
        return Err(valid.into());
    }
    let part = part.trim_end_matches('0');
    let missing = power.checked_sub(u32::try_from(part.len()).unwrap_or(u32::MAX));
    let missing = missing.ok_or_else(|| format!("is not a whole number of wei; {valid}"))?;
    let digits = BigUint::parse_bytes(format!("{whole}{part}").as_bytes(), 10).ok_or(valid)?;
    let wei = BigInt::from_biguint(Sign::Plus, digits * BigUint::from(10_u32).pow(missing));
    if wei > max_uint256() {
        return Err("must be at most 2^256 - 1, which is what a ticket can hold".into());
    }
    Ok(wei)
}

/// `wei` as people write it, exactly: `0.001 ETH`, `29,000 gwei`, `999 wei`.
pub(crate) fn shown(wei: &BigInt) -> String {
    let (unit, power) = match wei.abs() {
        abs if abs >= BigInt::from(10_u64.pow(14)) => ("ETH", 18),
        abs if abs >= BigInt::from(10_u64.pow(7)) => ("gwei", 9),
        _ => ("wei", 0),
    };
    format!("{} {unit}", grouped(&exact(wei, power)))
}

/// `wei` as people write it, rounded up to five digits: what is needed, or lost at most.
pub(crate) fn shown_rounded_up(wei: &BigInt) -> String {
    const DIGITS: usize = 5;
    let more = u32::try_from(wei.to_string().len().saturating_sub(DIGITS)).unwrap_or_default();
    let unit = BigInt::from(10).pow(more);
    shown(&(wei.div_ceil(&unit) * unit))
}

/// A decimal number with commas between thousands, from five digits on.
pub(crate) fn grouped(number: &str) -> String {
    let (whole, part) = number.split_once('.').map_or((number, None), |(whole, part)| (whole, Some(part)));
    let digits = whole.trim_start_matches('-').len();
    let mut out = String::new();
    for (at, c) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if digits >= 5 && left % 3 == 0 && out.ends_with(|c: char| c.is_ascii_digit()) {
            out.push(',');
        }
        out.push(c);
    }
    part.map_or(out.clone(), |part| format!("{out}.{part}"))
}

/// `number / 10^power` with all its decimals.
fn exact(number: &BigInt, power: u32) -> String {
    let (whole, part) = number.abs().div_rem(&BigInt::from(10).pow(power));
    let sign = if number.is_negative() { "-" } else { "" };
    let part = format!("{part:0>width$}", width = power as usize);
    let part = part.trim_end_matches('0');
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// `value` rounded to `digits` significant digits; a non-negative number.
pub(crate) fn decimal(value: &BigRational, digits: u32) -> String {
    if value.is_zero() {
        return "0".into();
    }
    // 10^power is the largest power of ten that is not above the value.
    let mut power = 0_i32;
    let ten = BigRational::from_integer(10.into());
    let mut scaled = value.clone();
    while scaled >= ten {
        scaled /= &ten;
        power += 1;
    }
    while scaled < BigRational::one() {
        scaled *= &ten;
        power -= 1;
    }
    let digits = i32::try_from(digits).unwrap_or(i32::MAX);
    let places = digits - 1 - power;
    let unit = BigInt::from(10).pow(places.unsigned_abs());
    if places <= 0 {
        return (value / BigRational::from_integer(unit.clone())).round().to_integer().mul(unit).to_string();
    }
    let rounded = (value * BigRational::from_integer(unit)).round().to_integer();
    exact(&rounded, places.unsigned_abs())
}

#[test]
fn amounts_with_and_without_units() {
    for (text, wei) in [
        ("29000000000000", "29000000000000"),
        ("18gwei", "18000000000"),
        (" 18 Gwei ", "18000000000"),
        ("0.001eth", "1000000000000000"),
        ("1.50ETH", "1500000000000000000"),
        ("0", "0"),
        ("7wei", "7"),
        ("0.000000000000000001ether", "1"),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), wei, "{text}");
    }
    for text in
        ["", "-1", "+1", "1.5", "0.0000000001gwei", "1e18", "0x10", "1_000", "1.gwei", ".5eth", "5 lpt", "1,5eth"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(parse(&max_uint256().to_string()).is_ok());
    assert!(parse(&(max_uint256() + 1_u32).to_string()).is_err());
    assert!(parse(&"9".repeat(100_000)).is_err());
}

#[test]
fn shown_amounts_lose_nothing() {
    for (wei, text) in [
        ("0", "0 wei"),
        ("999", "999 wei"),
        ("18000000000", "18 gwei"),
        ("10000000", "0.01 gwei"),
        ("29000000000001", "29,000.000000001 gwei"),
        ("9999000000000", "9999 gwei"),
        ("1234567000000000000000000", "1,234,567 ETH"),
        ("-1234567000000000000000000", "-1,234,567 ETH"),
        ("1000000000000000", "0.001 ETH"),
        ("-1000000000000000", "-0.001 ETH"),
    ] {
        assert_eq!(shown(&wei.parse().unwrap()), text);
    }
}

#[test]
fn rounded_amounts_are_never_too_small() {
    for (wei, text) in [
        ("0", "0 wei"),
        ("28516666666667", "28,517 gwei"),
        ("2900000000000100", "0.0029001 ETH"),
        ("1200000000000000", "0.0012 ETH"),
        ("99999", "99,999 wei"),
    ] {
        assert_eq!(shown_rounded_up(&wei.parse().unwrap()), text);
    }
}

#[test]
fn decimals_are_rounded() {
    for (n, d, digits, text) in [
        (1_i64, 10, 6, "0.1"),
        (2, 3, 4, "0.6667"),
        (29, 1000, 6, "0.029"),
        (2, 3_000_000, 3, "0.000000667"),
        (123_456, 1, 3, "123000"),
        (123_456, 1, 9, "123456"),
        (69, 2, 6, "34.5"),
        (9_999_999, 10_000_000, 3, "1"),
    ] {
        assert_eq!(decimal(&ratio(n, d), digits), text);
    }
}
