//! Agent-Net, a GPU health worker for Livepeer's "bring your own container" jobs. src/README.md has the map of the code.
//!
//! A room is a folder that owns one subject. It names only the rooms below it in this list: `cli`, `api`, `http`,
//! `livepeer`, `notify`, `peers`, `health`, `ollama`, `gpu`, `outgoing`, `config`, `sys`.

use std::process::ExitCode;

mod api;
mod cli;
mod config;
mod gpu;
mod health;
mod http;
mod livepeer;
mod notify;
mod ollama;
mod outgoing;
mod peers;
mod sys;

#[cfg(test)]
mod tests;

/// `agent-net`: runs the command line to its end.
pub fn run() -> ExitCode {
    cli::run()
}

/// `agent-net-nvml`: answers on stdin and stdout until stdin ends.
#[cfg(feature = "nvml")]
pub fn run_helper() -> ExitCode {
    gpu::helper::run()
}

#[cfg(test)]
#[path = "../tests/it/tables.rs"]
mod tables;
