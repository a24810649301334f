//! An Ollama whose models are really loaded, kept, reloaded and unloaded: what a request finds depends on what others
//! asked for before. Held against the recordings of 0.33.0-rc2 (no GPU) in `scheduler_recordings`; what was not recorded
//! says so. Everything takes time as Ollama takes it, divided by `scale`, and answers report Ollama's own times;
//! keep-alives are not divided, since a worker compares them with its clock.

pub mod client;
pub mod model;
mod request;
mod runner;
mod take;
mod work;

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::dates::exact;
use crate::fake_ollama::Answer;
use crate::harness::lock;
use client::Client;
use model::{Model, full_name};
use request::{Asked, Path};
use runner::{Process, Runner, Runners};

/// Between two looks at a client that waits.
const LOOK: Duration = Duration::from_millis(5);
/// Ollama's own queue.
const MOST_PENDING: usize = 512;
/// Two of them fail before a runner is replaced: 20.33 s with the load of the smallest model.
const PING: Duration = Duration::from_millis(10_037);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    /// The client hung up.
    Gone,
    /// An error.
    Failed,
}

/// A request that needed a runner. Times are Ollama's own.
#[derive(Debug, Clone)]
pub struct Served {
    pub model: String,
    pub prompt: bool,
    /// A prompt without a template, as probes send it.
    pub raw: bool,
    pub num_ctx: Option<u64>,
    pub keep_alive: Option<Duration>,
    pub load: Duration,
    /// How long it waited for other requests.
    pub queue: Duration,
    pub end: End,
}

impl Served {
    /// What a worker sends to see that the model answers.
    pub fn is_probe(&self) -> bool {
        self.prompt && self.raw
    }

    /// Anything else of a worker loads or renews.
    pub fn is_of_a_client(&self) -> bool {
        self.prompt && !self.raw
    }
}

/// The scheduler of one Ollama.
#[derive(Debug)]
pub struct Scheduler {
    /// OLLAMA_MAX_LOADED_MODELS.
    pub most_loaded: AtomicUsize,
    /// OLLAMA_NUM_PARALLEL.
    pub parallel: usize,
    /// OLLAMA_MAX_QUEUE.
    pub most_pending: usize,
    /// Whether /api/ps lists the context: not before mid-2025.
    pub reports_context: bool,
    /// How many times faster than a real one it is.
    pub scale: u32,
    /// How long a runner is given to answer a ping.
    pub ping: Duration,
    models: Vec<Model>,
    /// What prompts are answered with from now on.
    untrue: Mutex<Option<String>>,
    runners: Mutex<Runners>,
    changed: Condvar,
    chance: AtomicU64,
}

impl Scheduler {
    /// As fast as a real one.
    pub fn new(most_loaded: usize, models: Vec<Model>) -> Self {
        Self {
            most_loaded: most_loaded.into(),
            parallel: 1,
            most_pending: MOST_PENDING,
            reports_context: true,
            scale: 1,
            ping: PING,
            models,
            untrue: Mutex::default(),
            runners: Mutex::default(),
            changed: Condvar::new(),
            chance: AtomicU64::new(1),
        }
    }

    /// What was served so far.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.runners).served.clone()
    }

    /// Requests that wait for a runner.
    pub fn pending(&self) -> usize {
        lock(&self.runners).pending.len()
    }

    /// Whether a request holds the runner of this model, or asks whether it answers.
    pub fn is_busy(&self, model: &str) -> bool {
        lock(&self.runners).of(&full_name(model)).any(|runner| runner.busy + runner.pings > 0)
    }

    /// What it answers; None: a stream that has been sent.
    pub fn answer(&self, path: &str, body: &str, client: &Client<'_>) -> Option<Answer> {
        match path {
            "/api/tags" => {
                let tags: Vec<Value> = self.models.iter().map(Model::tag).collect();
                return Some(Answer::Json(json!({"models": tags}).to_string()));
            }
            "/api/ps" => return Some(self.ps()),
            _ => {}
        }
        let Some(asked) = Path::of(path).and_then(|path| Asked::read(path, body)) else {
            return Some(Answer::Status(400, r#"{"error":"missing request body"}"#.into()));
        };
        match self.models.iter().find(|model| asked.is_for(model)) {
            Some(model) => self.serve(&asked, model, client),
            None => Some(error(404, &format!("model '{}' not found", asked.model))),
        }
    }

    /// Behind a runner that is being pinged it waits.
    fn ps(&self) -> Answer {
        let mut runners = lock(&self.runners);
        while runners.loaded.iter().any(|runner| runner.pings > 0) {
            runners = self.wait(runners);
        }
        runners.expire();
        let models: Vec<Value> = runners.loaded.iter().map(|runner| self.ps_row(runner)).collect();
        Answer::Json(json!({"models": models}).to_string())
    }

    fn ps_row(&self, runner: &Runner) -> Value {
        let model = &runner.model;
        let expires_at = runner.expires_at.unwrap_or_else(|| SystemTime::now() + runner.stored);
        let vram = if runner.on_cpu && !model.pretends { 0 } else { model.size_vram };
        let mut row = json!({
            "name": model.name, "model": model.name, "size": model.size, "digest": model.digest,
            "details": model.details(), "expires_at": exact(expires_at), "size_vram": vram,
        });
        if self.reports_context {
            let num_ctx = runner.options["num_ctx"].as_u64().unwrap_or_default();
            row["context_length"] = model.listed_ctx(num_ctx).into();
        }
        row
    }

    /// The runner of this model is killed. Ollama does not notice before the next request.
    pub fn kill_runner(&self, model: &str) {
        self.each(model, |runner| runner.process = Process::Killed);
    }

    /// SIGSTOP to the runner of this model.
    pub fn stop_runner(&self, model: &str) {
        self.each(model, |runner| runner.process = Process::Stopped);
    }

    /// SIGCONT.
    pub fn resume_runner(&self, model: &str) {
        self.each(model, |runner| runner.process = Process::Runs);
    }

    /// From now on it computes on the CPU, until it is loaded again.
    pub fn fall_to_cpu(&self, model: &str) {
        self.each(model, |runner| runner.on_cpu = true);
    }

    /// From now on all runners answer pings and nothing else, one request holds each of them, and their time has been
    /// up for long; or that request has ended.
    pub fn hang(&self, hang: bool) {
        for model in &self.models {
            self.each(&model.name, |runner| {
                runner.process = if hang { Process::Mute } else { Process::Runs };
                runner.busy = if hang { runner.busy + 1 } else { runner.busy - 1 };
                runner.expires_at = Some(SystemTime::now() - Duration::from_secs(600));
            });
        }
    }

    /// From now on prompts are answered with this body; None: with the truth.
    pub fn answer_prompts_with(&self, body: Option<&str>) {
        *lock(&self.untrue) = body.map(str::to_owned);
    }

    fn each(&self, model: &str, change: impl FnMut(&mut Runner)) {
        lock(&self.runners).of(&full_name(model)).for_each(change);
        self.changed.notify_all();
    }

    /// Until something has changed, or it is time to look at the client.
    fn wait<'a>(&self, runners: MutexGuard<'a, Runners>) -> MutexGuard<'a, Runners> {
        self.changed.wait_timeout(runners, LOOK).unwrap_or_else(PoisonError::into_inner).0
    }
}

fn error(status: u16, said: &str) -> Answer {
    Answer::Status(status, json!({"error": said}).to_string())
}
