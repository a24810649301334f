//! `pm winprob`: the odds of a ticket.

use num_bigint::BigInt;
use pico_args::Arguments;

use crate::cli::arguments;
use crate::cli::output::{print, usage};
use crate::livepeer::payments::amount;
use crate::livepeer::payments::odds::Odds;
use crate::sys::exit::Exit;

pub(super) fn run(mut args: Arguments) -> Exit {
    let odds = match parse(&mut args).and_then(|parsed| arguments::finish(args).map(|()| parsed)) {
        Ok(parsed) => parsed,
        Err(why) => return usage("pm winprob", &why),
    };
    let (odds, json) = odds;
    print(&if json { odds.json() } else { odds.text() })
}

fn parse(args: &mut Arguments) -> Result<(Odds, bool), String> {
    let json = args.contains("--json");
    let tickets = arguments::number(args, "--tickets", "a whole number of tickets")?;
    let ticket_ev = amount_of(args, "--ticket-ev")?;
    let face_value = amount_of(args, "--face-value")?;
    Ok((Odds::of(&ticket_ev, &face_value, tickets)?, json))
}

/// An amount that must be given.
fn amount_of(args: &mut Arguments, name: &'static str) -> Result<BigInt, String> {
    let text = arguments::required(args, name)?;
    amount::parse(&text).map_err(|why| format!("{name}={text:?}: {why}"))
}
