//! `pm`: Livepeer's probabilistic payments, offline.

mod check;
mod ledger;
mod ticket;
mod winprob;

use std::ffi::OsString;

use pico_args::Arguments;

use crate::exit::Exit;
use crate::pure::pm::amount;

const HELP: &str = "\
Livepeer's probabilistic payments: exact, offline, by go-livepeer's own rules.

Usage: agent-net pm winprob --ticket-ev AMOUNT --face-value AMOUNT [--tickets N] [--json]
       agent-net pm check [--orchestrator FILE] [--gateway FILE] [--worker FILE] [--era a|b|c|all] [--json]
                          [-FLAG VALUE]...
       agent-net pm ticket --payment BASE64|@FILE|- [--recipient-rand N] [--json]
       agent-net pm ledger [--state-dir DIR] [--json]

An AMOUNT is whole wei or has a unit: 29000000000000, 18gwei, 0.001eth.

winprob  the odds with which tickets of this face value are worth this much on average
check    whether a job is accepted and paid with these flags, per era of go-livepeer (a: up to v0.8.6, b: v0.8.7 and
         v0.8.8, c: since v0.8.9), who refuses it, and the smallest change that mends it. A FILE is any text that
         holds the flags: a compose file, a unit, a script; without any, those in ./compose are checked.
         A FLAG is one of go-livepeer's, which wins over the files:
           -ticketEV [8000000000]  -maxFaceValue [0: no cap]  -autoAdjustPrice [true]  -minGasPrice [0]
           -maxGasPrice [0: none]  -network [an Arbitrum]                                   at the orchestrator
           -maxTicketEV [3000000000000]  -maxTotalEV [20000000000000]  -depositMultiplier [1]    at the gateway
         or one of ours:
           --price-per-unit [CAPABILITY_PRICE_PER_UNIT, else 0]  --price-scaling [1]  --price-currency wei|eth
           --timeout [60]                     the job's timeout_seconds
           --gas-price [0.01gwei]  --redeem-gas [1200000; 350000 on Ethereum]
           --deposit [0.1eth]  --reserve [1eth]  --balance [0]   of the gateway's account
           --pool-size [100]                  active orchestrators, who share the reserve
           --claimed [0]  --pending [0]       of this orchestrator's share, in this round; winners being redeemed
ticket   what a Livepeer-Payment header holds, whose signatures are in it, and with the recipient's random number
         which tickets win
ledger   tickets that came with jobs, past the orchestrator, and what TICKET_SUBMIT_URL answered to them

Exit codes: 0 accepted or valid, 1 refused or not valid, 64 input that is not understood, 78 a file that cannot be used
";

const COMMANDS: &str = "winprob, check, ticket and ledger";

/// Runs `pm` with the arguments that follow it.
pub(super) fn run(mut args: Arguments) -> Exit {
    if args.contains(["-h", "--help"]) {
        return super::print(HELP);
    }
    let command = match args.subcommand() {
        Ok(command) => command.unwrap_or_default(),
        Err(why) => return usage(&why.to_string()),
    };
    match command.as_str() {
        "winprob" => winprob::run(args),
        "check" => check::run(args),
        "ticket" => ticket::run(args),
        "ledger" => ledger::run(args),
        "" => usage(&format!("pm needs one of {COMMANDS}")),
        other => usage(&format!("pm {other:?} is no command; there are {COMMANDS}")),
    }
}

fn usage(why: &str) -> Exit {
    super::complain(&format!("{why}; see agent-net pm --help"));
    Exit::Usage
}

/// An amount that must be there.
fn amount_of(args: &mut Arguments, name: &'static str) -> Result<num_bigint::BigInt, String> {
    let text: String = args.value_from_str(name).map_err(|why| why.to_string())?;
    amount::parse(&text).map_err(|why| format!("{name} {text:?}: {why}"))
}

/// Nothing may be left of the arguments.
fn finish(args: Arguments) -> Result<(), String> {
    let left: Vec<OsString> = args.finish();
    left.first().map_or(Ok(()), |first| Err(format!("{first:?} is not understood")))
}
