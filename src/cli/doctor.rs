//! `doctor`: diagnoses this machine and suggests fixes.

pub(crate) mod diagnosis;
pub(super) mod looks;

use std::env;
use std::io::{IsTerminal, stdout};

use crate::config::settings::{Settings, Source};
use crate::sys::exit::Exit;
use crate::sys::logger;
use diagnosis::{Finding, Grade};

pub(super) fn run(settings: &Settings, json: bool) -> Exit {
    logger::install(settings.config.log_level.min(log::LevelFilter::Error));
    let mut all: Vec<Finding> = ["ORCH_SECRET", "WORKER_TOKEN"]
        .into_iter()
        .filter(|name| matches!(settings.set(name), Some((_, Source::File))))
        .map(|name| Finding::pass("settings", format!("{name}_FILE is readable and holds a secret")))
        .collect();
    all.extend(looks::examine(&settings.config));
    let exit = match diagnosis::worst(&all) {
        Grade::Pass => Exit::Ok,
        Grade::Warn => Exit::Failed,
        Grade::Fail => Exit::Unhealthy,
    };
    show(&all, json, exit)
}

/// The same when the settings cannot be used: then nothing else can be checked.
pub(super) fn refuse(why: &str, json: bool) -> Exit {
    show(
        &[Finding::fail("settings", why, "Fix the setting that is named. `agent-net config` shows all.")],
        json,
        Exit::Config,
    )
}

fn show(all: &[Finding], json: bool, exit: Exit) -> Exit {
    let colour = stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let text = if json { diagnosis::json(all) + "\n" } else { diagnosis::text(all, colour) };
    match super::print(&text) {
        Exit::Ok => exit,
        failed => failed,
    }
}
