//! `man`: prints the manual page.

use pico_args::Arguments;

use super::arguments;
use super::manual;
use super::output::{print, usage};
use crate::sys::exit::Exit;

pub(super) fn run(args: Arguments) -> Exit {
    match arguments::finish(args) {
        Ok(()) => print(&manual::page()),
        Err(why) => usage("man", &why),
    }
}
