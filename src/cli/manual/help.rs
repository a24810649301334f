//! `--help`.

use super::{Command, EXIT_CODES, GROUP_ABOUT, Opt, about, find, first_words, meaning, members};
use crate::config::settings::flag;
use crate::config::{SETTINGS, Setting};

/// Of the whole program: no more than a small terminal shows at once.
pub(crate) fn overview() -> String {
    let mut text = "Usage: agent-net [COMMAND] [OPTION]...\n\n".to_owned();
    for word in first_words() {
        text.push_str(&format!("  {word:<12} {}\n", about(word)));
    }
    text.push_str(
        "\nEach has --help. Settings are variables or flags, see agent-net serve --help.\n\
         Exit codes: 0 ok, 1 degraded or failed, 2 unhealthy, 3 unknown or unreachable,\n\
         64 usage, 78 a setting that cannot be used.\n\nExamples:\n",
    );
    for command in ["check", "serve", "pm check"].into_iter().filter_map(find) {
        text.push_str(&format!("  {}\n", command.example));
    }
    text
}

/// Of a group.
pub(crate) fn group(name: &str) -> String {
    let mut text = format!("Usage: agent-net {name} COMMAND [OPTION]...\n\n{GROUP_ABOUT}\n\n");
    for (word, command) in members(name) {
        text.push_str(&format!("  {word:<12} {}\n", command.about));
    }
    text.push_str(&format!("\nEach has --help: agent-net {name} check --help\n"));
    text
}

/// Of one command.
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
        text.push_str("\nSettings (a flag wins over the environment; empty is unset) [default]:\n");
        text.push_str(&settings());
    } else if command.settings {
        text.push_str("\nEvery setting is an option as well, see agent-net serve --help.\n");
    }
    text.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES {
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
    // Twenty options are listed below.
    if command.options.len() > 5 {
        return line + " [OPTION]...";
    }
    for option in command.options {
        let value = option.value.name();
        let blank = if value.is_empty() { "" } else { " " };
        line.push_str(&format!(" [{}{blank}{value}]", option.flag));
    }
    if command.settings { line + " [--SETTING VALUE]..." } else { line }
}

fn settings() -> String {
    let line = |s: &Setting| format!("  {:<32} {:<34} {}\n", s.name, flag(s.name), meaning(s));
    SETTINGS.iter().map(line).collect()
}
