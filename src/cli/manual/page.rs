//! The manual page, in roff's man macros.

use super::help::usage;
use super::{COMMANDS, EXIT_CODES, GROUP_ABOUT, Opt, meaning};
use crate::config::SETTINGS;
use crate::config::settings::flag;

/// When the version of Cargo.toml was made.
const RELEASED: &str = "2026-11-26";

/// `agent-net.1`
pub(crate) fn page() -> String {
    let mut page = format!(
        ".TH AGENT-NET 1 {RELEASED} \"agent-net {}\" \"User Commands\"\n.SH NAME\nagent\\-net \\- a GPU health worker for \
         Livepeer jobs\n.SH SYNOPSIS\n.B agent\\-net\n.RI [ COMMAND ]\n.RI [ OPTION ]...\n.SH DESCRIPTION\n\
         Answers whether the GPU is there and healthy, which models Ollama holds on it, and how good the uptime was;\n\
         registers itself with orchestrators and stays registered.\n.SH COMMANDS\n",
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
        page.push_str(&format!(".PP\nExample:\n.B {}\n", escape(command.example)));
    }
    page.push_str(&format!(".SH PAYMENTS\nThe commands of pm are {}.\n.SH SETTINGS\n", escape(GROUP_ABOUT)));
    page.push_str("A flag wins over the environment; empty is unset.\n");
    for setting in SETTINGS {
        page.push_str(&entry(&format!("{}, {}", setting.name, flag(setting.name)), &meaning(setting)));
    }
    page.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in EXIT_CODES {
        page.push_str(&entry(code, meaning));
    }
    page.push_str(".SH FILES\n");
    page.push_str(&entry("STATE_DIR/uptime.bin", "the uptime of the last 30 days, minute by minute"));
    page.push_str(&entry("STATE_DIR/tickets.jsonl", "tickets that came with jobs"));
    page + &entry("STATE_DIR/control.sock", "by which agent-net ack reaches the worker")
}

fn entry(term: &str, meaning: &str) -> String {
    format!(".TP\n.B {}\n{}\n", escape(term.trim_end()), escape(meaning))
}

/// Text that roff takes for text: no escapes, no requests, dashes that can be copied into a shell.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
