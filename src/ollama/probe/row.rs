//! What is known of a model by its probes, for operators.

use serde::Serialize;

use crate::sys::text::start;

/// Speeds that are kept for the curve on the status page.
pub(crate) const RECENT: usize = 48;
/// Characters of a model's error.
const MAX_WHY: usize = 200;

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProbeResult {
    /// It answered.
    Ok,
    /// It answered, but its median is below half of its usual speed.
    Slow,
    /// No byte before PROBE_TIMEOUT.
    Hangs,
    /// An error, or an answer without a token.
    Failed,
    /// None was sent; `why` says why.
    Skipped,
}

impl ProbeResult {
    pub(crate) const ALL: [Self; 5] = [Self::Ok, Self::Slow, Self::Hangs, Self::Failed, Self::Skipped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Hangs => "hangs",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The last probe of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Probe"))]
pub(crate) struct ProbeRow {
    /// Unix seconds of its end, or of the decision to skip it.
    pub(crate) at: f64,
    pub(crate) result: ProbeResult,
    /// Why it is not ok, or what else it found; null where there is nothing to say.
    pub(crate) why: Option<String>,
    /// Unix seconds of the last answer; null before the first.
    pub(crate) answered_at: Option<f64>,
    /// Speed of the last answer; null for embeddings, and where there were too few tokens.
    pub(crate) tokens_per_second: Option<f64>,
    /// Milliseconds to load the model for the last answer: a few where it was loaded.
    pub(crate) load_ms: Option<u64>,
    /// Milliseconds that the last answer waited for other requests.
    pub(crate) queue_ms: Option<u64>,
    /// The highest utilization of a GPU during the last answer; null: unknown.
    pub(crate) gpu_utilization_percent: Option<u32>,
    /// The best median of five for this model, context, GPUs, driver and version of Ollama; null before five answers.
    pub(crate) usual_tokens_per_second: Option<f64>,
}

/// What the rules and the metrics take from the probes of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProbeFacts {
    /// None before the first.
    pub(crate) last: Option<ProbeRow>,
    /// The last speeds in tokens per second, oldest first, at most [`RECENT`].
    pub(crate) recent: Vec<f64>,
    /// Probes without an answer in a row: silent or failed ones. Skipped ones do not count.
    pub(crate) unanswered: u32,
    /// Set while the median of the last five is below half of the best one: both, in tokens per second.
    pub(crate) slow: Option<(f64, f64)>,
    /// Set while no GPU worked during probes although Ollama reports the model on one: what was seen, in one clause.
    pub(crate) idle_gpus: Option<String>,
    /// Probes in a row during which no GPU worked.
    pub(crate) idle_probes: u32,
    /// A GPU worked during a probe since the worker started, or since it last loaded the model for [`Heal::Reload`].
    pub(crate) gpu_worked: bool,
    /// Probes by result, in the order of [`ProbeResult::ALL`].
    pub(crate) counts: [u64; 5],
    /// Tokens read and written by probes.
    pub(crate) tokens: u64,
    /// Nanoseconds that the model computed for probes.
    pub(crate) busy_ns: u64,
    /// Attempts to heal the model by kind, succeeded and failed, in the order of [`Heal::ALL`].
    pub(crate) heals: [[u64; 2]; 2],
}

/// What was done for a model that does not work as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heal {
    /// It ran on the CPU: unloaded and loaded again.
    Reload,
    /// Its runner hung or had died: Ollama started another one for our request.
    Runner,
}

impl Heal {
    pub(crate) const ALL: [Self; 2] = [Self::Reload, Self::Runner];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Runner => "runner",
        }
    }
}

impl ProbeFacts {
    /// Two in a row without an answer are a finding; one is not.
    pub(crate) fn hangs(&self) -> bool {
        self.unanswered >= 2
    }

    /// No GPU works for it any more, and one did: the GPUs of this machine are Ollama's, and their readings show work.
    pub(crate) fn fell(&self) -> bool {
        self.idle_gpus.is_some() && self.gpu_worked
    }

    /// That it hangs, as what follows "Model"; None: it does not.
    pub(crate) fn silence(&self, model: &str) -> Option<String> {
        let last = self.last.as_ref().filter(|last| last.result != ProbeResult::Skipped);
        let why = last.and_then(|last| last.why.as_deref());
        let why = why.map_or_else(String::new, |why| format!(" ({})", start(why, MAX_WHY)));
        self.hangs().then(|| format!("{model} did not answer {} probes in a row{why}", self.unanswered))
    }

    /// That no GPU works for it; None: one does, or it is unknown.
    pub(crate) fn idleness(&self, model: &str) -> Option<String> {
        let seen = self.idle_gpus.as_ref()?;
        Some(format!("Ollama reports {model} on the GPU, but no GPU worked during two probes: {seen}"))
    }
}
