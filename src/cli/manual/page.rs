//! The manual page, in roff's man macros.

use super::command::{Opt, meaning};
use super::commands::{COMMANDS, GROUP_ABOUT};
use super::help::usage;
use crate::config::SETTINGS;
use crate::sys::exit::{EXITS, exits_of};

/// Release date of the version in Cargo.toml.
const RELEASED: &str = "2026-11-27";

/// `agent-net.1`
pub(crate) fn page() -> String {
    let mut page = format!(
        ".TH AGENT-NET 1 {RELEASED} \"agent-net {}\" \"User Commands\"\n.SH NAME\nagent\\-net \\- a GPU health worker for \
         Livepeer jobs\n.SH SYNOPSIS\n.B agent\\-net\n.RI [ COMMAND ]\n.RI [ OPTION ]...\n.SH DESCRIPTION\n\
         Reports whether the GPUs are present and healthy, which models Ollama has loaded on them, and their uptime.\n\
         Registers with orchestrators and stays registered.\n.SH COMMANDS\n",
        env!("CARGO_PKG_VERSION")
    );
    for command in COMMANDS {
        page.push_str(&format!(".SS {}\n{}.\n", escape(&usage(command)), escape(command.about)));
        if !command.details.is_empty() {
            page.push_str(&format!(".PP\n{}\n", escape(command.details)));
        }
        for Opt { flag, value, about } in command.options {
            page.push_str(&entry(&format!("{flag} {}", value.name()), about));
        }
        page.push_str(".PP\nExit codes:\n");
        for (code, meaning) in exits_of(command.name) {
            page.push_str(&entry(&code.to_string(), meaning));
        }
        page.push_str(&format!(".PP\nExample:\n.B {}\n", escape(command.example)));
    }
    page.push_str(&format!(".SH PAYMENTS\nThe commands of pm {}.\n.SH SETTINGS\n", escape(GROUP_ABOUT)));
    page.push_str("A flag overrides the variable. An empty value means unset.\n");
    let mut group = None;
    for setting in SETTINGS {
        if group.replace(setting.group) != Some(setting.group) {
            page.push_str(&format!(".SS {}\n", setting.group.title()));
        }
        page.push_str(&entry(&format!("{}, {}", setting.name, setting.flag()), &meaning(setting)));
    }
    page.push_str(".SH EXIT STATUS\n");
    for row in &EXITS {
        page.push_str(&entry(&(row.exit as u8).to_string(), row.meaning));
    }
    page.push_str(".SH FILES\n");
    page.push_str(&entry("STATE_DIR/uptime.bin", "uptime of the last 30 days, by the minute"));
    page.push_str(&entry("STATE_DIR/speeds.json", "usual speeds of models, by their probes"));
    page.push_str(&entry(
        "STATE_DIR/acknowledged.json",
        "what agent-net ack has acknowledged since the machine started",
    ));
    page.push_str(&entry("STATE_DIR/tickets.jsonl", "tickets received with jobs"));
    page + &entry("STATE_DIR/control.sock", "socket through which agent-net ack reaches the worker")
}

fn entry(term: &str, meaning: &str) -> String {
    format!(".TP\n.B {}\n{}\n", escape(term.trim_end()), escape(meaning))
}

/// Text without meaning to roff: no escapes, no requests, dashes that can be copied into a shell.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
