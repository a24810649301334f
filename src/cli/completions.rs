//! `completions`: a script for a shell.

use pico_args::Arguments;

use super::manual;
use super::output;
use crate::sys::exit::Exit;

pub(super) fn run(mut args: Arguments) -> Exit {
    let shell: Option<String> = args.opt_free_from_str().unwrap_or_default();
    let script = shell.as_deref().and_then(manual::completions);
    match script.filter(|_| args.finish().is_empty()) {
        Some(script) => output::print(&script),
        None => output::usage("completions", &format!("completions takes one shell: {}", manual::SHELLS)),
    }
}
