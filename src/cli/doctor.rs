//! `doctor`: diagnoses this machine and suggests fixes.

pub(super) mod checks;
pub(crate) mod diagnosis;
mod heartbeat;
mod notify;
mod ollama;
mod peers;
mod probes;

use std::env;
use std::io::{IsTerminal, stdout};

use super::output;
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
    all.extend(checks::examine(&settings.config));
    let exit = match diagnosis::worst(&all) {
        Grade::Pass => Exit::Ok,
        Grade::Warn => Exit::Failed,
        Grade::Fail => Exit::Unhealthy,
    };
    show(&all, json, exit)
}

/// Settings that cannot be used, as findings: nothing else can be examined then.
pub(super) fn refuse(problems: &[impl std::fmt::Display], json: bool) -> Exit {
    let fix = "Fix this setting. `agent-net serve --help` lists the valid values.";
    let all: Vec<Finding> = problems.iter().map(|why| Finding::fail("settings", why.to_string(), fix)).collect();
    show(&all, json, Exit::Config)
}

fn show(all: &[Finding], json: bool, exit: Exit) -> Exit {
    let color = stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let text = if json { diagnosis::json(all) + "\n" } else { diagnosis::text(all, color) };
    match output::print(&text) {
        Exit::Ok => exit,
        failed => failed,
    }
}
