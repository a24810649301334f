//! What an answer to a probe says, and whether it can be believed: a status of 200 alone proves nothing. All times are
//! Ollama's own.

use std::time::Duration;

use serde::Deserialize;

use crate::ollama::pull::shortened;
use crate::outgoing::refusal::error_of;

/// Fewer tokens give no speed.
pub(crate) const LEAST_TOKENS: u64 = 8;
/// Tokens that a probe asks for. Ollama ends an answer that repeats one token more than 30 times without saying so.
pub(crate) const TOKENS: u64 = 16;
/// Some versions write one token more than requested.
const MOST_TOKENS: u64 = TOKENS + 8;
/// The prompt has a few dozen tokens.
const MOST_TOKENS_READ: u64 = 1000;
/// No GPU writes a token in less time.
const FASTEST_TOKEN: Duration = Duration::from_micros(10);
/// Ollama measures with its own clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
/// A longer `load_duration` means a reload (same runner: 1 to 12 ms; reload of the smallest model: 258 ms).
pub(crate) const RELOAD: Duration = Duration::from_millis(200);
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

    /// Its speed counts: the model was loaded and served no other request.
    pub(crate) fn is_measured(&self) -> bool {
        self.tokens_per_second().is_some() && !self.reloaded() && !self.queued()
    }

    pub(crate) fn reloaded(&self) -> bool {
        self.load >= RELOAD
    }

    pub(crate) fn queued(&self) -> bool {
        self.queue() >= QUEUED
    }
}

/// One line of an answer. Ollama leaves out numbers that are 0; their unit is a nanosecond.
#[derive(Deserialize)]
struct Line {
    error: Option<String>,
    model: Option<String>,
    created_at: Option<String>,
    #[serde(default)]
    done: bool,
    total_duration: Option<u64>,
    load_duration: Option<u64>,
    prompt_eval_count: Option<u64>,
    prompt_eval_duration: Option<u64>,
    eval_count: Option<u64>,
    eval_duration: Option<u64>,
    embeddings: Option<Vec<Vec<f64>>>,
}

/// Whether the model only makes embeddings: Ollama answers so before it loads anything.
pub(crate) fn makes_no_text(status: u16, body: &[u8]) -> bool {
    status == 400
        && error_of(&String::from_utf8_lossy(body)).is_some_and(|error| error.contains("does not support generate"))
}

/// What came of a probe, by Ollama's answer to it. `waited`: how long the request took by our clock. `embedding`: it asked
/// for an embedding.
pub(crate) fn parse(status: u16, body: &[u8], waited: Duration, embedding: bool) -> Outcome {
    if status != 200 {
        return refused(status, &String::from_utf8_lossy(body), embedding);
    }
    answered(body, waited, embedding).map_or_else(Outcome::Failed, Outcome::Answered)
}

fn refused(status: u16, text: &str, embedding: bool) -> Outcome {
    let error = error_of(text);
    let unable = embedding && error.as_ref().is_some_and(|error| error.contains("not support"));
    // Ollama's errors are JSON, except for a crash of its own. Its other statuses do not concern the model's runner.
    let crash = status == 500 && text.trim().is_empty();
    let of_the_model = matches!(status, 400 | 500 | 501) && !unable && (error.is_some() || crash);
    let who = if error.is_some() || crash { "Ollama answered" } else { "the server at OLLAMA_URL answers" };
    // A web page says less than its status.
    let text = if text.trim_start().starts_with('<') { "" } else { text };
    let said = shortened(error.as_deref().unwrap_or(text));
    let colon = if said.is_empty() { "" } else { ": " };
    let why = format!("{who} {status}{colon}{said}");
    if of_the_model { Outcome::Failed(why) } else { Outcome::Unasked(why) }
}

/// # Errors
/// Why the answer proves nothing.
fn answered(body: &[u8], waited: Duration, embedding: bool) -> Result<Answered, String> {
    let line = last_line(body)?;
    if !line.done && !embedding {
        return Err("its answer has no end (done is not true)".into());
    }
    if line.model.as_deref() == Some("") || line.created_at.is_some_and(|at| at.starts_with("0001-")) {
        return Err("its answer names no model: Ollama swallowed an error".into());
    }
    let time = |ns: Option<u64>| Duration::from_nanos(ns.unwrap_or(0));
    let answered = Answered {
        total: time(line.total_duration),
        load: time(line.load_duration),
        prompt: time(line.prompt_eval_duration),
        eval: time(line.eval_duration),
        tokens_read: line.prompt_eval_count.unwrap_or(0),
        tokens_written: line.eval_count.unwrap_or(0),
        embedding,
    };
    if embedding {
        prove_embedding(line.embeddings.as_deref())?;
    } else {
        prove_tokens(&answered)?;
    }
    let longest = answered.total.max(answered.load + answered.prompt + answered.eval);
    if longest > waited + CLOCK_TOLERANCE {
        let (reported, took) = (longest.as_secs_f64(), waited.as_secs_f64());
        return Err(format!("its answer reports {reported:.1} s of work, but the request took {took:.1} s"));
    }
    match answered.tokens_read {
        0..=MOST_TOKENS_READ => Ok(answered),
        read => Err(format!("its answer reports {read} tokens of a short prompt")),
    }
}

/// The last object of the answer: some proxies stream although the request forbids it.
fn last_line(body: &[u8]) -> Result<Line, String> {
    let mut last = None;
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Line>() {
        let line = line.map_err(|why| format!("its answer is not Ollama's JSON: {}", shortened(&why.to_string())))?;
        if let Some(error) = line.error {
            return Err(shortened(&error));
        }
        last = Some(line);
    }
    last.ok_or_else(|| "its answer is empty".into())
}

fn prove_tokens(answered: &Answered) -> Result<(), String> {
    let (tokens, eval) = (answered.tokens_written, answered.eval);
    if tokens == 0 {
        return Err("it answered without a token".into());
    }
    if tokens > MOST_TOKENS {
        return Err(format!("its answer reports {tokens} tokens, but {TOKENS} were requested"));
    }
    if answered.total.is_zero() {
        return Err("its answer lacks total_duration".into());
    }
    // The first token is counted with the prompt: one token alone takes 1 µs by Ollama's statistics.
    if tokens >= LEAST_TOKENS && eval < FASTEST_TOKEN * u32::try_from(tokens).unwrap_or(u32::MAX) {
        return Err(format!("its answer reports {tokens} tokens within {} µs", eval.as_micros()));
    }
    Ok(())
}

fn prove_embedding(embeddings: Option<&[Vec<f64>]>) -> Result<(), String> {
    let vector = embeddings.unwrap_or_default().first().map(Vec::as_slice).unwrap_or_default();
    if vector.is_empty() {
        return Err("it answered without an embedding".into());
    }
    if vector.iter().all(|value| *value == 0.0) { Err("its embedding is all zeros".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
