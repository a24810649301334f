//! `pm`: Livepeer's probabilistic payments, offline.

mod check;
mod ledger;
mod ticket;
mod winprob;

use std::ffi::OsString;

use pico_args::Arguments;

use super::manual;
use super::usage;
use crate::livepeer::payments::amount;
use crate::sys::exit::Exit;

/// Runs `pm` with the arguments that follow it.
pub(super) fn run(mut args: Arguments) -> Exit {
    let command = match args.subcommand() {
        Ok(command) => command.unwrap_or_default(),
        Err(why) => return usage("pm", &why.to_string()),
    };
    if super::asks_for_help(&args) {
        let known = manual::find(&format!("pm {command}"));
        return super::print(&known.map_or_else(|| manual::group("pm"), manual::of_command));
    }
    match command.as_str() {
        "winprob" => winprob::run(args),
        "check" => check::run(args),
        "ticket" => ticket::run(args),
        "ledger" => ledger::run(args),
        "" => usage("pm", &format!("pm needs one of {}", manual::names_in("pm"))),
        other => usage("pm", &format!("pm {other:?} is no command; there are {}", manual::names_in("pm"))),
    }
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
