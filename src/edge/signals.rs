//! SIGTERM, SIGINT and SIGHUP. PID 1 in a container gets no default handling: without this a stop ends in SIGKILL.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The end; the name of the signal.
    Stop(&'static str),
    /// SIGHUP: secrets and registrations anew.
    Renew,
}

/// Signals arrive on the channel; a second one that asks for the end ends the process at once.
///
/// # Errors
/// The kernel's, when no handler can be installed.
pub(crate) fn watch() -> io::Result<Receiver<Signal>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let signal = match signal {
                SIGHUP => Signal::Renew,
                SIGTERM => Signal::Stop("SIGTERM"),
                _ => Signal::Stop("SIGINT"),
            };
            if signal != Signal::Renew && std::mem::replace(&mut stopping, true) {
                log::warn!("second signal: ending at once");
                std::process::exit(Exit::Failed as i32);
            }
            // Nobody listens any more only when the process is ending anyway.
            let _ = sender.send(signal);
        }
    })?;
    Ok(receiver)
}
