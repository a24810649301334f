//! `pm`: Livepeer's probabilistic payments, offline.

mod check;
mod ledger;
mod ticket;
mod winprob;

use pico_args::Arguments;

use super::arguments;
use super::manual;
use super::output::{print, usage};
use crate::sys::exit::Exit;

/// Runs `pm` with the arguments that follow it.
pub(super) fn run(mut args: Arguments) -> Exit {
    let command = match args.subcommand() {
        Ok(command) => command.unwrap_or_default(),
        Err(why) => return usage("pm", &why.to_string()),
    };
    if arguments::asks_for_help(&args) {
        let known = manual::find(&format!("pm {command}"));
        return print(&known.map_or_else(|| manual::group("pm"), manual::of_command));
    }
    match command.as_str() {
        "winprob" => winprob::run(args),
        "check" => check::run(args),
        "ticket" => ticket::run(args),
        "ledger" => ledger::run(args),
        "" => usage("pm", &format!("missing command; available: {}", manual::names_in("pm"))),
        other => usage("pm", &format!("unknown command {other:?}; available: {}", manual::names_in("pm"))),
    }
}
