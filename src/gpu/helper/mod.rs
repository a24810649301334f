//! The helper program: loads NVML, or reads the files of amdgpu, and answers asks, one JSON line each, until stdin ends. It
//! never restarts NVML: for that the server starts another helper.

mod activity;
mod amd;
mod device;
mod fabric;
mod final_calls;
mod fixed;
mod gpm;
mod library;
mod memory_health;
mod mig;
mod process_use;
mod processes;
mod raw;
mod read;
mod reader;
mod reading_log;
mod readings;
mod threads;
mod unified;
mod words;

use std::env;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use super::sample::GpuFault;
use super::wire::{self, Answer, Ask, Hello, Question};
use crate::sys::exit::Exit;
use reader::Reader;

/// Answers until stdin ends. Without arguments it reads NVML, with [`wire::AMD_GPUS`] and its arguments the GPUs of amdgpu.
pub(crate) fn run() -> ExitCode {
    die_with_parent();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let open = || -> Result<Box<dyn Reader>, GpuFault> {
        match amd::Reader::of(&arguments) {
            Some(reader) => Ok(Box::new(reader)),
            None => Ok(Box::new(read::Reader::open()?)),
        }
    };
    let answered = private_stdout().and_then(|out| answer_all(io::stdin().lock(), out, open));
    match answered {
        Ok(()) => Exit::Ok.into(),
        // The server is gone or has abandoned this helper; only stderr is left.
        Err(why) => {
            let _ =
                writeln!(io::stderr(), "agent-net-nvml: {why}. agent-net starts this program; it is not used alone");
            Exit::Failed.into()
        }
    }
}

/// A helper that hangs in the driver does not notice the end of its stdin.
fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// The pipe to the server, under a number that no library knows; stdout of libraries goes to stderr.
fn private_stdout() -> io::Result<File> {
    let out = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(File::from(out))
}

fn answer_all(
    asks: impl BufRead,
    mut out: File,
    open: impl Fn() -> Result<Box<dyn Reader>, GpuFault>,
) -> io::Result<()> {
    let hello = Hello { protocol: wire::PROTOCOL, version: env!("CARGO_PKG_VERSION").into() };
    out.write_all(wire::line(&hello).as_bytes())?;
    let mut reader = None;
    for line in asks.lines() {
        let Ask { id, ask: Question::Sample(wanted) } = wire::parse(&line?).map_err(io::Error::other)?;
        let reader = match &mut reader {
            Some(reader) => Ok(reader),
            None => open().map(|opened| reader.insert(opened)),
        };
        let answer = reader.and_then(|reader| reader.sample(wanted));
        out.write_all(wire::line(&Answer { id, answer }).as_bytes())?;
    }
    Ok(())
}
