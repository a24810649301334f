//! Ollama, its models beside the GPUs, and the uptime.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::findings::Findings;
use super::probes;
use crate::gpu::holders;
use crate::gpu::state::GpuState;
use crate::health::history;
use crate::health::uptime::WINDOWS;
use crate::health::verdict::{Code, Verdict};
use crate::ollama::keeper::row::Stuck;
use crate::ollama::models;
use crate::ollama::state::Reach;
use crate::sys::text::sentence;

pub(super) fn service_reasons(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    ollama(facts, findings);
    probes::probe_reasons(facts, findings);
    vram_mismatch(facts, findings);
    wanted_models(facts, findings);
    kept_models(facts, findings);
    uptime(facts, findings);
}

fn ollama(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    match &facts.ollama.reach {
        Reach::Pending => {
            findings.add(
                Code::OllamaNoAnswer,
                Verdict::Unknown,
                None,
                "Ollama has not answered yet".into(),
                "Wait a few seconds; Ollama probes for GPUs before its first response.",
            );
        }
        Reach::Down(trouble) => {
            findings.add(
                Code::OllamaDown,
                Verdict::Unhealthy,
                None,
                format!("Ollama is not responding: {}", trouble.why),
                sentence(trouble.cure()),
            );
        }
        Reach::Up { .. } => {
            if let Some(trouble) = &facts.ollama.list_error {
                findings.add(
                    Code::OllamaListFailed,
                    Verdict::Unknown,
                    None,
                    format!("Ollama is up but cannot list its models: {}", trouble.why),
                    sentence(trouble.cure_of_lists()),
                );
            }
        }
    }
}

fn vram_mismatch(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let GpuState::Sample(sample) = facts.gpu else { return };
    if let Some((claimed, used)) =
        history::vram_mismatch(sample, facts.ollama).filter(|_| facts.history.vram_mismatch())
    {
        let in_mig_mode = sample.gpus.iter().any(|gpu| gpu.memories().next().is_some());
        let message = format!(
            "Ollama reports {} MiB of VRAM for its models, but {} only {} MiB in use{}",
            claimed >> 20,
            if in_mig_mode { "the MIG instances that it can use show" } else { "the GPUs show" },
            used >> 20,
            holders::clause(&sample.gpus)
        );
        let action = "Restart Ollama: its models probably run on the CPU. Otherwise Ollama uses GPUs that this worker \
                      cannot see: give both the same GPUs.";
        findings
            .add(Code::ModelVramMismatch, Verdict::Degraded, None, message, action)
            .numbers(used as f64, (claimed / 2) as f64);
    }
}

/// No reason while the models are unknown.
fn wanted_models(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    if !facts.ollama.lists_known || !matches!(facts.ollama.reach, Reach::Up { .. }) {
        return;
    }
    let mut cloud = false;
    let missing = facts.wanted.iter().filter_map(|name| {
        let status = models::status_of(&facts.ollama.models, name);
        cloud |= status.remote_host.is_some();
        let how = match status.remote_host {
            Some(host) => format!("in Ollama's cloud ({host}), not on this machine's GPU"),
            None if status.pulled => "not loaded".into(),
            None => "not pulled".into(),
        };
        status.loaded.is_none().then(|| format!("{name} is {how}"))
    });
    let missing: Vec<String> = missing.collect();
    if !missing.is_empty() {
        let what = if missing.len() == 1 { "Model" } else { "Models missing:" };
        let message = format!("{what} {}", missing.join(", "));
        let action = if cloud {
            "Remove cloud models from MODEL: they are neither pulled nor loaded. For others, see `model_keeper` in GET /gpu."
        } else {
            "Wait: it is being pulled or loaded. `model_keeper` in GET /gpu shows progress, or why it is stuck."
        };
        findings.add(Code::ModelNotLoaded, Verdict::Degraded, None, message, action);
    }
}

/// What the model keepers have found.
fn kept_models(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    if !matches!(facts.ollama.reach, Reach::Up { .. }) {
        return;
    }
    let named = |models: Vec<&str>| models.join(" and ");
    let stuck = || facts.keepers.iter().filter_map(|row| Some((row.stuck?, row.model.as_str())));
    if let Some(worst) = stuck().map(|(how, _)| how).max() {
        let names = named(stuck().filter(|(each, _)| *each == worst).map(|(_, name)| name).collect());
        let severity = if worst == Stuck::Certainly { Verdict::Unhealthy } else { Verdict::Degraded };
        let (what, action) = if worst == Stuck::Certainly {
            let action = "Restart Ollama: the model's runner hangs. Ollama's log and `dmesg` say why.";
            ("two requests in a row for it got no answer", action)
        } else {
            let action =
                "Wait: its runner serves a long request, or hangs. If it hangs, it becomes unhealthy in two minutes.";
            ("a request for it got no answer", action)
        };
        let message = format!("Ollama lists {names} as loaded past its expiry, and {what}");
        findings.add(Code::ModelStuck, severity, None, message, action);
    }
    let mut displaced = BTreeSet::new();
    for row in facts.keepers {
        displaced.extend(row.displaced_by.iter().flat_map(|by| [by.as_str(), row.model.as_str()]));
    }
    if !displaced.is_empty() {
        findings.add(
            Code::ModelsDisplaced,
            Verdict::Degraded,
            None,
            format!(
                "Models {} displace each other: Ollama has no room for all of them{}",
                named(displaced.into_iter().collect()),
                holders::clause(facts.gpu.gpus())
            ),
            holders::cure(facts.gpu.gpus())
                + "Raise OLLAMA_MAX_LOADED_MODELS if there is enough memory, use a smaller model or context, or take one \
                   out of MODEL.",
        );
    }
}

fn uptime(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let codes = [Code::UptimeLowShort, Code::UptimeLowMedium, Code::UptimeLowLong];
    let rows = codes.into_iter().zip(WINDOWS).zip(facts.uptime).zip(facts.limits.uptime_percent);
    for (((code, (name, _)), window), threshold) in rows {
        let Some(percent) = window.percent().filter(|_| window.is_low(threshold)) else { continue };
        let message = format!("GPU uptime over the last {name}: {percent} % (threshold {threshold} %)");
        let action = format!("Find the gaps: GET /uptime?window={name} lists the minutes. Clears as uptime recovers.");
        findings.add(code, Verdict::Degraded, None, message, action).numbers(percent, threshold);
    }
}
