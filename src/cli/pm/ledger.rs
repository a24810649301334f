//! `pm ledger`: the tickets received with jobs, and their outcome.

use std::{env, fs};

use pico_args::Arguments;

use crate::cli::arguments;
use crate::cli::output::{complain, print, put, usage};
use crate::livepeer::tickets::file::disk::NAME;
use crate::livepeer::tickets::file::lines::Scan;
use crate::livepeer::tickets::ledger::replay::replay;
use crate::livepeer::tickets::ledger::report;
use crate::sys::exit::Exit;
use crate::sys::text::io_words;

/// Bytes of the report in one write.
const BUFFER: usize = 64 << 10;

pub(super) fn run(mut args: Arguments) -> Exit {
    let json = args.contains("--json");
    let dir: Option<String> = match args.opt_value_from_str("--state-dir") {
        Ok(dir) => dir,
        Err(why) => return usage("pm ledger", &why.to_string()),
    };
    if let Err(why) = arguments::finish(args) {
        return usage("pm ledger", &why);
    }
    let Some(dir) = dir.or_else(|| env::var("STATE_DIR").ok().filter(|dir| !dir.is_empty())) else {
        return usage("pm ledger", "missing option --state-dir; STATE_DIR is not set either");
    };
    match report(&dir, json) {
        Ok(exit) => exit,
        Err(why) => {
            complain(&format!("{dir}/{}: {why}", NAME));
            Exit::Config
        }
    }
}

fn report(dir: &str, json: bool) -> Result<Exit, String> {
    let Some(mut scan) = Scan::peek(dir).map_err(|why| io_words(&why))? else {
        // Of a folder that is not there, nothing is known.
        fs::metadata(dir).map_err(|why| io_words(&why))?;
        return Ok(print(&report::nothing(json)));
    };
    let (ledger, findings) = replay(&mut scan, false)?;
    let (mut buffer, mut exit) = (String::new(), Exit::Ok);
    let mut out = |text: &str| {
        buffer.push_str(text);
        buffer.len() < BUFFER || {
            let written = put(&std::mem::take(&mut buffer));
            written.unwrap_or_else(|failed| {
                exit = failed;
                false
            })
        }
    };
    report::write((ledger, findings.damaged), &mut scan.rewind(), json, &mut out)?;
    Ok(if exit == Exit::Ok { print(&buffer) } else { exit })
}
