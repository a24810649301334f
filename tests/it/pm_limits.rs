//! `agent-net pm check` where a limit is met to the wei.

use crate::pm::{json_of, words};

#[test]
fn exactly_as_much_as_is_wanted_is_enough() {
    // 2^64 - 1 divides 2^256 - 1: tickets of this face value are worth their ticketEV to the last digit.
    let flags = "--ticketEV 6000000000000000 --maxFaceValue 18446744073709551615 --autoAdjustPrice=false \
        --gas-price 200gwei --pool-size 1 --deposit 100eth --reserve 100eth --price-per-unit 100000000000000 \
        --maxTicketEV 6000000000000000 --maxTotalEV 6000000000000000 --timeout 1";
    for (more, checks) in [
        ("", ["ok", "ok", "ok"]),
        ("--maxTicketEV 5999999999999999", ["maxTicketEV"; 3]),
        ("--maxTotalEV 5999999999999999", ["maxTotalEV"; 3]),
        ("--price-per-unit 100000000000001", ["ok", "ok", "minBalance"]),
        // What a job costs covers it only in the gateway's own book, and there only with something left over.
        ("--balance 100000000000000", ["ok", "ok", "ok"]),
        ("--balance 100000000000001", ["minBalance", "minBalance", "ok"]),
    ] {
        let name = more.split(' ').next().unwrap();
        let mut args = words(flags);
        if let Some(at) = args.iter().position(|arg| arg == name) {
            args.drain(at..at + 2);
        }
        let (_, found) = json_of(&format!("check {} {more}", args.join(" ")));
        let eras = found["eras"].as_array().unwrap();
        assert_eq!(
            eras.iter().map(|era| era["check"].as_str().unwrap()).collect::<Vec<_>>(),
            checks,
            "{more}: {found}"
        );
        assert_eq!(eras[0]["ev"], "6000000000000000", "{found}");
    }
}
