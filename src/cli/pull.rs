//! `pull MODEL`: like `ollama pull`, with progress on a terminal or as lines.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{output, stop};
use crate::config::model_name_problem;
use crate::config::settings::Settings;
use crate::ollama::client::OllamaClient;
use crate::ollama::pull::{self, Progress, PullCause};
use crate::outgoing;
use crate::sys::exit::Exit;
use crate::sys::limits;
use crate::sys::logger;

/// How often a terminal shows the progress.
const REDRAW: Duration = Duration::from_millis(100);
/// Other output has a line each time this many percent are done.
const LINE_STEP: u8 = 5;
const NO_WIDTH: usize = 80;
const BAR: usize = 24;

pub(super) fn run(settings: &Settings, model: Option<&str>) -> Exit {
    let Some(model) = model else {
        return output::usage("pull", "missing model, such as agent-net pull codellama:34b-instruct-q4_k_m");
    };
    if let Some(why) = model_name_problem(model) {
        return output::usage("pull", &format!("{model:?}: {why}"));
    }
    if let Err(why) = outgoing::tls(&settings.config.ollama.tls) {
        return output::refuse(&[format!("OLLAMA_TLS: {why}")]);
    }
    logger::install(settings.config.log_level.min(log::LevelFilter::Error));
    stop::on_signal(format!("What was downloaded is kept: agent-net pull {model} resumes"));
    let client = OllamaClient::new(&settings.config.ollama, settings.config.faults.time_scale);
    let mut screen = Screen::new();
    let started = Instant::now();
    let pulled = client.pull(model, |pull, line| {
        pull.line(line, started.elapsed());
        screen.show(&pull.progress());
    });
    screen.end();
    match pulled {
        Ok(()) => output::print(&format!("{model} is pulled\n")),
        Err(error) => {
            output::complain(&format!("cannot pull {model}: {}", error.why));
            if error.cause == PullCause::NoAnswer { Exit::Unknown } else { Exit::Failed }
        }
    }
}

/// Progress goes to stderr.
struct Screen {
    /// Columns; None: not a terminal.
    width: Option<usize>,
    drawn: Option<Instant>,
    last: Option<Progress>,
    logged: Option<(u8, String)>,
}

impl Screen {
    fn new() -> Self {
        let width = io::stderr().is_terminal().then(|| limits::terminal_width().unwrap_or(NO_WIDTH));
        Self { width, drawn: None, last: None, logged: None }
    }

    fn show(&mut self, progress: &Progress) {
        match self.width {
            Some(width) => {
                let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW);
                if due {
                    draw(progress, width);
                    self.drawn = Some(Instant::now());
                }
                self.last = Some(progress.clone()).filter(|_| !due);
            }
            None => self.log(progress),
        }
    }

    fn log(&mut self, progress: &Progress) {
        let step = progress.percent / LINE_STEP;
        let status = progress.status.as_str();
        if self.logged.as_ref().is_some_and(|(before, said)| *before == step && (status.is_empty() || said == status)) {
            return;
        }
        let text = if status.is_empty() { pull::in_words(progress) } else { status.to_owned() };
        let _ = writeln!(io::stderr(), "{text}");
        self.logged = Some((step, status.to_owned()));
    }

    fn end(&mut self) {
        if let Some(width) = self.width {
            self.last.take().iter().for_each(|progress| draw(progress, width));
            let _ = writeln!(io::stderr());
        }
    }
}

/// One line over the last one.
fn draw(progress: &Progress, width: usize) {
    let filled = usize::from(progress.percent) * BAR / 100;
    let bar: String = (0..BAR).map(|at| if at < filled { '#' } else { '.' }).collect();
    let more = match progress.layer {
        Some((number, percent)) => format!(" (layer {number}: {percent} %)"),
        None if progress.status.is_empty() => String::new(),
        None => format!(" ({})", progress.status),
    };
    let line = format!("[{bar}] {}{more}", pull::in_words(progress));
    let line: String = line.chars().take(width.saturating_sub(1)).collect();
    // \x1b[K clears the rest of the line.
    let _ = write!(io::stderr(), "\r{line}\x1b[K");
    let _ = io::stderr().flush();
}
