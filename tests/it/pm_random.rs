//! Random flags: the program's rules against the second implementation, its proposals against both.

use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::Value;

use crate::pm::finding;
use crate::pm_naive::{self, Flags};

fn flags() -> impl Strategy<Value = Flags> {
    let wei = |digits: std::ops::Range<u32>| {
        (digits, 1_u64..100).prop_map(|(d, n)| BigInt::from(n) * BigInt::from(10).pow(d))
    };
    let orchestrator = (wei(8..16), prop_oneof![Just(BigInt::ZERO), wei(11..17)], any::<bool>());
    let gateway = (wei(10..16), wei(11..18), 1_u32..4);
    let chain = (wei(3..10), wei(10..20), wei(10..21), 1_u32..300, prop_oneof![Just(BigInt::ZERO), wei(8..17)]);
    let worker = (prop_oneof![wei(0..15), (-9_i64..9).prop_map(BigInt::from)], -3_i64..2000);
    (worker, orchestrator, gateway, chain, 1_u64..900).prop_map(
        |(
            (price, scaling),
            (ev, cap, auto_adjust),
            (most, total, multiplier),
            (gas, deposit, reserve, pool, balance),
            timeout,
        )| Flags {
            price_per_unit: price,
            price_scaling: scaling.into(),
            ticket_ev: ev,
            max_face_value: cap,
            auto_adjust,
            max_ticket_ev: most,
            max_total_ev: total,
            deposit_multiplier: multiplier.into(),
            deposit,
            reserve,
            pool_size: pool.into(),
            redeem_gas: 1_200_000.into(),
            gas_price: gas,
            balance,
            timeout,
        },
    )
}

/// Where the rules turn: one value is moved to what the others make of it, or next to it.
fn tuned() -> impl Strategy<Value = Flags> {
    let tune = (0..13_u8, -1_i64..=1);
    (flags(), prop::collection::vec(tune, 0..3)).prop_map(|(flags, tunes)| tunes.into_iter().fold(flags, tune_one))
}

fn tune_one(mut flags: Flags, (which, off): (u8, i64)) -> Flags {
    let off = BigInt::from(off);
    let price = |era, flags: &Flags| -> BigInt { pm_naive::answer(flags, era).price.ceil().to_integer() };
    let cost = &flags.redeem_gas * &flags.gas_price;
    match which {
        0 => flags.ticket_ev = (BigInt::from(100) * cost + off).max(1.into()),
        1 => flags.balance = (price('b', &flags) * flags.timeout + off).max(0.into()),
        2 => flags.balance = (price('c', &flags) * 120_u32 + off).max(0.into()),
        3 => flags.balance = (price('c', &flags) * 60_u32 + off).max(0.into()),
        4 => flags.max_face_value = &flags.ticket_ev + off,
        5 => flags.max_face_value = (cost + off).max(0.into()),
        6 => flags.max_face_value = &flags.redeem_gas * 3_000_000_000_u64 + off,
        7 => flags.reserve = (&flags.ticket_ev + off) * &flags.pool_size,
        8 => {
            let value = pm_naive::answer(&flags, 'b').face_value.unwrap_or_default();
            flags.deposit = (value * &flags.deposit_multiplier + off).max(0.into());
        }
        9 => flags.max_ticket_ev = &flags.ticket_ev + off,
        10 => flags.max_total_ev = &flags.ticket_ev * flags.timeout + off,
        11 => {
            // As much as a token can tell of a balance, and a price at which that is not plenty.
            flags.balance = BigInt::from(9_223_372_036_854_775_u64) + off;
            (flags.price_per_unit, flags.price_scaling) = (&flags.balance / 120_u32 + 1_u32, 1.into());
        }
        // As much as a price can be in thousandths.
        _ => (flags.price_per_unit, flags.price_scaling) = (BigInt::from(9_223_372_036_854_775_u64) + off, 1.into()),
    }
    flags
}

/// The flags with what a suggestion sets.
fn changed(flags: &Flags, change: &Value) -> Flags {
    let mut flags = flags.clone();
    for one in change["set"].as_array().unwrap() {
        let value: BigInt = one["value"].as_str().unwrap().parse().unwrap();
        match one["name"].as_str().unwrap() {
            "CAPABILITY_PRICE_PER_UNIT" => (flags.price_per_unit, flags.price_scaling) = (value, 1.into()),
            "-ticketEV" => flags.ticket_ev = value,
            "-maxFaceValue" => flags.max_face_value = value,
            "-maxTicketEV" => flags.max_ticket_ev = value,
            "-maxTotalEV" => flags.max_total_ev = value,
            "-depositMultiplier" => flags.deposit_multiplier = value,
            "deposit" => flags.deposit = value,
            "reserve" => flags.reserve = value,
            "timeout" => flags.timeout = u64::try_from(value).unwrap(),
            other => panic!("{other}"),
        }
    }
    flags
}

/// Cases of each property: AGENT_NET_CASES, for a long run.
fn config() -> ProptestConfig {
    let cases = std::env::var("AGENT_NET_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_flags_against_the_second_implementation(flags in tuned(), era in prop::sample::select(vec!['a', 'b', 'c'])) {
        let found = finding(&flags, era);
        let (ours, naive) = (&found["eras"][0], pm_naive::answer(&flags, era));
        let text = |value: Option<String>| value.map_or(Value::Null, Value::String);
        prop_assert_eq!(&ours["check"], naive.check);
        prop_assert_eq!(&ours["accepted"], naive.accepted);
        prop_assert_eq!(&ours["price"], &naive.price.to_string());
        prop_assert_eq!(&ours["face_value"], &text(naive.face_value.map(|n| n.to_string())));
        prop_assert_eq!(&ours["win_prob"], &text(naive.win_prob.map(|n| n.to_string())));
        prop_assert_eq!(&ours["ev"], &text(naive.ev.map(|n| n.to_string())));
        prop_assert_eq!(ours["tickets"].as_u64().map(BigInt::from), naive.tickets);
        prop_assert_eq!(&ours["credit"], &text(naive.credit.map(|n| n.to_string())));
        // Timeouts, one by one.
        let all: Vec<u64> = (1..=125).chain(590..=610).chain([3600, 35_999, 36_000, 36_001, 100_000]).collect();
        let accepted = pm_naive::timeouts(&flags, era, &all);
        let range = ours["shortest_timeout"].as_u64().zip(ours["longest_timeout"].as_u64());
        let inside = |timeout: &u64| range.is_some_and(|(first, last)| (first..=last).contains(timeout));
        let expected: Vec<u64> = all.into_iter().filter(inside).collect();
        prop_assert_eq!(accepted, expected);
        // The deposit that is reported is enough, and one wei less is not.
        let with_deposit = |deposit: BigInt| pm_naive::answer(&Flags { deposit, ..flags.clone() }, era);
        if let Some(needed) = found["needed_deposit"].as_str() {
            let needed: BigInt = needed.parse().unwrap();
            let enough = with_deposit(needed.clone());
            prop_assert!(!matches!(enough.check, "deposit" | "faceValueOverDeposit"), "{:?}", enough);
            if enough.check == "ok" {
                prop_assert!(matches!(with_deposit(needed - 1).check, "deposit" | "faceValueOverDeposit"));
            }
        }
        // What is proposed passes by both; where something is refused, something is proposed.
        let changes = found["changes"].as_array().unwrap();
        prop_assert_eq!(changes.is_empty(), naive.accepted);
        for change in changes {
            let changed = pm_naive::answer(&changed(&flags, change), era);
            prop_assert!(changed.accepted, "{}: {:?}", change, changed);
        }
    }
}
