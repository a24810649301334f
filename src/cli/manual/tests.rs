//! The tables of commands and exit codes in the reference.

use super::commands::COMMANDS;
use crate::sys::exit::{EXITS, exits_of};
use crate::tables::{markdown, table};

#[test]
fn the_reference_has_all_commands() {
    let rows = COMMANDS.iter().map(|command| vec![format!("`agent-net {}`", command.name), command.about.to_owned()]);
    table("src/reference.md", "commands", &markdown(&["command", "purpose"], rows));
}

#[test]
fn the_reference_has_all_exit_codes() {
    let rows = EXITS.iter().map(|row| vec![(row.exit as u8).to_string(), row.meaning.to_owned()]);
    table("src/reference.md", "exit-codes", &markdown(&["code", "meaning"], rows));
}

#[test]
fn every_command_has_the_exit_codes_of_its_row_alone() {
    for command in COMMANDS {
        let codes: Vec<u8> = exits_of(command.name).map(|(code, _)| code).collect();
        assert!(codes.starts_with(&[0, 1]) && codes.contains(&64), "{}: {codes:?}", command.name);
        assert_eq!(
            codes.contains(&78),
            command.settings || ["pm check", "pm ledger", "pm ticket"].contains(&command.name)
        );
        assert_eq!(codes.contains(&2), ["check", "doctor", "probe"].contains(&command.name), "{codes:?}");
    }
}
