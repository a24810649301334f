//! Whether Ollama and its models are as they should be.

use super::diagnosis::Finding;
use crate::health::codes::advice;
use crate::ollama::models::{self, Model};
use crate::ollama::state::{OllamaState, Reach};
use crate::sys::text::{counted, sentence};

/// Whether Ollama answers, whether its models are on the GPU, and whether those of MODEL, `wanted`, are loaded.
pub(super) fn findings(url: &str, state: &OllamaState, wanted: &[String]) -> Vec<Finding> {
    let version = match &state.reach {
        Reach::Up { version } => version,
        Reach::Down(trouble) => {
            let detail = format!("{url} is not responding: {}", trouble.why);
            return vec![Finding::fail("ollama", detail, sentence(trouble.cure()))];
        }
        Reach::Pending => {
            return vec![Finding::fail(
                "ollama",
                format!("{url} is not responding"),
                "Start Ollama, or fix OLLAMA_URL.",
            )];
        }
    };
    if let Some(trouble) = &state.list_error {
        let detail = format!("{url} is Ollama {version}, but cannot list its models: {}", trouble.why);
        return vec![Finding::warn("ollama", detail, sentence(trouble.cure_of_lists()))];
    }
    let pulled = counted(state.models.iter().filter(|m| m.pulled).count(), "model");
    let mut all = vec![Finding::pass("ollama", format!("{url} is Ollama {version}; {pulled} pulled"))];
    let loaded: Vec<&Model> = state.models.iter().filter(|m| m.loaded.is_some()).collect();
    if loaded.is_empty() {
        all.push(Finding::pass("models", "none loaded: whether Ollama uses the GPU is unknown"));
    }
    for model in loaded {
        let share = model.loaded.and_then(|l| l.on_gpu_percent());
        all.push(match share {
            Some(0) => Finding::warn(
                "models",
                format!("{} is running on the CPU, not the GPU", model.name),
                [advice::ON_CPU, advice::ON_CPU_AFTER_SLEEP].concat(),
            ),
            Some(percent) => Finding::pass("models", format!("{} is loaded, {percent} % of it on the GPU", model.name)),
            None => Finding::pass("models", format!("{} is loaded", model.name)),
        });
    }
    all.extend(wanted.iter().filter_map(|name| {
        let status = models::status_of(&state.models, name);
        match (status.loaded, status.pulled) {
            _ if status.remote_host.is_some() => Some(Finding::warn(
                "models",
                format!("MODEL={name} runs in Ollama's cloud and uses no GPU of this machine"),
                "Remove it from MODEL: a worker neither pulls nor loads it.",
            )),
            (Some(_), _) => None,
            (None, true) => Some(Finding::warn(
                "models",
                format!("MODEL={name} is not loaded"),
                "Start the worker, which loads it. `model_keeper` in GET /gpu shows progress, or why it is stuck.",
            )),
            (None, false) => Some(Finding::warn(
                "models",
                format!("MODEL={name} is not pulled"),
                format!("Start the worker, which pulls it, or run `agent-net pull {name}`."),
            )),
        }
    }));
    all
}
