//! The body of GET /ready: whether jobs may come, at all or for one model.

use serde::Serialize;

use super::parameters::ModelQuery;
use super::report::{Moment, Published};
use crate::health::model_readiness::{self, ModelReadiness};
use crate::health::verdict::{Reason, Verdict};
use crate::livepeer::lease::RegistrationRow;
use crate::ollama::probe::row::ProbeRow;
use crate::sys::json::json;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Ready<'a> {
    /// `ready`, or `unhealthy` by the verdict. For a model: `ready` or `not_ready`.
    status: &'static str,
    verdict: Verdict,
    reasons: Vec<&'a Reason>,
    registrations: &'a [RegistrationRow],
    /// The model that the request names.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelReady<'a>>,
    /// With a model: a sentence for each failed condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Vec<String>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ModelReady<'a> {
    /// The model's name, as the request has it.
    name: &'a str,
    /// Null while Ollama's models are unknown.
    pulled: Option<bool>,
    /// Null while Ollama's models are unknown.
    loaded: Option<bool>,
    /// Share of the model that is in VRAM; null if it is unknown or the model is not loaded.
    on_gpu_percent: Option<u64>,
    required_gpu_percent: u8,
    /// The last probe; null where there was none.
    probe: Option<&'a ProbeRow>,
}

/// Whether the answer is a 200, and its body.
pub(super) fn answer(latest: &Published, at: &Moment<'_>, query: Option<&ModelQuery>) -> (bool, String) {
    let (verdict, reasons) = latest.reasons(at);
    let reasons: Vec<&Reason> = reasons.collect();
    let judged = query.map(|query| {
        let found = model_readiness::of_model(&latest.snapshot, &reasons, &query.name, query.gpu_percent);
        let ModelReadiness { pulled, loaded, on_gpu_percent, probe, why } = found;
        let required_gpu_percent = query.gpu_percent;
        (ModelReady { name: &query.name, pulled, loaded, on_gpu_percent, required_gpu_percent, probe }, why)
    });
    let (ready, otherwise) = match &judged {
        Some((_, why)) => (why.is_empty(), "not_ready"),
        None => (verdict != Verdict::Unhealthy, "unhealthy"),
    };
    let status = if ready { "ready" } else { otherwise };
    let (model, why) = judged.unzip();
    (ready, json(&Ready { status, verdict, reasons, registrations: at.registrations, model, why }))
}
