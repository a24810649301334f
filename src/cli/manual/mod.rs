//! The command line in one table: help, man page, completions and reference are made of it.

mod command;
mod commands;
mod help;
mod page;
mod shells;

pub(super) use commands::{find, names, names_in};
pub(super) use help::{group, of_command, overview};
pub(super) use page::page;
pub(super) use shells::{SHELLS, completions};

#[cfg(test)]
mod tests;
