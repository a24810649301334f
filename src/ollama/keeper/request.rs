//! Requests that load a model or keep it loaded, and their results.

use std::time::Duration;

/// The time between two requests for one model.
pub(super) const BETWEEN_REQUESTS: Duration = Duration::from_secs(5);
/// A model is renewed when less than this, or less than half of its time, is left.
pub(super) const REFRESH_BEFORE: Duration = Duration::from_secs(60);

/// A request for a loaded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// The context length it was loaded with; None: unknown.
    pub(crate) num_ctx: Option<u64>,
    /// Sets our own time; otherwise that of the last client continues.
    pub(crate) keep_alive: bool,
}

/// An answered load or renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loading {
    pub(crate) took: Duration,
    /// Measured by Ollama; otherwise by our clock.
    pub(crate) by_ollama: bool,
}

/// Why a model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadError {
    pub(crate) why: String,
    /// Its files are incomplete: a pull may repair it.
    pub(crate) damaged: bool,
    /// No answer before the deadline.
    pub(crate) silent: bool,
    /// By Ollama's own words, the model's runner ended.
    pub(crate) died: bool,
}
