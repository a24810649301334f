//! What an answer to a probe says. All times are Ollama's own.

use std::time::Duration;

/// Fewer tokens give no speed.
pub(crate) const LEAST_TOKENS: u64 = 8;
/// Tokens that a probe asks for. Ollama ends an answer that repeats one token more than 30 times without saying so.
pub(crate) const TOKENS: u64 = 16;
/// A longer `load_duration` means a reload (same runner: 1 to 12 ms; reload of the smallest model: 258 ms).
const RELOAD: Duration = Duration::from_millis(200);
/// A longer wait means that the model served others.
const QUEUED: Duration = Duration::from_millis(100);

/// What came of a probe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Answered(Answered),
    /// No byte within the timeout.
    Silent,
    /// An error of the model, or an answer without a token: what was wrong with it.
    Failed(String),
    /// It says nothing about the model: Ollama is busy, away or has no such model, or a proxy refused the request.
    Unasked(String),
}

/// An answer that holds at least one token, or an embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Answered {
    pub(crate) total: Duration,
    pub(crate) load: Duration,
    pub(crate) prompt: Duration,
    pub(crate) eval: Duration,
    pub(crate) tokens_read: u64,
    pub(crate) tokens_written: u64,
    /// It was asked for an embedding: no tokens are written.
    pub(crate) embedding: bool,
}

impl Answered {
    /// How long it waited for other requests. An embedding does not tell.
    pub(crate) fn queue(&self) -> Duration {
        if self.embedding {
            return Duration::ZERO;
        }
        self.total.saturating_sub(self.load).saturating_sub(self.prompt).saturating_sub(self.eval)
    }

    /// How long the model computed.
    pub(crate) fn busy(&self) -> Duration {
        if self.embedding { self.total.saturating_sub(self.load) } else { self.prompt + self.eval }
    }

    /// None for an embedding, and for fewer than [`LEAST_TOKENS`].
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let enough = !self.embedding && self.tokens_written >= LEAST_TOKENS && !self.eval.is_zero();
        enough.then(|| self.tokens_written as f64 / self.eval.as_secs_f64())
    }

    pub(crate) fn reloaded(&self) -> bool {
        self.load >= RELOAD
    }

    pub(crate) fn queued(&self) -> bool {
        self.queue() >= QUEUED
    }
}
