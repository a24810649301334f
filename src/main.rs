//! `agent-net`: the server and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_net::run()
}
