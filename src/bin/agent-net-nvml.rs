//! `agent-net-nvml`: the helper that reads NVML or the driver amdgpu; started by `agent-net`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_net::run_helper()
}
