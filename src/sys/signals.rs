//! SIGTERM, SIGINT, SIGHUP and SIGUSR1. PID 1 in a container has no default handlers: without these a stop ends in SIGKILL.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::sync::mpsc::{self, Receiver};

use rustix::process::{Pid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::exit::Exit;
use super::text::io_words;
use super::threads;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Stop; the name of the signal.
    Stop(&'static str),
    /// SIGHUP: read secrets and register again.
    Renew,
    /// SIGUSR1: acknowledge past errors.
    Acknowledge,
}

/// Signals of a worker arrive on the channel; a second stop signal ends the process immediately,
/// except for a SIGTERM after a SIGINT.
///
/// # Errors
/// The kernel's, when a handler cannot be installed.
pub(crate) fn watch() -> io::Result<Receiver<Signal>> {
    receive(&[SIGTERM, SIGINT, SIGHUP, SIGUSR1])
}

/// Signals of other commands, without SIGHUP and SIGUSR1: [`acknowledge`] recognizes a worker by the signals that it handles.
///
/// # Errors
/// The kernel's, when a handler cannot be installed.
pub(crate) fn watch_stop() -> io::Result<Receiver<Signal>> {
    receive(&[SIGTERM, SIGINT, SIGHUP])
}

fn receive(signals: &[c_int]) -> io::Result<Receiver<Signal>> {
    let mut signals = Signals::new(signals)?;
    let (sender, receiver) = mpsc::channel();
    let mut stopping = None;
    threads::service("signals", move || {
        for signal in signals.forever() {
            let signal = match signal {
                SIGHUP => Signal::Renew,
                SIGUSR1 => Signal::Acknowledge,
                SIGTERM => Signal::Stop("SIGTERM"),
                _ => Signal::Stop("SIGINT"),
            };
            if let Signal::Stop(name) = signal {
                match stopping.replace(name) {
                    // An operator asked it to leave, and its supervisor stops it meanwhile.
                    Some("SIGINT") if name == "SIGTERM" => {
                        stopping = Some("SIGINT");
                        continue;
                    }
                    Some(_) => {
                        log::warn!("second signal: exiting immediately");
                        Exit::Failed.now();
                    }
                    None => {}
                }
            }
            // The receiver is dropped only when the process is ending.
            let _ = sender.send(signal);
        }
    })?;
    Ok(receiver)
}

/// Sends SIGUSR1 to a worker.
///
/// # Errors
/// Why it was not sent and what to do.
pub(crate) fn acknowledge(pid: u32) -> Result<(), String> {
    // The signal would end a process that does not handle it.
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| workers().contains(&pid));
    let known = known.ok_or_else(|| format!("process {pid} is not a running worker: check --pid"))?;
    let sent = kill_process(known, rustix::process::Signal::USR1);
    sent.map_err(|why| {
        format!("cannot signal process {pid}: {}. Run this as the worker's user or as root", io_words(&why.into()))
    })
}

/// The PIDs of all workers in /proc.
pub(crate) fn workers() -> Vec<u32> {
    let Some(own) = status("self") else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| status(&pid.to_string()).is_some_and(|it| it.name == own.name && it.handles_usr1)).collect()
}

/// What /proc shows of a process.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    name: String,
    handles_usr1: bool,
}

fn status(pid: &str) -> Option<Status> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let handled = u64::from_str_radix(field("SigCgt:")?, 16).ok()?;
    Some(Status { name: field("Name:")?.to_owned(), handles_usr1: handled & (1 << (SIGUSR1 - 1)) != 0 })
}

#[test]
fn a_process_is_known_by_its_name_and_the_signals_that_it_handles() {
    let check =
        |handled: &str| parse_status(&format!("Name:\tagent-net\nSigIgn:\t0000000000001000\nSigCgt:\t{handled}\n"));
    let status = |handles_usr1| Some(Status { name: "agent-net".into(), handles_usr1 });
    assert_eq!(check("0000000000004a03"), status(true));
    assert_eq!(check("0000000000004803"), status(false));
    assert_eq!(check("0000000000000000"), status(false));
    assert_eq!(check("junk"), None);
    assert_eq!(parse_status("Name:\tagent-net\n"), None);
}
