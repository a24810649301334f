//! The payment rules a second time, as plainly as they can be written, to compare the program with.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{FromPrimitive, One, Signed, ToPrimitive, Zero};
use serde_json::Value;

/// Everything that decides. Amounts in wei.
#[derive(Debug, Clone, PartialEq)]
pub struct Flags {
    pub price_per_unit: BigInt,
    pub price_scaling: BigInt,
    pub ticket_ev: BigInt,
    /// 0: no cap.
    pub max_face_value: BigInt,
    pub auto_adjust: bool,
    pub max_ticket_ev: BigInt,
    pub max_total_ev: BigInt,
    pub deposit_multiplier: BigInt,
    pub deposit: BigInt,
    pub reserve: BigInt,
    pub pool_size: BigInt,
    pub redeem_gas: BigInt,
    pub gas_price: BigInt,
    pub balance: BigInt,
    pub timeout: u64,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub check: &'static str,
    pub accepted: bool,
    pub price: BigRational,
    pub face_value: Option<BigInt>,
    pub win_prob: Option<BigInt>,
    pub ev: Option<BigRational>,
    pub tickets: Option<BigInt>,
    pub credit: Option<BigInt>,
}

fn rat(number: &BigInt) -> BigRational {
    BigRational::from_integer(number.clone())
}

fn small(number: i64) -> BigRational {
    BigRational::from_integer(number.into())
}

fn face_value(flags: &Flags) -> Option<BigInt> {
    let tx_cost = &flags.redeem_gas * &flags.gas_price;
    let mut value = BigInt::from(100) * &tx_cost;
    if value < flags.ticket_ev {
        value = BigInt::from(100) * &flags.ticket_ev;
    }
    let max_float = &flags.reserve / &flags.pool_size;
    if value > max_float {
        value = max_float;
    }
    if flags.max_face_value > BigInt::zero() && value > flags.max_face_value {
        value = flags.max_face_value.clone();
    }
    if value < flags.ticket_ev {
        return None;
    }
    if value < tx_cost && value < BigInt::from(3_000_000_000_u64) * &flags.redeem_gas {
        return None;
    }
    Some(value)
}

fn max_win_prob() -> BigInt {
    BigInt::from(2).pow(256) - 1
}

fn win_prob(ev: &BigInt, face_value: &BigInt) -> BigInt {
    if face_value.is_zero() {
        return BigInt::zero();
    }
    if face_value == ev {
        return max_win_prob();
    }
    let mut x = max_win_prob() / face_value;
    let m = max_win_prob() - &x * face_value;
    if m % BigInt::from(2).pow(64) != BigInt::zero() {
        x += 1;
    }
    ev * x
}

/// `new(big.Float).SetRat(x * 1000).Int64()` over 1000: all bits of the quotient by long division, rounded half to even.
fn fixed(price: &BigRational) -> BigRational {
    let scaled = price * small(1000);
    let precision = scaled.numer().bits().max(scaled.denom().bits()).max(64);
    // Only a value of at least a half can be rounded to another whole number.
    let whole_bits = scaled.trunc().to_integer().bits();
    let unit = BigRational::one() / rat(&BigInt::from(2).pow(u32::try_from(precision - whole_bits).unwrap()));
    let rounded = half_even(&(&scaled / &unit)) * unit;
    let whole = rounded.trunc().to_integer().min(BigInt::from(i64::MAX));
    BigRational::new(whole, 1000.into())
}

fn half_even(value: &BigRational) -> BigRational {
    let down = value.floor();
    let rest = value - &down;
    let half = BigRational::new(1.into(), 2.into());
    if rest > half || (rest == half && down.to_integer() % 2 == BigInt::one()) { down + small(1) } else { down }
}

/// The nearest float64: the two around the value are found by their bits.
fn float64(value: &BigRational) -> f64 {
    let exact = |f: f64| BigRational::from_float(f).unwrap();
    let mut below = value.to_f64().unwrap();
    while exact(below) > *value {
        below = below.next_down();
    }
    while exact(below.next_up()) <= *value {
        below = below.next_up();
    }
    let above = below.next_up();
    let (down, up) = (value - exact(below), exact(above) - value);
    if down < up || (down == up && below.to_bits().is_multiple_of(2)) { below } else { above }
}

/// The price of a second in this era, and whether a ticket can be made for it.
fn price(flags: &Flags, era: char, value: Option<&BigInt>) -> (BigRational, bool) {
    let scaling = if flags.price_scaling.is_zero() { BigInt::one() } else { flags.price_scaling.clone() };
    let mut price = BigRational::new(flags.price_per_unit.clone(), scaling);
    let mut made = true;
    if flags.auto_adjust {
        if price.is_positive() {
            let tx_cost = &flags.redeem_gas * &flags.gas_price;
            match value {
                None => made = false,
                Some(_) if tx_cost.is_zero() => {}
                Some(value) => price *= small(1) + BigRational::new(tx_cost, value.clone()),
            }
        }
        if made {
            price = fixed(&price);
        }
    } else if price.numer().to_i64().is_none() || price.denom().to_i64().is_none() {
        price = fixed(&price);
    }
    (if era == 'c' { price.floor() } else { price }, made)
}

/// How many tickets a gateway attaches.
fn tickets(flags: &Flags, era: char, cost: &BigRational, ev: &BigRational) -> BigInt {
    match era {
        'a' => BigInt::from(flags.timeout.div_ceil(60)),
        'b' => BigInt::from(flags.timeout),
        _ if ev.is_zero() => BigInt::zero(),
        _ => {
            let count = float64(&(cost / ev));
            BigInt::from(if count > 600.0 { 600 } else { count.ceil().to_i64().unwrap() })
        }
    }
}

/// Why a gateway makes no tickets of this value; "ok" when it does.
fn refusal(flags: &Flags, value: &BigInt, ev: &BigRational, total: &BigRational) -> &'static str {
    if !ev.is_positive() {
        "ok"
    } else if *ev >= rat(value) {
        "faceValueTooLow"
    } else if *ev > rat(&flags.max_ticket_ev) {
        "maxTicketEV"
    } else if flags.reserve.is_zero() {
        "senderReserve"
    } else if flags.deposit.is_zero() {
        "deposit"
    } else if *total > rat(&flags.max_total_ev) {
        "maxTotalEV"
    } else if *value > &flags.deposit / &flags.deposit_multiplier {
        "faceValueOverDeposit"
    } else {
        "ok"
    }
}

/// What becomes of a job in era 'a', 'b' or 'c'.
pub fn answer(flags: &Flags, era: char) -> Answer {
    let value = face_value(flags);
    let (price, made) = price(flags, era, value.as_ref());
    let mut answer = Answer {
        check: "ok",
        accepted: false,
        price: price.clone(),
        face_value: None,
        win_prob: None,
        ev: None,
        tickets: None,
        credit: None,
    };
    if made && !price.is_positive() {
        (answer.check, answer.accepted) = ("free", true);
        (answer.tickets, answer.credit) = (Some(BigInt::zero()), Some(BigInt::zero()));
        return answer;
    }
    let Some(value) = value.filter(|_| made) else {
        answer.check = "senderReserve";
        return answer;
    };
    let odds = win_prob(&flags.ticket_ev, &value);
    let ev = BigRational::new(&value * &odds, max_win_prob());
    (answer.face_value, answer.win_prob, answer.ev) = (Some(value.clone()), Some(odds), Some(ev.clone()));

    let minimum = small(60) * &price;
    let cost = small(i64::try_from(flags.timeout).unwrap()) * &price;
    let mut balance = rat(&flags.balance);
    if era == 'c' && balance > small(9_223_372_036_854_775) {
        balance = small(9_223_372_036_854_775);
    }
    let covered = if era == 'c' { balance >= small(120) * &price } else { balance > cost };
    if covered {
        answer.accepted = balance >= minimum;
        answer.check = if answer.accepted { "covered" } else { "minBalance" };
        (answer.tickets, answer.credit) = (Some(BigInt::zero()), Some(BigInt::zero()));
        return answer;
    }
    let tickets = tickets(flags, era, &cost, &ev);
    answer.tickets = Some(tickets.clone());
    let total = rat(&tickets) * &ev;
    answer.check = match refusal(flags, &value, &ev, &total) {
        "ok" if tickets > BigInt::from(600) => "nonces",
        check => check,
    };
    if answer.check != "ok" {
        return answer;
    }
    answer.credit = Some(total.floor().to_integer());
    if era == 'c' && (tickets.is_zero() || balance + total < minimum) {
        answer.check = "minBalance";
        return answer;
    }
    answer.accepted = true;
    answer
}

/// Those of these timeouts that are accepted, by trying each one.
pub fn timeouts(flags: &Flags, era: char, all: &[u64]) -> Vec<u64> {
    let accepts = |timeout: &u64| answer(&Flags { timeout: *timeout, ..flags.clone() }, era).accepted;
    all.iter().copied().filter(accepts).collect()
}

/// A case of the vectors: its flags and era.
pub fn from_vector(input: &Value) -> (Flags, char) {
    let get = |name: &str, default: i64| match &input[name] {
        Value::Null => BigInt::from(default),
        Value::String(text) => text.parse().unwrap(),
        // Powers of ten beyond 64 bits, which a float64 holds exactly.
        number => number.as_u64().map_or_else(|| BigInt::from_f64(number.as_f64().unwrap()).unwrap(), BigInt::from),
    };
    let flags = Flags {
        price_per_unit: get("price_per_unit", 0),
        price_scaling: get("price_scaling", 1),
        ticket_ev: get("ticketEV", 0),
        max_face_value: get("maxFaceValue", 0),
        auto_adjust: input["autoAdjust"].as_bool().unwrap(),
        max_ticket_ev: get("maxTicketEV", 0),
        max_total_ev: get("maxTotalEV", 0),
        deposit_multiplier: get("depositMultiplier", 1),
        deposit: get("deposit", 0),
        reserve: get("reserve", 0),
        pool_size: get("pool", 100),
        redeem_gas: get("redeem_gas", 1_200_000),
        gas_price: get("gas_price", 0),
        balance: get("balance", 0),
        timeout: input["timeout_seconds"].as_u64().unwrap(),
    };
    (flags, input["era"].as_str().unwrap().to_ascii_lowercase().chars().next().unwrap())
}
