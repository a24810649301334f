//! What commands print: results on stdout, one line for each problem on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use crate::sys::exit::Exit;
use crate::sys::text::io_words;

/// A command line that is not valid. `command`: whose help to point to; "" for that of the program.
pub(super) fn usage(command: &str, why: &str) -> Exit {
    let help = format!("agent-net {command} --help").replace("  ", " ");
    complain(&format!("{why}; see {help}"));
    Exit::Usage
}

/// Settings that cannot be used, a line for each.
pub(super) fn refuse(problems: &[impl Display]) -> Exit {
    problems.iter().for_each(|problem| complain(&problem.to_string()));
    Exit::Config
}

/// One line on stderr. If stderr is closed, there is no other place for it.
pub(super) fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "agent-net: {why}");
}

/// Results go to stdout; a closed pipe is not an error.
pub(super) fn print(text: &str) -> Exit {
    match put(text) {
        Ok(_) => Exit::Ok,
        Err(failed) => failed,
    }
}

/// Writes a result to stdout; false when the reader has closed the pipe.
pub(super) fn put(text: &str) -> Result<bool, Exit> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(why) => {
            complain(&format!("cannot write the result: {}", io_words(&why)));
            Err(Exit::Failed)
        }
    }
}
