//! The verdicts of several workers, asked at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::options::{Form, NamedWorker, Options};
use super::render;
use super::waiting::Waiting;
use crate::cli::local;
use crate::health::verdict::Verdict;
use crate::http::refusal::error_body;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;
use crate::sys::order;

/// Workers that are asked at a time.
const AT_ONCE: usize = 32;

pub(super) struct Fleet {
    workers: Vec<NamedWorker>,
    /// WORKER_TOKEN, for those without a login of their own.
    authorization: Option<String>,
    form: Form,
    /// For each worker.
    timeout: Duration,
    waiting: Waiting,
}

impl Fleet {
    pub(super) fn new(authorization: Option<String>, options: &Options) -> Self {
        let Options { workers, form, timeout, .. } = options.clone();
        Self { workers, authorization, form, timeout, waiting: Waiting::new(true) }
    }

    /// The exit code of the worst verdict, and what is to be printed, in the order of the workers.
    pub(super) fn ask(&self) -> (Exit, String) {
        let waiting = self.waiting.begin(&format!("{} workers", self.workers.len()), self.timeout);
        let next = AtomicUsize::new(0);
        let some = || {
            let ours = std::iter::from_fn(|| {
                let at = next.fetch_add(1, Ordering::Relaxed);
                self.workers.get(at).map(|worker| (at, self.ask_one(worker)))
            });
            ours.collect::<Vec<_>>()
        };
        let mut all = thread::scope(|scope| {
            // This thread asks as well, so that it works where no further thread can be started.
            let others = 1..AT_ONCE.min(self.workers.len());
            let others: Vec<_> = others.filter_map(|_| thread::Builder::new().spawn_scoped(scope, some).ok()).collect();
            let mut all = some();
            all.extend(others.into_iter().filter_map(|other| other.join().ok()).flatten());
            all
        });
        drop(waiting);
        order::sort_by_key(&mut all, |(at, _)| *at);
        let worst = all.iter().map(|(_, (verdict, _))| *verdict).max().unwrap_or(Verdict::Unknown);
        let texts: Vec<String> = all.into_iter().map(|(_, (_, text))| text).collect();
        let text = match self.form {
            Form::Json => format!("[{}]\n", texts.join(",")),
            Form::Text => texts.join("\n"),
            Form::Lines | Form::Npd(_) => texts.concat(),
        };
        (worst.into(), text)
    }

    fn ask_one(&self, worker: &NamedWorker) -> (Verdict, String) {
        let url = worker.url.as_str();
        let authorization = worker.authorization().or_else(|| self.authorization.clone());
        let body = local::report(url, authorization.as_deref(), self.form == Form::Text, self.timeout);
        let answer = body.map_err(|why| why.to_string()).and_then(|body| match self.form {
            Form::Json => render::json_report_of(url, &body),
            Form::Text => render::verdict_of_text(&body).map(|verdict| (verdict, render::text_of(url, &body))),
            Form::Lines | Form::Npd(_) => render::line_of(url, &body),
        });
        answer.unwrap_or_else(|why| {
            let text = match self.form {
                Form::Json => render::json_of(url, &error_body("unreachable", &why, unix_now())),
                Form::Text => render::text_of(url, &render::unknown_text(&why)),
                Form::Lines | Form::Npd(_) => render::unknown_of(url, &why),
            };
            (Verdict::Unknown, text)
        })
    }
}
