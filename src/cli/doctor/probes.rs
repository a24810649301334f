//! Whether the models of MODEL are probed, and if not why.

use super::diagnosis::Finding;
use crate::config::Models;
use crate::ollama::models;
use crate::ollama::probe::state::{expiry, loaded_as};
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
        let too_old =
            status.loaded.is_some_and(|loaded| loaded.context_length.is_none() || loaded.expires_at.is_none());
        match loaded_as(&status).and_then(|_| expiry(&status)) {
            Ok(_) => {
                let often = format!("MODEL={name} is probed every {} s while nothing else uses it", interval.as_secs());
                Finding::pass("probe", often)
            }
            Err(why) if too_old => {
                Finding::warn("probe", format!("MODEL={name} is not probed: {why}"), "Update Ollama to 0.10 or later.")
            }
            // `models` has the fix for the others.
            Err(why) => Finding::pass("probe", format!("MODEL={name} is not probed: {why}")),
        }
    };
    wanted.names.iter().map(one).collect()
}
