//! Whether jobs for one model may come: GET /ready?model=NAME. Each failed condition is a sentence that an operator of
//! another machine understands.

use super::snapshot::Snapshot;
use super::verdict::{Code, Reason, Verdict};
use crate::ollama::keeper::kept::KeeperIndex;
use crate::ollama::keeper::row::{KeeperRow, Stuck};
use crate::ollama::models::{self, ModelStatus};
use crate::ollama::probe::row::ProbeRow;
use crate::ollama::state::{OllamaState, Reach};

/// What is known of the model, and why no jobs for it may come.
#[derive(Debug)]
pub(crate) struct ModelReadiness<'a> {
    /// None while Ollama's models are unknown.
    pub(crate) pulled: Option<bool>,
    pub(crate) loaded: Option<bool>,
    /// None: unknown, or not loaded.
    pub(crate) on_gpu_percent: Option<u64>,
    /// The last one; None without any.
    pub(crate) probe: Option<&'a ProbeRow>,
    /// Empty: the model is ready.
    pub(crate) why: Vec<String>,
}

/// `reasons`: those of the snapshot, and that of a stale one. `gpu_percent`: the least share on the GPU.
pub(crate) fn of_model<'a>(
    snapshot: &'a Snapshot,
    reasons: &[&Reason],
    name: &str,
    gpu_percent: u8,
) -> ModelReadiness<'a> {
    let ollama = &snapshot.ollama;
    let mut why: Vec<String> =
        reasons.iter().filter(|reason| counts(reason)).map(|reason| stop(&reason.message)).collect();
    let status = ollama.lists_known.then(|| models::status_of(&ollama.models, name));
    match &status {
        Some(status) => why.extend(placement(status, name, gpu_percent)),
        None => why.extend(unknown_models(ollama)),
    }
    let digest = status.as_ref().and_then(|status| status.digest.as_deref());
    let keeper = KeeperIndex::new(&snapshot.keepers, &ollama.models).row_of(name, digest);
    why.extend(keeper.into_iter().flat_map(|keeper| silence(keeper, name, gpu_percent)));
    ModelReadiness {
        pulled: status.as_ref().map(|status| status.pulled),
        loaded: status.as_ref().map(|status| status.loaded.is_some()),
        on_gpu_percent: status.and_then(|status| status.loaded?.on_gpu_percent()),
        probe: keeper.and_then(|keeper| keeper.probes.last.as_ref()),
        why,
    }
}

/// With a full stop. Its start stays: it may be the name of a function or of a model.
fn stop(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

/// A hung runner is a matter of its own model, which its keeper knows.
fn counts(reason: &Reason) -> bool {
    reason.severity == Verdict::Unhealthy && !matches!(reason.code, Code::ModelHangs | Code::ModelStuck)
}

/// Why Ollama's models are unknown; None: an unhealthy reason says it.
fn unknown_models(ollama: &OllamaState) -> Option<String> {
    match (&ollama.reach, &ollama.list_error) {
        (Reach::Down(_), _) => None,
        (Reach::Pending, _) => Some("Ollama has not answered yet.".into()),
        (Reach::Up { .. }, Some(trouble)) => Some(stop(&format!("Ollama cannot list its models: {}", trouble.why))),
        (Reach::Up { .. }, None) => Some("Ollama has not listed its models yet.".into()),
    }
}

/// What is wrong with where the model is.
fn placement(status: &ModelStatus, name: &str, gpu_percent: u8) -> Option<String> {
    if let Some(host) = &status.remote_host {
        return Some(format!("{name} runs in Ollama's cloud ({host}), not on this machine's GPU."));
    }
    let Some(loaded) = status.loaded else {
        let how = if status.pulled { "pulled, but not loaded" } else { "not pulled into Ollama" };
        return Some(format!("{name} is {how}."));
    };
    match loaded.on_gpu_percent() {
        _ if gpu_percent == 0 => None,
        None => Some(format!("The share of {name} on the GPU is unknown; {gpu_percent} % is required.")),
        Some(percent) if percent >= u64::from(gpu_percent) => None,
        Some(0) => Some(format!("{name} runs on the CPU; {gpu_percent} % on the GPU is required.")),
        Some(percent) => Some(format!("Only {percent} % of {name} is on the GPU; {gpu_percent} % is required.")),
    }
}

/// What requests of the worker for the model have found.
fn silence(keeper: &KeeperRow, name: &str, gpu_percent: u8) -> impl Iterator<Item = String> {
    let stuck = (keeper.stuck == Some(Stuck::Certainly)).then(|| {
        format!("Two requests in a row for {name}, which Ollama lists as loaded past its expiry, got no answer.")
    });
    let hangs = keeper.probes.silence(name).map(|text| stop(&text));
    // Ollama goes on listing a model whose runner has died.
    let dies = keeper.deaths.in_words(name).filter(|_| hangs.is_none() && keeper.deaths.is_down());
    let dies = dies.map(|text| stop(&text));
    let idle = keeper.probes.idleness(name).filter(|_| gpu_percent > 0).map(|text| stop(&text));
    [stuck, hangs, dies, idle].into_iter().flatten()
}

#[cfg(test)]
mod tests;
