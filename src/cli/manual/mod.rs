//! What the command line is, in one table: help, the manual page and the shells' completions are made of it.

mod commands;
mod help;
mod page;
mod shells;

use crate::config::settings::flag;
use crate::config::{SETTINGS, Setting};
use commands::COMMANDS;
pub(super) use help::{group, of_command, overview};
pub(super) use page::page;
pub(super) use shells::{SHELLS, completions};

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    /// One word, or two for a command of a group: `pm check`.
    pub(super) name: &'static str,
    /// What stands behind it beside options; "" for nothing.
    operand: &'static str,
    /// What it does, in half a line.
    about: &'static str,
    /// What else must be known; lines of at most 100 characters.
    details: &'static str,
    options: &'static [Opt],
    /// Every setting is an option, too.
    settings: bool,
    example: &'static str,
}

/// An option of a command.
#[derive(Debug, Clone, Copy)]
struct Opt {
    flag: &'static str,
    value: Value,
    about: &'static str,
}

/// What follows an option.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// Nothing.
    None,
    /// Anything, called so.
    Any(&'static str),
    /// A path of a file.
    File,
    Folder,
    /// One of these.
    Of(&'static [&'static str]),
}

impl Value {
    /// As it is written behind an option; empty for nothing.
    fn name(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Any(name) => name.into(),
            Self::File => "FILE".into(),
            Self::Folder => "FOLDER".into(),
            Self::Of(words) => words.join("|"),
        }
    }
}

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// What the one group that there is does.
const GROUP_ABOUT: &str = "payments: a pre-flight of flags, odds, tickets; offline";

/// What a command or the group does, by its first word.
fn about(word: &str) -> &'static str {
    find(word).map_or(GROUP_ABOUT, |command| command.about)
}

/// The words that a command or a group is called by, the group's own name among them.
fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = COMMANDS.iter().map(|c| c.name.split(' ').next().unwrap_or_default()).collect();
    words.dedup();
    words
}

/// The first words, as errors tell them.
pub(super) fn names() -> String {
    listed(&first_words())
}

/// The second words of a group.
pub(super) fn names_in(group: &str) -> String {
    listed(&second_words(group))
}

fn second_words(group: &str) -> Vec<&'static str> {
    members(group).map(|(word, _)| word).collect()
}

/// The commands of a group, by their second words.
fn members(group: &str) -> impl Iterator<Item = (&'static str, &'static Command)> {
    COMMANDS.iter().filter_map(move |command| {
        let (first, second) = command.name.split_once(' ')?;
        (first == group).then_some((second, command))
    })
}

fn listed(words: &[&str]) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        words => words.concat(),
    }
}

/// What a setting means, and what holds without it.
fn meaning(setting: &Setting) -> String {
    let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
    format!("{}{default}", setting.meaning)
}

/// A setting as an option.
fn of_setting(name: &str) -> Value {
    match name {
        "STATE_DIR" | "HOST_ROOT" => Value::Folder,
        "NVML_LIB" | "NVML_HELPER" => Value::File,
        _ if name.ends_with("_FILE") => Value::File,
        "ORCH_PROTOCOL" => Value::Of(&["byoc", "live-runner", "both", "auto"]),
        "WITHDRAW_WHEN_UNHEALTHY" => Value::Of(&["true", "false"]),
        "METRICS_COMPAT" => Value::Of(&["nvidia_smi"]),
        "LOG_LEVEL" => Value::Of(&["error", "warn", "info", "debug", "trace", "off"]),
        _ => Value::Any("VALUE"),
    }
}

/// All options of a command, settings included: flag, value and meaning.
fn all_options(command: &Command) -> Vec<(String, Value, &'static str)> {
    let own = command.options.iter().map(|option| (option.flag.to_owned(), option.value, option.about));
    let settings = SETTINGS.iter().filter(|_| command.settings);
    own.chain(settings.map(|s| (flag(s.name), of_setting(s.name), s.meaning))).collect()
}

/// What exit codes mean, by the group of commands.
const EXIT_CODES: [(&str, &str); 6] = [
    ("0", "ok; doctor: all passed; pm: accepted or valid"),
    ("1", "degraded, or it failed; doctor: a warning; pm: refused or not valid"),
    ("2", "unhealthy, or the driver does not answer; doctor: a failure"),
    ("3", "unknown or unreachable"),
    ("64", "the command line is not understood"),
    ("78", "a setting or a file that cannot be used"),
];
