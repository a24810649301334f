//! The command line: one subcommand per file, wiring only.

mod ack;
mod arguments;
pub(crate) mod check;
mod completions;
mod config;
mod control;
pub(crate) mod doctor;
mod ending;
mod explain;
mod health;
mod hold_port;
mod local;
mod man;
mod manual;
mod names;
mod notify;
mod output;
mod pm;
mod probe;
mod pull;
mod serve;
mod stop;
mod supervision;
mod upgrade;

use std::process::ExitCode;

use pico_args::Arguments;

use crate::api::capability_names;
use crate::config::settings::{self, TlsCheck};
use crate::outgoing;
use crate::sys::exit::Exit;
use crate::sys::version;
use output::{print, refuse, usage};

/// Runs the command that the arguments name; `serve` when they name none.
pub(crate) fn run() -> ExitCode {
    let mut args = Arguments::from_env();
    let named = match args.subcommand() {
        Ok(named) => named,
        Err(why) => return usage("", &why.to_string()).into(),
    };
    // It has help of its own, and go-livepeer's flags look unlike ours.
    if named.as_deref() == Some("pm") {
        return pm::run(args).into();
    }
    if arguments::asks_for_help(&args) {
        return help(named.as_deref()).into();
    }
    // They need no settings.
    match named.as_deref() {
        Some("completions") => return completions::run(args).into(),
        Some("explain") => return explain::run(args).into(),
        Some("man") => return man::run(args).into(),
        _ => {}
    }
    if args.contains(["-V", "--version"]) {
        return print(&format!("agent-net {}\n", version::full())).into();
    }
    with_settings(named.as_deref().unwrap_or("serve"), args).into()
}

fn help(named: Option<&str>) -> Exit {
    let Some(name) = named else { return print(&manual::overview()) };
    match manual::find(name) {
        Some(command) => print(&manual::of_command(command)),
        None => usage("", &unknown_command(name)),
    }
}

fn with_settings(command: &str, mut args: Arguments) -> Exit {
    let task = match command {
        "serve" => Ok(Task::Serve),
        "check" => check::options(&mut args).map(Task::Check),
        "pull" => Ok(Task::Pull),
        "probe" => Ok(Task::Probe { json: args.contains("--json") }),
        "health" => Ok(Task::Health),
        "hold-port" => Ok(Task::HoldPort),
        "notify" => notify::options(&mut args).map(|()| Task::Notify),
        "doctor" => Ok(Task::Doctor { json: args.contains("--json") }),
        "ack" => ack::options(&mut args).map(Task::Ack),
        "config" => config::form(&mut args).map(Task::Config),
        other => return usage("", &unknown_command(other)),
    };
    let task = match task {
        Ok(task) => task,
        Err(why) => return usage(command, &why),
    };
    // Other commands need the file of one rule at most, and report it themselves.
    let tls_problem: TlsCheck = match task {
        Task::Serve => |rule| outgoing::tls(rule).err(),
        _ => |_| None,
    };
    let settings = match settings::gather(&mut args, capability_names::problem, tls_problem) {
        Ok(settings) => settings,
        Err(settings::Error::Usage(why)) => return usage(command, &why),
        Err(settings::Error::Config(why)) => {
            return match task {
                Task::Doctor { json } => doctor::refuse(&why, json),
                _ => refuse(&why),
            };
        }
    };
    let mut left = args.finish();
    let model = (matches!(task, Task::Pull | Task::Probe { .. }) && !left.is_empty()).then(|| left.remove(0));
    let model = model.as_ref().map(|model| model.to_string_lossy());
    if let Some(first) = left.first() {
        return usage(command, &arguments::unknown(first));
    }
    match task {
        Task::Serve => serve::run(&settings),
        Task::Check(options) => check::run(&settings, &options),
        Task::Health => health::run(&settings),
        Task::HoldPort => hold_port::run(&settings),
        Task::Doctor { json } => doctor::run(&settings, json),
        Task::Pull => pull::run(&settings, model.as_deref()),
        Task::Probe { json } => probe::run(&settings, model.as_deref(), json),
        Task::Notify => notify::run(&settings),
        Task::Ack(options) => ack::run(&settings, &options),
        Task::Config(form) => config::run(&settings, form),
    }
}

fn unknown_command(name: &str) -> String {
    format!("unknown command {name:?}; available: {}", manual::names())
}

/// A subcommand with its own options.
#[derive(Debug)]
enum Task {
    Serve,
    Check(check::Options),
    Health,
    HoldPort,
    Doctor { json: bool },
    Pull,
    Probe { json: bool },
    Notify,
    Ack(ack::Options),
    Config(config::Form),
}
