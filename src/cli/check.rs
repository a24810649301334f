//! `check`: prints the verdict of running workers or of this machine, once or repeatedly, for Nagios, Icinga and
//! node-problem-detector.

mod ask;
mod fleet;
mod options;
pub(crate) mod render;
mod waiting;
mod watch;

use super::output;
use crate::config::settings::Settings;
use crate::sys::exit::Exit;
use crate::sys::logger;
use ask::Asker;
use fleet::Fleet;
pub(super) use options::{Options, options};

pub(super) fn run(settings: &Settings, options: &Options) -> Exit {
    logger::install(settings.config.log_level.min(log::LevelFilter::Error));
    let mut ask: Box<dyn FnMut() -> (Exit, String) + Send> = if options.workers.len() > 1 {
        let fleet = Fleet::new(settings.config.worker_authorization(), options);
        Box::new(move || fleet.ask())
    } else {
        let mut asker = Asker::new(settings.config.clone(), options.clone());
        Box::new(move || asker.ask())
    };
    if let Some(interval) = options.interval {
        return watch::run(ask, options.form, interval);
    }
    let (exit, text) = ask();
    match output::print(&text) {
        Exit::Ok => exit,
        failed => failed,
    }
}
