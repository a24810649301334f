//! `--help`.

use super::command::{Command, Opt, meaning};
use super::commands::{GROUP_ABOUT, about, find, first_words, members};
use crate::config::{SETTINGS, Setting};
use crate::sys::exit::exits_of;

/// Help of the whole program; it fits a small terminal.
pub(crate) fn overview() -> String {
    let mut text = "Usage: agent-net [COMMAND] [OPTION]...\n\n".to_owned();
    for word in first_words() {
        text.push_str(&format!("  {word:<12} {}\n", about(word)));
    }
    text.push_str(
        "\nEach has --help. Settings are variables or flags: see agent-net serve --help.\n\
         Exit codes: 0 ok, 1 degraded or failed, 2 unhealthy, 3 unknown or unreachable,\n\
         64 invalid command line, 78 invalid setting.\n\nExamples:\n",
    );
    for command in ["check", "serve"].into_iter().filter_map(find) {
        text.push_str(&format!("  {}\n", command.example));
    }
    text
}

/// Help of a group.
pub(crate) fn group(name: &str) -> String {
    let mut text = format!("Usage: agent-net {name} COMMAND [OPTION]...\n\n{GROUP_ABOUT}\n\n");
    for (word, command) in members(name) {
        text.push_str(&format!("  {word:<12} {}\n", command.about));
    }
    text.push_str(&format!("\nEach has --help: agent-net {name} check --help\n"));
    text
}

/// Help of one command.
pub(crate) fn of_command(command: &Command) -> String {
    let mut text = format!("Usage: {}\n\n{}\n", usage(command), command.about);
    if !command.details.is_empty() {
        text.push_str(&format!("\n{}\n", command.details));
    }
    if !command.options.is_empty() {
        text.push_str("\nOptions:\n");
        for Opt { flag, value, about } in command.options {
            text.push_str(&format!("  {:<28} {about}\n", format!("{flag} {}", value.name())));
        }
    }
    if command.name == "serve" {
        text.push_str("\nSettings (a flag overrides the variable; an empty value means unset) [default]:\n");
        text.push_str(&settings());
    } else if command.settings {
        text.push_str("\nEvery setting is also an option: agent-net serve --help.\n");
    }
    text.push_str("\nExit codes:\n");
    for (code, meaning) in exits_of(command.name) {
        text.push_str(&format!("  {code:<4} {meaning}\n"));
    }
    text + &format!("\nExample:\n  {}\n", command.example)
}

/// `agent-net check [--url URL] [--json] [--SETTING VALUE]...`
pub(super) fn usage(command: &Command) -> String {
    let mut line = format!("agent-net {}", command.name);
    if !command.operand.is_empty() {
        line.push_str(&format!(" {}", command.operand));
    }
    // Many options are listed below instead.
    if command.options.len() > 5 {
        return line + " [OPTION]...";
    }
    for option in command.options {
        let value = option.value.name();
        let space = if value.is_empty() { "" } else { " " };
        line.push_str(&format!(" [{}{space}{value}]", option.flag));
    }
    if command.settings { line + " [--SETTING VALUE]..." } else { line }
}

fn settings() -> String {
    let line = |s: &Setting| format!("  {:<32} {:<34} {}\n", s.name, s.flag(), meaning(s));
    SETTINGS.iter().map(line).collect()
}
