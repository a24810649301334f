//! A ticket's odds: 256-bit fixed point as go-livepeer computes it (`pm/recipient.go`, `pm/ticket.go`).

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};
use serde::Serialize;

use super::amount::{decimal, floor, max_uint256, ratio, shown};
use crate::sys::order;
use crate::sys::text::counted;

/// Fraction bits while chances are multiplied; 6 digits are shown.
const FRACTION: u32 = 512;

/// The probability of winning that gives `face_value` an expected value of `ticket_ev`, in wei; as a number of which
/// 2^256 - 1 is certainty. A ticket wins when its draw is below it.
///
/// Go rounds the quotient up when the low 64 bits of the remainder are not zero, so that the expected value ends slightly
/// above `ticket_ev`.
pub(crate) fn win_prob(ticket_ev: &BigInt, face_value: &BigInt) -> BigInt {
    if face_value.is_zero() {
        return BigInt::zero();
    }
    if face_value == ticket_ev {
        return max_uint256();
    }
    let (mut quotient, rest) = max_uint256().div_mod_floor(face_value);
    if !(rest & BigInt::from(u64::MAX)).is_zero() {
        quotient += 1;
    }
    ticket_ev * quotient
}

/// A ticket's average value, in wei.
pub(crate) fn expected_value(face_value: &BigInt, win_prob: &BigInt) -> BigRational {
    ratio(face_value * win_prob, max_uint256())
}

/// The chance that one ticket wins: how many of all 2^256 draws are below `win_prob`.
pub(crate) fn probability(win_prob: &BigInt) -> BigRational {
    let draws = BigInt::one() << 256_u32;
    ratio(win_prob.clone().min(draws.clone()), draws)
}

/// The chance that none of `tickets` wins; exact to far more digits than are shown.
pub(crate) fn no_win(win_prob: &BigInt, tickets: u64) -> BigRational {
    let one = BigInt::one() << FRACTION;
    let mut square = (&one - (win_prob << (FRACTION - 256))).max(BigInt::zero());
    let mut chance = one.clone();
    let mut left = tickets;
    while left > 0 {
        if left & 1 == 1 {
            chance = (chance * &square) >> FRACTION;
        }
        square = (&square * &square) >> FRACTION;
        left >>= 1;
    }
    ratio(chance, one)
}

/// What `pm winprob` prints. Large numbers are decimal strings, fractions `n/d`.
#[derive(Debug, Serialize)]
pub(crate) struct Odds {
    ticket_ev: String,
    face_value: String,
    /// Of 2^256 - 1.
    win_prob: String,
    win_prob_hex: String,
    probability: String,
    one_in: String,
    /// The exact expected value: slightly above `ticket_ev`.
    ev: String,
    ev_floor: String,
    /// Tickets paid on average until one wins.
    tickets_per_win: String,
    no_win: Vec<NoWin>,
}

/// The chance that none of `tickets` wins.
#[derive(Debug, Serialize)]
struct NoWin {
    tickets: u64,
    chance: String,
}

/// Numbers of tickets for which the chance of no win is shown, as multiples of the tickets per win.
const MULTIPLES: [u32; 4] = [1, 2, 3, 5];
const DIGITS: u32 = 12;

impl Odds {
    /// The odds of tickets with an expected value of `ticket_ev`. `tickets`: one more number of tickets to show the chance of no
    /// win for.
    ///
    /// # Errors
    /// Unless 0 < ticket_ev <= face_value.
    pub(crate) fn of(ticket_ev: &BigInt, face_value: &BigInt, tickets: Option<u64>) -> Result<Self, String> {
        if ticket_ev.is_zero() {
            return Err("--ticket-ev=0: must be above 0: 0 < ticket EV <= face value".into());
        }
        if ticket_ev > face_value {
            let why = "since a probability is at most 1";
            return Err(format!("--ticket-ev={ticket_ev}: must not be above --face-value={face_value}, {why}"));
        }
        let win_prob = win_prob(ticket_ev, face_value);
        let (chance, ev) = (probability(&win_prob), expected_value(face_value, &win_prob));
        let one_in = chance.recip();
        let mut numbers: Vec<u64> = std::iter::once(1)
            .chain(MULTIPLES.iter().filter_map(|times| (&one_in * ratio(*times, 1)).ceil().to_integer().to_u64()))
            .chain(tickets)
            .collect();
        order::sort(&mut numbers);
        numbers.dedup();
        let no_win = |tickets: u64| NoWin { tickets, chance: decimal(&no_win(&win_prob, tickets), 6) };
        Ok(Self {
            ticket_ev: ticket_ev.to_string(),
            face_value: face_value.to_string(),
            win_prob_hex: format!("0x{win_prob:064x}"),
            probability: decimal(&chance, DIGITS),
            one_in: decimal(&one_in, DIGITS),
            ev: ev.to_string(),
            ev_floor: floor(&ev).to_string(),
            tickets_per_win: decimal(&one_in, DIGITS),
            no_win: numbers.into_iter().map(no_win).collect(),
            win_prob: win_prob.to_string(),
        })
    }

    pub(crate) fn json(&self) -> String {
        // Only strings, numbers and lists: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    pub(crate) fn text(&self) -> String {
        let wei = |text: &str| format!("{text} wei ({})", shown(&text.parse().unwrap_or_default()));
        let mut out = String::new();
        for (name, value) in [
            ("ticket EV", wei(&self.ticket_ev)),
            ("face value", wei(&self.face_value)),
            ("winProb", self.win_prob.clone()),
            ("", self.win_prob_hex.clone()),
            ("probability", self.probability.clone()),
            ("wins", format!("1 in {} tickets", self.one_in)),
        ] {
            out.push_str(&format!("{name:<12}{value}\n"));
        }
        for row in &self.no_win {
            out.push_str(&format!("no win in {}: {}\n", counted(row.tickets, "ticket"), row.chance));
        }
        out
    }
}

#[test]
fn the_chance_of_no_win() {
    use super::amount::parse;
    let odds = win_prob(&parse("29000000000000").unwrap(), &parse("0.001eth").unwrap());
    for (tickets, chance) in [(0, "1"), (1, "0.971"), (34, "0.368"), (100, "0.0527"), (1000, "0.000000000000166")] {
        assert_eq!(decimal(&no_win(&odds, tickets), 3), chance, "{tickets}");
    }
}
