//! The end of a command by SIGINT or SIGTERM.

use std::io::{self, Write};

use crate::sys::exit::Exit;
use crate::sys::signals::{self, Signal};
use crate::sys::threads;

/// From now on a signal ends the process immediately, with these words on stderr.
pub(super) fn on_signal(words: String) {
    match signals::watch_stop() {
        Ok(signals) => {
            // Without the thread a signal ends the process silently.
            let _ = threads::spawn("stop", move || {
                if signals.iter().any(|signal| matches!(signal, Signal::Stop(_))) {
                    let _ = writeln!(io::stderr(), "\nagent-net: stopped. {words}");
                    std::process::exit(Exit::Failed as i32);
                }
            });
        }
        Err(why) => log::error!("cannot handle signals: {why}"),
    }
}
