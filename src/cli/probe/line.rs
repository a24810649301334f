//! What `probe` says of one model.

use std::time::Duration;

use serde::Serialize;

use crate::ollama::models::ModelStatus;
use crate::ollama::probe::answer::{Answered, LEAST_TOKENS, Outcome};
use crate::ollama::probe::row::ProbeResult;
use crate::sys::exit::Exit;
use crate::sys::text::{counted, one_line};

/// Whether a model can be asked without a change to how it is loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Why it cannot.
    Skip(String),
    Ask {
        num_ctx: u64,
        /// It serves another request.
        busy: bool,
    },
}

impl Readiness {
    /// `clock`: Unix seconds by Ollama's clock.
    pub(super) fn of(name: &str, status: &ModelStatus, clock: i64) -> Self {
        let skip = |why: String| Self::Skip(why);
        if status.remote_host.is_some() {
            return skip("it runs in Ollama's cloud, not on this machine's GPU".into());
        }
        let Some(loaded) = status.loaded else {
            let (lacks, verb) = if status.pulled { ("loaded", "ollama run") } else { ("pulled", "agent-net pull") };
            let prompt = if status.pulled { " \"\"" } else { "" };
            return skip(format!("it is not {lacks}. Run `{verb} {name}{prompt}`"));
        };
        match loaded.context_length {
            None => skip(
                "Ollama does not list its context length, so a probe could reload it. Update Ollama to 0.10 or later"
                    .into(),
            ),
            // The time of a model stands still while it serves a request.
            Some(num_ctx) => Self::Ask { num_ctx, busy: loaded.expires_at.is_some_and(|at| at < clock) },
        }
    }
}

/// One line of the output, or one object of its JSON.
#[derive(Debug, Serialize)]
pub(super) struct ProbeLine {
    model: String,
    result: ProbeResult,
    /// Why it is not ok, or what else was found.
    why: Option<String>,
    tokens_per_second: Option<f64>,
    load_ms: Option<u64>,
    queue_ms: Option<u64>,
    /// Tokens written; None for an embedding.
    tokens: Option<u64>,
    gpu_utilization_percent: Option<u32>,
}

impl ProbeLine {
    pub(super) fn skipped(name: &str, why: String) -> Self {
        Self::unanswered(name, ProbeResult::Skipped, why)
    }

    fn unanswered(name: &str, result: ProbeResult, why: String) -> Self {
        Self {
            model: name.to_owned(),
            result,
            why: Some(why),
            tokens_per_second: None,
            load_ms: None,
            queue_ms: None,
            tokens: None,
            gpu_utilization_percent: None,
        }
    }

    /// `busy`: the model served another request when the probe began.
    pub(super) fn of(name: &str, outcome: Outcome, timeout: Duration, busy: bool) -> Self {
        let serves = if busy { "; the model served another request when the probe began" } else { "" };
        let unanswered = |result, why| Self::unanswered(name, result, format!("{why}{serves}"));
        match outcome {
            Outcome::Silent => unanswered(ProbeResult::Hangs, format!("no answer within {} s", timeout.as_secs())),
            Outcome::Failed(why) => unanswered(ProbeResult::Failed, why),
            Outcome::Unasked(why) => unanswered(ProbeResult::Skipped, why),
            Outcome::Answered(answered) => Self {
                model: name.to_owned(),
                result: ProbeResult::Ok,
                why: remarks(&answered, busy),
                tokens_per_second: answered.tokens_per_second().map(|speed| (speed * 100.0).round() / 100.0),
                load_ms: Some(millis(answered.load)),
                queue_ms: (!answered.embedding).then(|| millis(answered.queue())),
                tokens: (!answered.embedding).then_some(answered.tokens_written),
                gpu_utilization_percent: None,
            },
        }
    }

    pub(super) fn text(&self) -> String {
        let parts = [
            self.tokens_per_second.map(|speed| format!("{speed:.1} tokens/s")),
            self.tokens.map(|tokens| counted(usize::try_from(tokens).unwrap_or(usize::MAX), "token")),
            self.load_ms.map(|time| format!("load {time} ms")),
            self.queue_ms.map(|time| format!("queue {time} ms")),
            self.gpu_utilization_percent.map(|percent| format!("GPU {percent} %")),
            self.why.clone(),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        one_line(&format!("{}: {}: {}", self.model, self.result.name(), parts.join(", "))) + "\n"
    }
}

/// What else an answer shows.
fn remarks(answered: &Answered, busy: bool) -> Option<String> {
    let few = !answered.embedding && answered.tokens_written < LEAST_TOKENS;
    let remarks = [
        (answered.embedding, "an embedding has no speed"),
        (few, "too few tokens for a speed"),
        (answered.reloaded(), "Ollama reloaded it: its runner had died or hung, or a client uses other options"),
        (busy || answered.queued(), "it served another request when the probe began"),
    ];
    let remarks: Vec<&str> = remarks.into_iter().filter(|(applies, _)| *applies).map(|(_, words)| words).collect();
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `{"probes":[…]}`
pub(super) fn json(probes: &[ProbeLine]) -> String {
    #[derive(Serialize)]
    struct Probes<'a> {
        probes: &'a [ProbeLine],
    }
    crate::sys::json::json(&Probes { probes })
}

/// The worst of all; without a model nothing was proven.
pub(super) fn exit(probes: &[ProbeLine]) -> Exit {
    let any = |result| probes.iter().any(|probe| probe.result == result);
    if any(ProbeResult::Hangs) {
        Exit::Unhealthy
    } else if !probes.is_empty() && probes.iter().all(|probe| probe.result == ProbeResult::Ok) {
        Exit::Ok
    } else {
        Exit::Failed
    }
}
