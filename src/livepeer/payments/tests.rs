//! go-livepeer's own numbers and those of an independent implementation: `tests/it/vectors/pm_vectors.json`.

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use proptest::prelude::*;
use prost::Message;
use serde_json::Value;

use super::amount::{max_uint256, ratio};
use super::odds::{expected_value, win_prob};
use super::payment::Payment;
use super::rules::{self, Check, job_outcome, tickets_for};
use super::terms::{Era, Terms};
use super::ticket::{Address, Hash, Ticket, hex, number, right_aligned};
use super::{advice, protobuf};
use crate::tests::config;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/it/vectors/pm_vectors.json")).unwrap()
}

/// A number, written as one or as text.
fn int(value: &Value) -> BigInt {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().unwrap_or_else(|_| panic!("{value} is not a number"))
}

fn fraction(value: &Value) -> BigRational {
    value.as_str().unwrap().parse().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().trim_start_matches("0x");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn list(value: &Value, least: usize) -> &Vec<Value> {
    let list = value.as_array().unwrap();
    assert!(list.len() >= least, "{} are too few", list.len());
    list
}

fn ticket(value: &Value) -> Ticket {
    Ticket {
        recipient: Address(right_aligned(&bytes(&value["recipient"]))),
        sender: Address(right_aligned(&bytes(&value["sender"]))),
        face_value: int(&value["face_value"]),
        win_prob: int(&value["win_prob"]),
        nonce: u32::try_from(value["sender_nonce"].as_u64().unwrap()).unwrap(),
        recipient_rand_hash: right_aligned(&bytes(&value["recipient_rand_hash"])),
        creation_round: value["creation_round"].as_i64().unwrap(),
        creation_round_block_hash: right_aligned(&bytes(&value["creation_round_block_hash"])),
    }
}

#[test]
fn odds_to_the_last_digit() {
    for case in list(&vectors()["win_prob"], 7) {
        let (ev, face_value) = (int(&case["ticket_ev"]), int(&case["face_value"]));
        let odds = win_prob(&ev, &face_value);
        assert_eq!(odds, int(&case["win_prob"]), "{case}");
        let above = expected_value(&face_value, &odds) > BigRational::from_integer(ev);
        assert_eq!(above, case["ev_exceeds_ticket_ev"].as_bool().unwrap(), "{case}");
    }
    for case in list(&vectors()["go_livepeer"]["ev"]["cases"], 4) {
        let odds = match case["win_prob"].as_str().unwrap() {
            "maxWinProb" => max_uint256(),
            half if half.starts_with("maxWinProb/2") => max_uint256() / 2_u32,
            number => number.parse().unwrap(),
        };
        let ev = expected_value(&int(&case["face_value"]), &odds);
        assert_eq!(ev.round().to_integer(), int(&case["ev_rounded"]), "{case}");
    }
    // 487 * 2^64 are left over, and Go looks at the low 64 bits of what is left only.
    let face_value: BigInt = "381269919826193093444063".parse().unwrap();
    assert_eq!(max_uint256() % &face_value, BigInt::from(487_u32) << 64_u32);
    assert_eq!(win_prob(&1.into(), &face_value), max_uint256() / &face_value);
}

#[test]
fn a_draw_of_exactly_the_odds_loses() {
    let mut ticket = ticket(&vectors()["tickets"][0]);
    let draw =
        BigInt::from_bytes_be(Sign::Plus, &super::ticket::keccak(&[&[1; 65], &super::ticket::uint256(&7.into())]));
    ticket.win_prob.clone_from(&draw);
    assert!(!ticket.wins(&[1; 65], &7.into()));
    ticket.win_prob = draw + 1_u32;
    assert!(ticket.wins(&[1; 65], &7.into()));
}

#[test]
fn headers_are_about_as_long_as_estimated() {
    let field = |bytes: usize| vec![0xff; bytes];
    for tickets in [0, 1, 127, 128, 600] {
        let payment = protobuf::Payment {
            ticket_params: Some(protobuf::TicketParams {
                recipient: field(20),
                face_value: field(7),
                win_prob: field(32),
                recipient_rand_hash: field(32),
                seed: field(32),
                expiration_block: field(4),
                expiration_params: Some(protobuf::TicketExpirationParams {
                    creation_round: 3500,
                    creation_round_block_hash: field(32),
                }),
            }),
            sender: field(20),
            expiration_params: Some(protobuf::TicketExpirationParams {
                creation_round: 3500,
                creation_round_block_hash: field(32),
            }),
            ticket_sender_params: (1..=tickets)
                .map(|sender_nonce| protobuf::TicketSenderParams { sender_nonce, sig: field(65) })
                .collect(),
            expected_price: Some(protobuf::PriceInfo {
                price_per_unit: 483_333_333_333,
                pixels_per_unit: 1,
                ..Default::default()
            }),
        };
        let (real, foretold) = (header(&payment).len() as u64, super::figures::header_characters(tickets.into()));
        assert!(real.abs_diff(foretold) <= 16 && foretold % 4 == 0, "{tickets}: {real} and not {foretold}");
    }
}

#[test]
fn hashes_of_go_livepeer() {
    for case in list(&vectors()["go_livepeer"]["ticket_hash"]["cases"], 7) {
        assert_eq!(hex(&ticket(case).hash()), case["hash"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn a_signature_of_go_livepeer() {
    let case = &vectors()["go_livepeer"]["signature"];
    let sender = Address(right_aligned(&bytes(&case["address"])));
    let signed = Ticket { sender, ..ticket(&vectors()["tickets"][0]) };
    let message: Hash = right_aligned(&bytes(&case["message"]));
    let signer = signed.signer(&message, &bytes(&case["signature"]));
    assert_eq!((signer.address, signer.fault), (Some(sender), None));
    let high = signed.signer(&message, &bytes(&case["must_fail_high_s"]));
    assert_eq!(high.fault, Some("its s is in the upper half of the order"));
    assert_eq!(sender.to_string(), case["address"].as_str().unwrap(), "the letters of EIP-55");
}

#[test]
fn tickets_are_hashed_verified_and_won() {
    let vectors = vectors();
    let mut won = 0;
    for case in list(&vectors["tickets"], 20) {
        let ticket = ticket(case);
        let signature = bytes(&case["signature"]);
        assert_eq!(hex(&ticket.hash()), case["hash"].as_str().unwrap());
        assert_eq!(ticket.signer(&ticket.hash(), &signature).fault, None, "{case}");
        assert_eq!(ticket.sender.to_string(), case["sender"].as_str().unwrap());
        assert_eq!(ticket.ev(), ratio(int(&case["ev"]["num"]), int(&case["ev"]["den"])));
        let rand = int(&case["recipient_rand"]);
        assert_eq!(ticket.wins(&signature, &rand), case["wins"].as_bool().unwrap());
        won += u32::from(ticket.wins(&signature, &rand));
        let payment = Payment::decode(case["payment_header_base64"].as_str().unwrap()).unwrap();
        assert!(payment.is_rand(&rand) && !payment.is_rand(&(rand.clone() + 1_u32)));
        let verified = payment.verify(Some(&rand));
        assert_eq!((verified.len(), hex(&verified[0].hash).as_str()), (1, case["hash"].as_str().unwrap()));
        assert!(payment.problems(&verified).is_empty());
    }
    assert!(won > 0, "not one of them wins");
    let first = ticket(&vectors["tickets"][0]);
    for case in list(&vectors["invalid_signatures_for_ticket_0"], 4) {
        assert!(first.signer(&first.hash(), &bytes(&case["signature"])).fault.is_some(), "{case}");
    }
}

#[test]
fn payments_of_several_tickets() {
    for case in list(&vectors()["payments"], 2) {
        let payment = Payment::decode(case["payment_header_base64"].as_str().unwrap()).unwrap();
        let rand = int(&vectors()["tickets"][3]["recipient_rand"]);
        let verified = payment.verify(Some(&rand));
        let hashes: Vec<String> = verified.iter().map(|ticket| hex(&ticket.hash)).collect();
        assert_eq!(serde_json::json!(hashes), case["hashes"]);
        let wins: Vec<bool> = verified.iter().filter_map(|ticket| ticket.wins).collect();
        assert_eq!(serde_json::json!(wins), case["wins"]);
        assert!(payment.problems(&verified).is_empty());
        let total = payment.ev() * BigRational::from_integer(verified.len().into());
        assert_eq!(total, ratio(int(&case["total_ev"]["num"]), int(&case["total_ev"]["den"])));
    }
}

#[test]
fn face_values_of_go_livepeer() {
    for case in list(&vectors()["go_livepeer"]["face_value_and_win_prob"]["cases"], 8) {
        let terms = Terms {
            ticket_ev: 5.into(),
            redeem_gas: 10_000.into(),
            gas_price: int(&case["gas_price"]),
            reserve: int(&case["max_float"]),
            pool_size: 1.into(),
            ..Terms::default()
        };
        let face_value = rules::face_value(&terms);
        assert_eq!(face_value, case.get("face_value").map(int), "{case}");
        if let (Some(face_value), Some(odds)) = (face_value, case.get("win_prob")) {
            assert_eq!(win_prob(&terms.ticket_ev, &face_value), int(odds), "{case}");
        }
    }
}

#[test]
fn shares_of_the_reserve_of_go_livepeer() {
    for case in list(&vectors()["go_livepeer"]["max_float"]["cases"], 3) {
        let terms = Terms {
            reserve: int(&case["funds_remaining"]) + int(&case["claimed_in_round"]),
            claimed: int(&case["claimed_by_recipient"]),
            pool_size: int(&case["pool_size"]),
            deposit: int(&case["deposit"]),
            pending: int(&case["pending"]),
            ..Terms::default()
        };
        assert_eq!(terms.reserve_share(), int(&case["max_float"]), "{case}");
    }
}

#[test]
fn ticket_counts_of_go_livepeer() {
    // In one unit: both times both denominators.
    let count =
        |cost: &BigRational, ev: &BigRational| tickets_for(&(cost.numer() * ev.denom()), &(ev.numer() * cost.denom()));
    for case in list(&vectors()["go_livepeer"]["ticket_count"]["cases"], 17) {
        let count = count(&fraction(&case["cost"]), &fraction(&case["ev"]));
        assert_eq!(count, case["count"].as_u64().unwrap(), "{case}");
    }
    // Just above a whole number, by less than the precision of a float64: Go does not see it.
    let hair = ratio(1, BigInt::from(10).pow(40));
    assert_eq!(count(&(ratio(7, 1) + &hair), &ratio(1, 1)), 7);
    assert_eq!(count(&(ratio(7, 1) + ratio(1, 1_u64 << 40)), &ratio(1, 1)), 8);
    assert_eq!(count(&(ratio(600, 1) + hair), &ratio(1, 1)), 600);
    // From half of the distance to the next float64 on it does; 3 is even, so that exactly half does not.
    for (parts, tickets) in [(0, 3), (255, 3), (256, 3), (257, 4), (511, 4), (512, 4)] {
        assert_eq!(count(&(ratio(3, 1) + ratio(parts, 1_u64 << 60)), &ratio(1, 1)), tickets, "{parts}");
    }
}

/// Random but mostly sensible terms: amounts near each other, so that every check decides for some of them.
fn terms() -> impl Strategy<Value = Terms> {
    let wei = |digits: std::ops::Range<u32>| {
        (digits, 1_u64..100).prop_map(|(d, n)| BigInt::from(n) * BigInt::from(10).pow(d))
    };
    let orchestrator = (wei(8..16), prop_oneof![Just(BigInt::ZERO), wei(11..17)], any::<bool>());
    let gateway = (wei(10..16), wei(11..18), 1_u32..4);
    let chain = (wei(3..10), wei(10..20), wei(10..21), 1_u32..300, prop_oneof![Just(BigInt::ZERO), wei(8..17)]);
    (wei(0..15), 1_u32..2000, orchestrator, gateway, chain, 1_u64..5000).prop_map(
        |(
            price,
            scaling,
            (ev, cap, adjust),
            (most, total, multiplier),
            (gas, deposit, reserve, pool, balance),
            timeout,
        )| Terms {
            price_per_unit: price,
            price_scaling: scaling.into(),
            ticket_ev: ev,
            max_face_value: cap,
            auto_adjust_price: adjust,
            max_ticket_ev: most,
            max_total_ev: total,
            deposit_multiplier: multiplier.into(),
            gas_price: gas,
            deposit,
            reserve,
            pool_size: pool.into(),
            balance,
            timeout,
            ..Terms::default()
        },
    )
}

fn payment() -> impl Strategy<Value = protobuf::Payment> {
    let blob = |most: usize| prop::collection::vec(any::<u8>(), 0..most);
    let params = (blob(24), blob(33), blob(33), blob(33), blob(33), blob(9));
    let one =
        (any::<u32>(), blob(70)).prop_map(|(sender_nonce, sig)| protobuf::TicketSenderParams { sender_nonce, sig });
    let tickets = prop::collection::vec(one, 0..5);
    (params, blob(24), any::<i64>(), blob(33), tickets, any::<(i64, i64)>()).prop_map(
        |((recipient, face_value, win_prob, recipient_rand_hash, seed, block), sender, round, hash, tickets, price)| {
            let expiration =
                protobuf::TicketExpirationParams { creation_round: round, creation_round_block_hash: hash };
            protobuf::Payment {
                ticket_params: Some(protobuf::TicketParams {
                    recipient,
                    face_value,
                    win_prob,
                    recipient_rand_hash,
                    seed,
                    expiration_block: block,
                    expiration_params: Some(expiration.clone()),
                }),
                sender,
                expiration_params: Some(expiration),
                ticket_sender_params: tickets,
                expected_price: Some(protobuf::PriceInfo {
                    price_per_unit: price.0,
                    pixels_per_unit: price.1,
                    ..Default::default()
                }),
            }
        },
    )
}

fn header(payment: &protobuf::Payment) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(payment.encode_to_vec())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_encoded_is_decoded(payment in payment()) {
        let decoded = protobuf::Payment::decode(payment.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(&decoded, &payment);
        if let Ok(read) = Payment::decode(&header(&payment)) {
            let verified = read.verify(Some(&BigInt::from(7)));
            prop_assert_eq!(verified.len(), payment.ticket_sender_params.len());
            prop_assert!(!read.report(None).json().is_empty() && !read.report(None).text().is_empty());
        }
    }

    #[test]
    fn junk_is_an_error_and_no_panic(junk in prop::collection::vec(any::<u8>(), 0..400), text in ".*") {
        use base64::Engine;
        let header = base64::engine::general_purpose::STANDARD.encode(&junk);
        for text in [&header, &text] {
            if let Ok(payment) = Payment::decode(text) {
                payment.report(Some(&BigInt::from_bytes_be(Sign::Plus, &junk)));
            }
            let _ = (number(text), super::amount::parse(text));
        }
    }

    #[test]
    fn flags_files_are_read_or_refused(text in "(-ticketEV|--autoAdjustPrice|LP_MAXTOTALEV|CAPABILITY_CURRENCY|[-=:#\"'$\\{\\}\\[\\], \n\t]|[0-9]+|true|\\PC){0,40}") {
        for program in [super::inputs::Program::Orchestrator, super::inputs::Program::Gateway] {
            let _ = super::inputs::Inputs::default().read(program, &text, "f", &|_| None);
        }
    }

    #[test]
    fn every_proposed_change_is_accepted(terms in terms()) {
        for eras in [&Era::ALL[..], &[Era::C]] {
            let refused = eras.iter().any(|era| !job_outcome(&terms, *era).check.accepts());
            let changes = advice::changes(&terms, eras);
            prop_assert_eq!(refused, changes.iter().any(|change| change.eras.len() == eras.len()), "{:?}", changes);
        }
    }

    #[test]
    fn timeouts_are_the_ones_that_are_accepted(terms in terms()) {
        for era in Era::ALL {
            let accepts = |timeout: u64| job_outcome(&Terms { timeout, ..terms.clone() }, era).check.accepts();
            let range = rules::timeouts(&terms, era);
            let inside = |timeout: u64| range.is_some_and(|(first, last)| (first..=last).contains(&timeout));
            for timeout in [1, 2, 59, 60, 61, 119, 600, 601, terms.timeout, terms.timeout + 1] {
                prop_assert_eq!(accepts(timeout), inside(timeout), "{:?} {} in {:?}", era, timeout, range);
            }
            if let Some((first, last)) = range {
                let (before, after) = (first - 1, last + 1);
                prop_assert!(accepts(first) && accepts(last) && (before == 0 || !accepts(before)));
                prop_assert!(after > super::terms::MAX_TIMEOUT || !accepts(after), "{:?}: {}", era, after);
            }
        }
    }

    #[test]
    fn gas_is_accepted_up_to_its_limit(terms in terms()) {
        for era in Era::ALL {
            let accepts = |gas: &BigInt| job_outcome(&Terms { gas_price: gas.clone(), ..terms.clone() }, era).check.accepts();
            if let Some(limit) = super::figures::gas_limit(&terms, era) {
                prop_assert!(accepts(&limit) && !accepts(&(&limit + 1_u32)), "{:?}: {}", era, limit);
                let middle: BigInt = (&terms.gas_price + &limit) / 2_u32;
                prop_assert!(accepts(&middle), "{:?}: {} below {}", era, middle, limit);
            } else if matches!(job_outcome(&terms, era).check, Check::Ok | Check::Covered) {
                for times in [1, 2, 3, 10, 1_000, 10_000] {
                    prop_assert!(accepts(&(&terms.gas_price * times)), "{:?}: {} times", era, times);
                }
            }
        }
    }
}
