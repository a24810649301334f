//! `check --watch`: repeats the check until a signal comes or the output is closed.

use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::options::Form;
use crate::cli::output::{complain, put};
use crate::sys::exit::Exit;
use crate::sys::signals;

enum Event {
    Answer(Exit, String),
    /// A signal asks for the end.
    Stop,
}

/// Asks at each `interval`, counted from begin to begin. The exit code is that of the last verdict.
pub(super) fn run(mut ask: impl FnMut() -> (Exit, String) + Send + 'static, form: Form, interval: Duration) -> Exit {
    let signals = match signals::watch_stop() {
        Ok(signals) => signals,
        Err(why) => {
            complain(&format!("no signal can be handled: {why}"));
            return Exit::Failed;
        }
    };
    let (events, inbox) = mpsc::channel();
    let (go, asked) = mpsc::channel::<()>();
    let stop = events.clone();
    // Also SIGHUP: the terminal is gone.
    thread::spawn(move || signals.recv().map(|_| stop.send(Event::Stop)));
    // A signal ends it while it waits for an answer, too.
    thread::spawn(move || {
        while asked.recv().is_ok() {
            let (exit, text) = ask();
            if events.send(Event::Answer(exit, text)).is_err() {
                return;
            }
        }
    });
    let mut last = Exit::Unknown;
    let mut begin = begin_of(form);
    loop {
        let due = Instant::now() + interval;
        let _ = go.send(());
        let Ok(Event::Answer(exit, text)) = inbox.recv() else { return last };
        last = exit;
        match put(&begin(&text)) {
            Ok(true) => {}
            Ok(false) => return last,
            Err(failed) => return failed,
        }
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return last,
        }
    }
}

/// What makes a block of each text: a terminal is drawn again, elsewhere an empty line stands between two. JSON is a
/// line each.
fn begin_of(form: Form) -> impl FnMut(&str) -> String {
    let redraw = stdout().is_terminal();
    let mut first = true;
    move |text| {
        let first = std::mem::replace(&mut first, false);
        match form {
            Form::Json => text.to_owned(),
            _ if redraw => format!("\u{1b}[H\u{1b}[2J{text}"),
            _ if first => text.to_owned(),
            _ => format!("\n{text}"),
        }
    }
}
