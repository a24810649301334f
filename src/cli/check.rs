//! `check`: prints the verdict of a running worker or of this machine, once or repeatedly, for Nagios and Icinga.

mod ask;
mod options;
pub(crate) mod render;
mod watch;

use super::output;
use crate::config::settings::Settings;
use crate::sys::exit::Exit;
use crate::sys::logger;
use ask::Asker;
pub(super) use options::{Options, options};

pub(super) fn run(settings: &Settings, options: &Options) -> Exit {
    logger::install(settings.config.log_level.min(log::LevelFilter::Error));
    let mut asker = Asker::new(settings.config.clone(), options.clone());
    if let Some(interval) = options.interval {
        return watch::run(asker, options.form, interval);
    }
    let (exit, text) = asker.ask();
    match output::print(&text) {
        Exit::Ok => exit,
        failed => failed,
    }
}
