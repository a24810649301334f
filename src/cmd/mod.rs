//! The command line: one subcommand per file, wiring only.

mod ack;
mod check;
mod config;
mod doctor;
mod health;
mod help;
mod pm;
mod pull;
mod serve;
mod settings;

use std::io::{self, Write};
use std::process::ExitCode;

use pico_args::Arguments;

use crate::exit::Exit;

/// Runs the command that the arguments name; `serve` when they name none.
pub(crate) fn run() -> ExitCode {
    let mut args = Arguments::from_env();
    let command = match args.subcommand() {
        // It needs none of the settings, and go-livepeer's flags look unlike ours.
        Ok(Some(command)) if command == "pm" => return pm::run(args).into(),
        Ok(command) => command.unwrap_or_else(|| "serve".into()),
        Err(why) => return usage(&why.to_string()).into(),
    };
    if args.contains(["-h", "--help"]) {
        return print(&help::text()).into();
    }
    if args.contains(["-V", "--version"]) {
        return print(concat!("agent-net ", env!("CARGO_PKG_VERSION"), "\n")).into();
    }
    let command = match command.as_str() {
        "serve" => Ok(Command::Serve),
        "check" => check::options(&mut args).map(Command::Check),
        "pull" => Ok(Command::Pull),
        "health" => Ok(Command::Health),
        "doctor" => Ok(Command::Doctor { json: args.contains("--json") }),
        "ack" => Ok(Command::Ack),
        "config" => Ok(Command::Config { runner_json: args.contains("--runner-json") }),
        other => Err(format!("{other:?} is no command; there are {COMMANDS}")),
    };
    let command = match command {
        Ok(command) => command,
        Err(why) => return usage(&why).into(),
    };
    let settings = match settings::gather(&mut args) {
        Ok(settings) => settings,
        Err(settings::Error::Usage(why)) => return usage(&why).into(),
        Err(settings::Error::Config(why)) => {
            return match command {
                Command::Doctor { json } => doctor::refuse(&why, json),
                _ => refuse(&why),
            }
            .into();
        }
    };
    let mut left = args.finish();
    let model = (matches!(command, Command::Pull) && !left.is_empty()).then(|| left.remove(0));
    let model = model.as_ref().map(|model| model.to_string_lossy());
    if let Some(first) = left.first() {
        return usage(&format!("{first:?} is not understood")).into();
    }
    match command {
        Command::Serve => serve::run(&settings),
        Command::Check(options) => check::run(&settings, &options),
        Command::Health => health::run(&settings),
        Command::Doctor { json } => doctor::run(&settings, json),
        Command::Pull => pull::run(&settings, model.as_deref()),
        Command::Ack => ack::run(&settings),
        Command::Config { runner_json } => config::run(&settings, runner_json),
    }
    .into()
}

const COMMANDS: &str = "serve, check, health, doctor, ack, pull, config and pm";

/// A subcommand with what it is told beyond the settings.
#[derive(Debug)]
enum Command {
    Serve,
    Check(check::Options),
    Health,
    Doctor { json: bool },
    Pull,
    Ack,
    Config { runner_json: bool },
}

fn usage(why: &str) -> Exit {
    complain(&format!("{why}; see agent-net --help"));
    Exit::Usage
}

/// A setting that cannot be used.
fn refuse(why: &str) -> Exit {
    complain(why);
    Exit::Config
}

/// One line on stderr; when that is gone there is nobody to tell.
fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "agent-net: {why}");
}

/// Results go to stdout; a closed pipe is no error.
fn print(text: &str) -> Exit {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => Exit::Ok,
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(why) => {
            complain(&format!("cannot write the result: {why}"));
            Exit::Failed
        }
    }
}
