//! What `probe` says of one model.

use std::time::Duration;

use serde::Serialize;

use crate::ollama::models::ModelStatus;
use crate::ollama::probe::answer::{Answered, LEAST_TOKENS, Outcome};
use crate::ollama::probe::report::tenths;
use crate::ollama::probe::row::ProbeResult;
use crate::ollama::probe::state::{LEFT, LoadedAs, loaded_as};
use crate::ollama::probe::witness::Witness;
use crate::sys::exit::Exit;
use crate::sys::text::{counted, one_line};

/// Whether a model can be asked without a change to how it is loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Why it cannot.
    Skip(String),
    Ask {
        loaded: LoadedAs,
        /// It serves another request.
        busy: bool,
    },
}

impl Readiness {
    /// `clock`: Unix seconds by Ollama's clock.
    pub(super) fn of(name: &str, status: &ModelStatus, clock: i64) -> Self {
        let left = status.loaded.and_then(|loaded| loaded.expires_at).map(|at| at.saturating_sub(clock));
        let why = match loaded_as(status) {
            Ok(_) if left.is_some_and(|left| (0..LEFT).contains(&left)) => {
                "it is about to expire: a request could load it again".into()
            }
            // The time of a model stands still while it serves a request.
            Ok(loaded) => return Self::Ask { loaded, busy: left.is_some_and(|left| left < 0) },
            Err(why) => why,
        };
        Self::Skip(if status.remote_host.is_some() || status.loaded.is_some() {
            why
        } else if status.pulled {
            format!("{why}. Run `ollama run {name} \"\"`")
        } else {
            format!("it is not pulled. Run `agent-net pull {name}`")
        })
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
                tokens_per_second: answered.tokens_per_second().map(tenths),
                load_ms: Some(millis(answered.load)),
                queue_ms: (!answered.embedding).then(|| millis(answered.queue())),
                tokens: (!answered.embedding).then_some(answered.tokens_written),
                gpu_utilization_percent: None,
            },
        }
    }

    /// What the GPUs did meanwhile. `on_gpu`: Ollama lists the model on one.
    pub(super) fn with(mut self, witness: Witness, on_gpu: bool) -> Self {
        self.gpu_utilization_percent = witness.percent();
        if let (Witness::Idle { clause, .. }, true) = (witness, on_gpu) {
            let idle = format!("Ollama lists it on a GPU, but no GPU worked: {clause}");
            self.why = Some(self.why.map_or(idle.clone(), |why| format!("{why}; {idle}")));
        }
        self
    }

    pub(super) fn text(&self) -> String {
        let parts = [
            self.tokens_per_second.map(|speed| format!("{speed:.1} tokens/s")),
            self.tokens.map(|tokens| counted(tokens, "token")),
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
