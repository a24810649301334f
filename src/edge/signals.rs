//! SIGTERM and SIGINT. PID 1 in a container gets no default handling: without this a stop ends in SIGKILL.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// The name of the first signal arrives on the channel; the second ends the process at once.
///
/// # Errors
/// The kernel's, when no handler can be installed.
pub(crate) fn watch() -> io::Result<Receiver<&'static str>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                log::warn!("second signal: ending at once");
                std::process::exit(Exit::Failed as i32);
            }
            // Nobody listens any more only when the process is ending anyway.
            let _ = sender.send(if signal == SIGTERM { "SIGTERM" } else { "SIGINT" });
        }
    })?;
    Ok(receiver)
}
