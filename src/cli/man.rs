//! `man`: the manual page.

use pico_args::Arguments;

use super::manual;
use crate::sys::exit::Exit;

pub(super) fn run(args: Arguments) -> Exit {
    match args.finish().first() {
        None => super::print(&manual::page()),
        Some(first) => super::usage("man", &format!("{first:?} is not understood")),
    }
}
