//! Whether the models of MODEL are probed, and if not why.

use super::diagnosis::Finding;
use crate::config::Models;
use crate::ollama::models;
use crate::ollama::state::{OllamaState, Reach};

pub(super) fn findings(state: &OllamaState, wanted: &Models) -> Vec<Finding> {
    let pass = |detail: &str| vec![Finding::pass("probe", detail)];
    let Some(interval) = wanted.probe.interval else {
        return pass("PROBE_INTERVAL is off: whether models answer is not checked");
    };
    if wanted.names.is_empty() {
        return pass("MODEL is unset: only models of MODEL are probed");
    }
    // What is wrong with Ollama is a finding of its own.
    if !matches!(state.reach, Reach::Up { .. }) || !state.lists_known {
        return Vec::new();
    }
    let one = |name: &String| {
        let status = models::status_of(&state.models, name);
        let not_now = |why: &str| Finding::pass("probe", format!("MODEL={name} is not probed: it {why}"));
        match (status.loaded, status.pulled) {
            // `models` has the fix for these.
            _ if status.remote_host.is_some() => not_now("runs in Ollama's cloud"),
            (None, true) => not_now("is not loaded"),
            (None, false) => not_now("is not pulled"),
            (Some(loaded), _) if loaded.context_length.is_none() => Finding::warn(
                "probe",
                format!(
                    "MODEL={name} is not probed: Ollama does not list its context length, so a probe could reload it"
                ),
                "Update Ollama to 0.10 or later.",
            ),
            (Some(_), _) => Finding::pass(
                "probe",
                format!("MODEL={name} is probed every {} s while nothing else uses it", interval.as_secs()),
            ),
        }
    };
    wanted.names.iter().map(one).collect()
}
