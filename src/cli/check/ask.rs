//! One verdict: asked of a worker, else made here.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::options::{Form, Options};
use super::render;
use crate::api::report::{Moment, Published};
use crate::cli::doctor::checks;
use crate::cli::local::{self, NoAnswer};
use crate::config::Config;
use crate::health::once::Once;
use crate::http::refusal::error_body;
use crate::ollama::state::OllamaState;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;

/// A wait that is longer than this is explained on stderr.
const SILENT: Duration = Duration::from_secs(2);

/// Asks, and keeps the helper of its own that it may need for it.
pub(super) struct Asker {
    config: Config,
    options: Options,
    own: Option<Once>,
    /// What is waited for was said: once is enough.
    said: Arc<AtomicBool>,
}

impl Asker {
    pub(super) fn new(config: Config, options: Options) -> Self {
        Self { config, options, own: None, said: Arc::default() }
    }

    /// The verdict's exit code, and what is to be printed.
    pub(super) fn ask(&mut self) -> (Exit, String) {
        let answer = self.report().map_err(|why| why.to_string()).and_then(|body| match self.options.form {
            Form::Lines => render::summary(&body),
            Form::Json => render::summary(&body).map(|(verdict, _)| (verdict, render::json_line(&body))),
            Form::Text => render::verdict_of_text(&body).map(|verdict| (verdict, body)),
        });
        match answer {
            Ok((verdict, text)) => (verdict.into(), text),
            Err(why) => {
                let text = match self.options.form {
                    Form::Lines => render::unknown(&why),
                    Form::Json => error_body("unreachable", &why, unix_now()) + "\n",
                    Form::Text => render::unknown_text(&why),
                };
                (Exit::Unknown, text)
            }
        }
    }

    /// The report of the worker that was named, else of this machine's, else one that is made now.
    fn report(&mut self) -> Result<String, NoAnswer> {
        let deadline = Instant::now() + self.options.timeout;
        let (config, text) = (&self.config, self.options.form == Form::Text);
        let own = || format!("http://{}", local::reachable(config.host, config.port));
        let base = self.options.url.as_ref().map_or_else(own, |url| url.as_str().to_owned());
        let waiting = self.waiting(&base);
        let answer = local::report(&base, config.worker_token.as_ref(), text, self.options.timeout);
        drop(waiting);
        match answer {
            Err(NoAnswer::Refused(_)) if self.options.url.is_none() => Ok(self.sample(deadline, text)),
            answer => {
                self.own = None;
                answer
            }
        }
    }

    fn sample(&mut self, deadline: Instant, text: bool) -> String {
        let left = || deadline.saturating_duration_since(Instant::now());
        let ollama = self.config.ollama.clone();
        let base = ollama.url.as_str().to_owned();
        let (sender, asked) = mpsc::sync_channel(1);
        // Both are asked at the same time: neither takes the other's.
        thread::spawn(move || sender.send(checks::ask_ollama(&ollama)));
        let mut own = self.own.take().unwrap_or_else(|| Once::new(&self.config));
        let waiting = self.waiting("the NVIDIA driver");
        own.read(self.options.timeout);
        drop(waiting);
        let waiting = self.waiting(&format!("Ollama at {base}"));
        let ollama = asked.recv_timeout(left()).unwrap_or(OllamaState::PENDING);
        drop(waiting);
        let latest = Published::new(Arc::new(own.conclude(ollama, left())));
        self.own = Some(own);
        let now = unix_now();
        let at = Moment { now, sample_age_ms: 0, process_seconds: 0, stale: None, registrations: &[], keepers: &[] };
        if text { latest.text(&at) } else { crate::sys::json::json(&latest.report(None, &at)) }
    }

    /// Says on stderr what is waited for if that takes long; until it is dropped.
    fn waiting(&self, what: &str) -> Sender<()> {
        let (over, is_over) = mpsc::channel();
        let line = format!("waiting for {what} (up to {} s) ...", self.options.timeout.as_secs_f64());
        let said = Arc::clone(&self.said);
        thread::spawn(move || {
            let long = is_over.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout);
            if long && !said.swap(true, Ordering::Relaxed) {
                // A closed stderr does not stop it.
                let _ = writeln!(io::stderr(), "{line}");
            }
        });
        over
    }
}
