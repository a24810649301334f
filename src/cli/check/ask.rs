//! One verdict: asked of a worker, else made here.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use super::options::{Form, NamedWorker, Options};
use super::render;
use super::waiting::Waiting;
use crate::api::report::{Moment, Published};
use crate::cli::doctor::checks;
use crate::cli::local::{self, NoAnswer};
use crate::config::Config;
use crate::health::once::Once;
use crate::health::verdict::Verdict;
use crate::http::refusal::error_body;
use crate::ollama::state::OllamaState;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;

/// Asks, and keeps the helper of its own that it may need for it.
pub(super) struct Asker {
    config: Config,
    options: Options,
    own: Option<Once>,
    waiting: Waiting,
}

impl Asker {
    pub(super) fn new(config: Config, options: Options) -> Self {
        let waiting = Waiting::new(!matches!(options.form, Form::Npd(_)));
        Self { config, options, own: None, waiting }
    }

    /// The verdict's exit code, and what is to be printed.
    pub(super) fn ask(&mut self) -> (Exit, String) {
        let form = self.options.form;
        let answer = self.report().map_err(|why| why.to_string()).and_then(|body| match form {
            Form::Lines => render::summary(&body),
            Form::Json => render::summary(&body).map(|(verdict, _)| (verdict, render::json_line(&body))),
            Form::Text => render::verdict_of_text(&body).map(|verdict| (verdict, body)),
            Form::Npd(_) => render::npd(&body),
        });
        let (verdict, text) = answer.unwrap_or_else(|why| {
            let text = match form {
                Form::Lines => render::unknown(&why),
                Form::Json => error_body("unreachable", &why, unix_now()) + "\n",
                Form::Text => render::unknown_text(&why),
                Form::Npd(_) => render::npd_unknown(&why),
            };
            (Verdict::Unknown, text)
        });
        match form {
            Form::Npd(problem) => (npd_exit(verdict, problem), text),
            _ => (verdict.into(), text),
        }
    }

    /// The report of the worker that was named, else of this machine's, else one that is made now.
    fn report(&mut self) -> Result<String, NoAnswer> {
        let deadline = Instant::now() + self.options.timeout;
        let (config, text) = (&self.config, self.options.form == Form::Text);
        let own = || format!("http://{}", local::reachable(config.host, config.port));
        let named = self.options.workers.first();
        let base = named.map_or_else(own, |worker| worker.url.as_str().to_owned());
        let authorization = named.and_then(NamedWorker::authorization).or_else(|| config.worker_authorization());
        let waiting = self.waiting(&base);
        let answer = local::report(&base, authorization.as_deref(), text, self.options.timeout);
        drop(waiting);
        match answer {
            Err(NoAnswer::Refused(_)) if named.is_none() && self.may_sample() => Ok(self.sample(deadline, text)),
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
        let waiting = self.waiting("the GPUs' driver");
        own.read(self.options.timeout);
        drop(waiting);
        let waiting = self.waiting(&format!("Ollama at {base}"));
        let ollama = asked.recv_timeout(left()).unwrap_or(OllamaState::PENDING);
        drop(waiting);
        let latest = Published::new(Arc::new(own.conclude(ollama, left())));
        self.own = Some(own);
        let now = unix_now();
        let at = Moment {
            now,
            sample_age_ms: 0,
            process_seconds: 0,
            stale: None,
            registrations: &[],
            notifications: &[],
            keepers: &[],
            heartbeat: None,
        };
        if text { latest.text(&at) } else { crate::sys::json::json(&latest.report(None, &at)) }
    }

    /// Not with --npd: a reading of the driver takes longer than node-problem-detector waits.
    fn may_sample(&self) -> bool {
        !matches!(self.options.form, Form::Npd(_))
    }

    fn waiting(&self, what: &str) -> Sender<()> {
        self.waiting.begin(what, self.options.timeout)
    }
}

/// node-problem-detector has 0 for ok, 1 for a problem, and others for unknown.
fn npd_exit(verdict: Verdict, problem: Verdict) -> Exit {
    match verdict {
        Verdict::Unknown => Exit::Unhealthy,
        verdict if verdict >= problem => Exit::Failed,
        _ => Exit::Ok,
    }
}
