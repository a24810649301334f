//! Agent-Net, a GPU health worker for Livepeer's "bring your own container" jobs.
//!
//! ```text
//!  client ─TCP─▶ edge/guard ─▶ edge/http ─▶ pure/route ─▶ Job ─▶ worker ─▶ Reply ─▶ back the same way
//!                                                                 │ reads
//!  edge/gpus ─JSON lines─▶ [agent-net-nvml: edge/helper ─▶ NVML]  ▼
//!       └──────▶ sampler ─▶ pure/rules ─▶ Snapshot with its reasons, one value behind one lock, replaced whole
//!  edge/ollama, kmsg, ──┘                     │ once a second
//!  surroundings, tegra                        ▼
//!                               recorder ─▶ pure/uptime ─▶ edge/disk
//!  registrar ─▶ pure/lease, pure/runner ─▶ edge/orchestrator
//!  keeper ─▶ pure/keeper, pure/pull ─▶ edge/ollama: the models of MODEL
//!  worker ─▶ cashier ─▶ pure/pm ─▶ edge/disk, edge/orchestrator: tickets that come past the orchestrator
//!  cmd/check, cmd/doctor: one snapshot without any of the threads
//!  cmd/ack ─STATE_DIR/control.sock or SIGUSR1─▶ edge/disk/control, edge/signals ─▶ worker
//! ```
//!
//! Samples flow in from the left, requests only read: no request waits for a driver, for Ollama or for a disk.
//!
//! - `pure`: values in, values out. No I/O, no clock, no log.
//! - `edge`: one outside thing per file; every call has a deadline and a size limit.
//! - `cmd`: one subcommand per file, wiring only; `cmd/manual` has the table that help, manual page and completions are
//!   made of.
//! - `tiny_http`, a package of its own, takes the place of the sockets that rouille has below it: the guard has them.
//! - `threads`, `names`, `outbound`, `counters`, `rows`: what the others share.
//!
//! There are two programs because a static musl server can never `dlopen`: `agent-net` serves, `agent-net-nvml`
//! (glibc) reads NVML and is killed and started again when the driver hangs or the library crashes.

use std::process::ExitCode;

mod api;
mod cli;
mod config;
mod gpu;
mod health;
mod http;
mod livepeer;
mod ollama;
mod outgoing;
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
