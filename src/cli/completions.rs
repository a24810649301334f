//! `completions`: a script for a shell.

use pico_args::Arguments;

use super::manual;
use crate::sys::exit::Exit;

pub(super) fn run(mut args: Arguments) -> Exit {
    let shell: Option<String> = args.opt_free_from_str().unwrap_or_default();
    let script = shell.as_deref().and_then(manual::completions);
    match script.filter(|_| args.finish().is_empty()) {
        Some(script) => super::print(&script),
        None => super::usage(
            "completions",
            &format!("completions needs the name of one shell; there are {}", manual::SHELLS),
        ),
    }
}
