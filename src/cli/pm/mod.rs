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
    let known = manual::find(&format!("pm {command}"));
    if arguments::asks_for_help(&args) && (known.is_some() || command.is_empty()) {
        return print(&known.map_or_else(|| manual::group("pm"), manual::of_command));
    }
    match command.as_str() {
        "winprob" => winprob::run(args),
        "check" => check::run(args),
        "ticket" => ticket::run(args),
        "ledger" => ledger::run(args),
        "" if !args.clone().finish().is_empty() => usage("pm", &arguments::finish(args).err().unwrap_or_default()),
        "" => usage("pm", &format!("missing command; available: {}", manual::names_in("pm"))),
        other => usage("pm", &format!("unknown command {other:?}; available: {}", manual::names_in("pm"))),
    }
}
