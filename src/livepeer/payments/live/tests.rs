//! Numbers that were computed by a second implementation, in another language.

use num_bigint::BigInt;

use super::*;

fn live(price: &str, eth_price: &str) -> Live {
    let price = Price::parse(price).unwrap_or_else(|| panic!("{price} is not a price"));
    Live { price: Some(price), eth_price: dollars(eth_price), ..Live::default() }
}

/// The chain of [`Terms::default`], with the largest face value of compose/live-runner.yaml.
fn payer(ticket_ev: u64) -> Terms {
    Terms { ticket_ev: ticket_ev.into(), max_face_value: 4_000_000_000_000_000_u64.into(), ..Terms::default() }
}

/// Check, wei for a unit, tickets and credit; 0 for what it did not come to.
fn seen(live: &Live, payer: &Terms) -> (&'static str, u64, u64, u64) {
    let outcome = call_outcome(live, payer);
    let number = |value: Option<BigInt>| value.map_or(0, |value| u64::try_from(value).unwrap());
    (outcome.check.name(), number(outcome.price), outcome.tickets.unwrap_or(0), number(outcome.credit))
}

#[test]
fn prices_tickets_and_who_refuses_them() {
    for (price, eth_price, ticket_ev, expected) in [
        ("0.0005usd/fixed", "3000", 10_000_000_000, ("ok", 166_666_666_666, 17, 170_000_000_000)),
        ("0.0005usd/fixed", "3000", 29_000_000_000_000, ("maxTicketEV", 166_666_666_666, 1, 0)),
        ("0.0005usd/fixed", "3000", 1_000_000_000, ("tooManyTickets", 166_666_666_666, 167, 0)),
        ("0.0005usd/fixed", "3000", 1_666_666_666, ("tooManyTickets", 166_666_666_666, 101, 0)),
        ("0.0005usd/fixed", "3000", 1_666_666_667, ("ok", 166_666_666_666, 100, 166_666_666_700)),
        ("0.0003usd/fixed", "3000", 1_000_000_000, ("ok", 100_000_000_000, 100, 100_000_000_000)),
        ("0.0005usd/fixed", "500", 10_000_000_000, ("ok", 1_000_000_000_000, 100, 1_000_000_000_000)),
        ("0.0005usd/fixed", "499.99", 10_000_000_000, ("tooManyTickets", 1_000_020_000_400, 101, 0)),
        // Equal is refused, by rounding.
        ("0.00315usd/fixed", "1910.4", 3_000_000_000_000, ("maxTicketEV", 1_648_869_346_733, 1, 0)),
        ("0.00315usd/fixed", "1910.4", 2_999_999_999_999, ("ok", 1_648_869_346_733, 1, 2_999_999_999_999)),
        ("1.2usd/hour", "3000", 10_000_000_000, ("tooManyTickets", 111_111_111_111, 112, 0)),
        ("1.2usd/hour", "3000", 20_000_000_000, ("ok", 111_111_111_111, 56, 1_120_000_000_000)),
        ("0.36usd/hour", "4000", 8_000_000_000, ("ok", 25_000_000_000, 32, 256_000_000_000)),
        ("0.1usd/720p", "3000", 10_000_000_000, ("ok", 334, 56, 560_000_000_000)),
        ("0.1usd/720p", "3000", 100_000_000_000, ("ok", 334, 6, 600_000_000_000)),
        ("0.0001usd/720p", "3000", 100_000_000_000, ("weiPrice", 0, 0, 0)),
        ("0.00000000000000001usd/fixed", "3000", 1, ("weiPrice", 0, 0, 0)),
        ("40000usd/fixed", "3000", 10_000_000_000, ("weiPrice", 0, 0, 0)),
        ("0.0005usd/fixed", "3000", 0, ("noTickets", 166_666_666_666, 0, 0)),
    ] {
        assert_eq!(seen(&live(price, eth_price), &payer(ticket_ev)), expected, "{price} {eth_price} {ticket_ev}");
    }
}

#[test]
fn limits_of_the_signer_and_its_account() {
    let live = live("0.0005usd/fixed", "3000");
    let payer = payer(10_000_000_000);
    let wei = |wei: u64| BigInt::from(wei);
    for (changed, check) in [
        (Terms { max_total_ev: wei(170_000_000_000), ..payer.clone() }, "maxTotalEV"),
        (Terms { max_total_ev: wei(170_000_000_001), ..payer.clone() }, "ok"),
        (Terms { deposit: wei(1_199_999_999_999_999), ..payer.clone() }, "faceValueOverDeposit"),
        (Terms { deposit: wei(1_200_000_000_000_000), ..payer.clone() }, "ok"),
        (Terms { deposit: wei(0), ..payer.clone() }, "deposit"),
        (Terms { reserve: wei(1_199_999_999_999_999), ..payer.clone() }, "senderReserve"),
        (Terms { reserve: wei(1_200_000_000_000_000), ..payer.clone() }, "ok"),
        (Terms { offchain: true, ..payer.clone() }, "offchain"),
    ] {
        assert_eq!(call_outcome(&live, &changed).check.name(), check, "{changed:?}");
    }
    for (cap, check) in [
        ("0.0005USD", "ok"),
        ("0.000499usd", "maxPricePerUnit"),
        ("166666666666", "ok"),
        ("166666666665wei", "maxPricePerUnit"),
        ("0.0000001ETH", "maxPricePerUnit"),
        ("0", "ok"),
    ] {
        let capped = Live { cap: Cap::parse(cap).unwrap(), ..live.clone() };
        assert_eq!(call_outcome(&capped, &payer).check.name(), check, "{cap}");
    }
    let per_two = Live { cap: Cap::parse("0.001usd").unwrap(), pixels_per_unit: ratio(2, 1), ..live };
    assert_eq!(call_outcome(&per_two, &payer).check.name(), "ok", "half of it is for a unit");
    assert!(Cap::parse("1lpt").is_none() && Cap::parse("usd").is_none());
}

#[test]
fn the_registry_comes_first() {
    let payer = payer(10_000_000_000);
    let known = Live { known: true, network: true, ..live("0.0005usd/fixed", "3000") };
    let offchain = Terms { offchain: true, ..payer.clone() };
    for (live, payer, check) in [
        (known.clone(), &payer, "useLiveRunners"),
        (Live { runners: true, ..known.clone() }, &payer, "orchSecret"),
        (Live { runners: true, ..known.clone() }, &offchain, "orchSecret"),
        (Live { runners: true, secret: true, ..known.clone() }, &payer, "ok"),
        (Live { runners: true, secret: true, network: false, ..known.clone() }, &payer, "offchain"),
        (Live { runners: true, secret: true, price: None, ..known.clone() }, &payer, "runnerPrice"),
        (Live { runners: true, secret: true, price: None, ..known.clone() }, &offchain, "offchain"),
        (Live { listed: true, ..known.clone() }, &payer, "ok"),
        (Live { listed: true, byoc: Byoc::Free, ..known }, &payer, "freeByByoc"),
    ] {
        assert_eq!(call_outcome(&live, payer).check.name(), check, "{live:?}");
    }
}

#[test]
fn what_an_eth_may_cost() {
    // A hundred tickets of 10 gwei are 0.0005 dollars at 500.
    let floor = live("0.0005usd/fixed", "3000").eth_price_floor(&payer(10_000_000_000)).unwrap();
    assert_eq!(floor, ratio(500, 1));
    assert_eq!(live("0.0005usd/fixed", "3000").eth_price_floor(&payer(1_000_000_000)), None);
    // Less than a cent.
    for eth_price in ["0.004", "0.00000000000000000001"] {
        assert_eq!(live("0.0005usd/fixed", eth_price).eth_price_floor(&payer(10_000_000_000)), None);
    }
}

#[test]
fn nothing_is_proposed_that_cannot_be_set() {
    let most = crate::livepeer::payments::amount::max_uint256();
    let payer = Terms { ticket_ev: most.clone(), max_face_value: most, ..Terms::default() };
    let all = advice::suggestions(&live("0.0005usd/fixed", "3000"), &payer);
    assert!(all.iter().all(|text| !text.contains("129639936")), "2^256 is one too many: {all:?}");
}

#[test]
fn every_suggestion_passes() {
    let mut made = 0;
    for (price, eth_price, ticket_ev, changes) in [
        ("0.0005usd/fixed", "3000", 29_000_000_000_000, &["-ticketEV=83333333333 (orchestrator): "][..]),
        (
            "0.0005usd/fixed",
            "3000",
            1_000_000_000,
            &["-ticketEV=83333333333 ", "-ticketEV=1666666667 ", "RUNNER_PRICE=0.0002999usd/fixed (worker): "],
        ),
        ("1.2usd/hour", "3000", 10_000_000_000, &["-ticketEV=555555555555 ", "-ticketEV=11111111112 "]),
        ("0.0005usd/fixed", "3000", 0, &["-ticketEV=83333333333 "]),
        (
            "10usd/fixed",
            "3000",
            10_000_000_000,
            &[
                "-ticketEV=1666666666666667 (orchestrator) and -maxTicketEV=1666666666666668 (remote signer) and \
                  -maxTotalEV=3333333333333335 (remote signer): a payment is 2 tickets",
                "RUNNER_PRICE=0.002999usd/fixed ",
            ],
        ),
    ] {
        let found = advice::suggestions(&live(price, eth_price), &payer(ticket_ev));
        for change in changes {
            assert!(found.iter().any(|text| text.starts_with(change)), "{change} is not in {found:?}");
            made += 1;
        }
    }
    assert!(made > 6);
}
