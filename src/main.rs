//! `agent-net`: the server and the command line.

use std::process::ExitCode;

/// musl's own allocator takes one lock for all threads, and is slow besides.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    agent_net::run()
}
