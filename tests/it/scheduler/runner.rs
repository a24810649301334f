//! The runners that are loaded, and the requests that wait for another one.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::request::{Asked, Options};
use super::{Model, Served};

pub const DEFAULT_TIME: Duration = Duration::from_secs(300);

/// What became of a runner's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Runs,
    /// SIGKILL.
    Killed,
    /// SIGSTOP: it does not answer a ping either.
    Stopped,
    /// It answers pings and nothing else. Not recorded; reported by users (ollama#7779).
    Mute,
}

#[derive(Debug)]
pub struct Runner {
    pub id: u64,
    pub model: Model,
    pub options: Options,
    /// The duration of the model.
    pub stored: Duration,
    /// None: no request has ended yet.
    pub expires_at: Option<SystemTime>,
    /// Requests that hold it.
    pub busy: usize,
    /// Those among them that are computed now.
    pub computing: usize,
    /// Those that wait for that, the longest first.
    pub waiting: VecDeque<u64>,
    /// Pings that are under way.
    pub pings: usize,
    pub on_cpu: bool,
    pub process: Process,
}

/// Whether a loaded runner serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Serves(u64),
    /// It serves, if it answers a ping.
    Ping(u64),
    /// Another one is needed first.
    Replace(u64),
    NotLoaded,
}

#[derive(Debug, Default)]
pub struct Runners {
    pub loaded: Vec<Runner>,
    /// The first one is being processed.
    pub pending: VecDeque<u64>,
    pub served: Vec<Served>,
    last_id: u64,
}

impl Runners {
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub fn get(&mut self, id: u64) -> Option<&mut Runner> {
        self.loaded.iter_mut().find(|runner| runner.id == id)
    }

    /// The runners of a model, or all.
    pub fn of<'a>(&'a mut self, model: &'a str) -> impl Iterator<Item = &'a mut Runner> {
        self.loaded.iter_mut().filter(move |runner| runner.model.name == model)
    }

    pub fn expire(&mut self) {
        let now = SystemTime::now();
        let over = |runner: &Runner| runner.expires_at.is_some_and(|at| at <= now);
        self.loaded.retain(|runner| runner.busy > 0 || !over(runner));
    }

    pub fn fit(&self, model: &Model, asked: &Asked) -> Fit {
        let Some(runner) = self.loaded.iter().find(|runner| runner.model.name == model.name) else {
            return Fit::NotLoaded;
        };
        if runner.options != asked.options(model) || runner.process == Process::Killed {
            Fit::Replace(runner.id)
        } else if runner.process == Process::Stopped {
            Fit::Ping(runner.id)
        } else {
            Fit::Serves(runner.id)
        }
    }

    /// Unloads it, or as soon as its last request has ended. Whether it is gone.
    pub fn unload(&mut self, id: u64) -> bool {
        if let Some(runner) = self.get(id) {
            runner.stored = Duration::ZERO;
        }
        self.loaded.retain(|runner| runner.id != id || runner.busy > 0);
        self.get(id).is_none()
    }

    /// The one that makes room: an idle one if there is any, of these the one that is kept for the shortest time.
    pub fn to_evict(&self) -> Option<u64> {
        self.loaded.iter().min_by_key(|runner| (runner.busy > 0, runner.stored)).map(|runner| runner.id)
    }

    /// It is being pinged; lists wait.
    pub fn mark(&mut self, id: u64) {
        if let Some(runner) = self.get(id) {
            runner.pings += 1;
        }
    }

    pub fn unmark(&mut self, marked: &mut Option<u64>) {
        if let Some(runner) = marked.take().and_then(|id| self.get(id)) {
            runner.pings -= 1;
        }
    }

    pub fn hold(&mut self, id: u64, keep_alive: Option<Duration>) {
        if let Some(runner) = self.get(id) {
            runner.busy += 1;
            runner.stored = keep_alive.unwrap_or(runner.stored);
        }
    }

    pub fn give_back(&mut self, id: u64) {
        let Some(runner) = self.get(id) else { return };
        runner.busy -= 1;
        if runner.busy == 0 {
            runner.expires_at = Some(SystemTime::now() + runner.stored);
            if runner.stored.is_zero() {
                self.unload(id);
            }
        }
    }
}
