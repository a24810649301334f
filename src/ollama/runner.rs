//! Whether a model's runner dies again and again, by Ollama's answers to our own requests. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sys::text::start;

/// This many deaths within [`WINDOW`] are a finding. A loaded model is probed every 5 minutes, and a failed load is
/// repeated after 5 minutes at the latest.
const MANY: usize = 3;
const WINDOW: Duration = Duration::from_secs(30 * 60);
/// Characters of an error.
const MAX_WHY: usize = 200;
/// What Ollama says of a runner that ended, from version 0.1 to 0.33.
const DIED: [&str; 7] = [
    "llama runner process has terminated",
    "llama runner process no longer running",
    "llama-server process has terminated",
    "model runner has unexpectedly stopped",
    "an error was encountered while running the model: ",
    "CUDA error",
    // `POST predict: Post "http://127.0.0.1:36211/completion": EOF`
    "/completion\": EOF",
];
/// Ollama ends a request whose client is gone.
const CANCELED: &str = "context canceled";

/// Whether an error of Ollama's says that the runner ended.
pub(super) fn died(error: &str) -> bool {
    DIED.iter().any(|text| error.contains(text)) && !error.contains(CANCELED)
}

/// The deaths of a model's runner that our requests met.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Deaths {
    at: VecDeque<Duration>,
    /// Those since the last request that was answered.
    in_a_row: usize,
    why: String,
}

impl Deaths {
    /// A request has failed because the runner ended.
    pub(crate) fn add(&mut self, why: &str, now: Duration) {
        self.pass(now);
        self.at.push_back(now);
        self.in_a_row += 1;
        self.why = start(why, MAX_WHY);
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self) {
        self.in_a_row = 0;
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, now: Duration) {
        while self.at.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            self.at.pop_front();
        }
    }

    /// Ollama no longer has the model.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// No request has been answered since it began to die.
    pub(crate) fn is_down(&self) -> bool {
        self.at.len() >= MANY && self.in_a_row >= MANY
    }

    /// That it dies again and again, as what follows "Model"; None: it does not.
    pub(crate) fn in_words(&self, model: &str) -> Option<String> {
        let (count, minutes) = (self.at.len(), WINDOW.as_secs() / 60);
        (count >= MANY)
            .then(|| format!("{model} lost its runner {count} times within {minutes} minutes ({})", self.why))
    }
}

#[test]
fn only_ollamas_words_about_a_runner_are_its_death() {
    for error in [
        "llama runner process has terminated: exit status 2",
        "llama runner process has terminated: signal: killed",
        "llama runner process no longer running: -1 ",
        "llama-server process has terminated: exit status 3: cudaMalloc failed: out of memory",
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error",
        "an error was encountered while running the model: CUDA error: an illegal memory access was encountered",
        "POST predict: Post \"http://127.0.0.1:36211/completion\": EOF",
    ] {
        assert!(died(error), "{error}");
    }
    for error in [
        "",
        "model requires more system memory (9 GiB) than is available",
        "server busy, please try again.  maximum pending requests exceeded",
        "model 'x' not found",
        "timed out waiting for llama runner to start - progress 0.00",
        "an error was encountered while running the model: context canceled",
        "POST predict: Post \"http://127.0.0.1:36211/completion\": context canceled",
    ] {
        assert!(!died(error), "{error}");
    }
}

#[test]
fn three_deaths_in_half_an_hour_are_a_finding() {
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let mut deaths = Deaths::default();
    for at in [0, 10] {
        deaths.add("x", minutes(at));
        assert_eq!((deaths.in_words("m"), deaths.is_down()), (None, false));
    }
    deaths.add("y", minutes(29));
    assert_eq!(deaths.in_words("m").as_deref(), Some("m lost its runner 3 times within 30 minutes (y)"));
    assert!(deaths.is_down());
    // It works now, and may die again.
    deaths.answered();
    assert!(deaths.in_words("m").is_some() && !deaths.is_down());
    deaths.pass(minutes(30));
    assert_eq!(deaths.in_words("m"), None);
    // One death alone is never a finding, however many there were before.
    deaths.add("z", minutes(59));
    assert_eq!((deaths.in_words("m"), deaths.is_down()), (None, false));
    deaths.forget();
    assert_eq!(deaths, Deaths::default());
}
