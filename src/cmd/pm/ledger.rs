//! `pm ledger`: the tickets that came with jobs, and what became of them.

use std::env;

use pico_args::Arguments;

use crate::cmd::{complain, print, usage};
use crate::edge::disk::ledger as file;
use crate::exit::Exit;
use crate::pure::pm::ledger::Ledger;
use crate::pure::pm::ledger::report::Report;

pub(super) fn run(mut args: Arguments) -> Exit {
    let json = args.contains("--json");
    let dir: Option<String> = match args.opt_value_from_str("--state-dir") {
        Ok(dir) => dir,
        Err(why) => return usage("pm ledger", &why.to_string()),
    };
    if let Err(why) = super::finish(args) {
        return usage("pm ledger", &why);
    }
    let Some(dir) = dir.or_else(|| env::var("STATE_DIR").ok().filter(|dir| !dir.is_empty())) else {
        return usage("pm ledger", "pm ledger needs --state-dir or STATE_DIR, where the worker keeps its tickets");
    };
    let text = match file::peek(&dir) {
        Ok(text) => text.unwrap_or_default(),
        Err(why) => {
            complain(&format!("{dir}/{}: {why}", file::NAME));
            return Exit::Config;
        }
    };
    let (ledger, damaged) = Ledger::replay(text.lines());
    let report = Report::of(&ledger, damaged);
    print(&if json { report.json() } else { report.text() })
}
