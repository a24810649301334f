//! `pm winprob`: the odds of a ticket.

use pico_args::Arguments;

use crate::cli::{print, usage};
use crate::livepeer::payments::odds::Odds;
use crate::sys::exit::Exit;

pub(super) fn run(mut args: Arguments) -> Exit {
    let odds = match parse(&mut args).and_then(|parsed| super::finish(args).map(|()| parsed)) {
        Ok(parsed) => parsed,
        Err(why) => return usage("pm winprob", &why),
    };
    let (odds, json) = odds;
    print(&if json { odds.json() } else { odds.text() })
}

fn parse(args: &mut Arguments) -> Result<(Odds, bool), String> {
    let json = args.contains("--json");
    let tickets = args.opt_value_from_str("--tickets").map_err(|why| format!("--tickets: {why}"))?;
    let ticket_ev = super::amount_of(args, "--ticket-ev")?;
    let face_value = super::amount_of(args, "--face-value")?;
    Ok((Odds::of(&ticket_ev, &face_value, tickets)?, json))
}
