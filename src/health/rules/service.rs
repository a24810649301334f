//! Ollama, its models beside the GPUs, and the uptime.

use std::collections::BTreeSet;

use super::driver::any_usable;
use super::{Facts, Findings};
use crate::gpu::state::GpuState;
use crate::health::reading_log;
use crate::health::uptime::WINDOWS;
use crate::health::verdict::{Code, Verdict};
use crate::ollama::keeper::Stuck;
use crate::ollama::models::{self, Model};
use crate::ollama::state::Reach;

pub(super) fn judge(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    ollama(facts, findings);
    models(facts, findings);
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
                "wait a few seconds; Ollama looks for GPUs before it answers the first time",
            );
        }
        Reach::Down(trouble) => {
            findings.add(
                Code::OllamaDown,
                Verdict::Unhealthy,
                None,
                format!("Ollama does not answer: {}", trouble.why),
                trouble.cure(),
            );
        }
        Reach::Up { .. } => {
            if let Some(trouble) = &facts.ollama.list_error {
                findings.add(
                    Code::OllamaListFailed,
                    Verdict::Unknown,
                    None,
                    format!("Ollama answers, but not with its models: {}", trouble.why),
                    trouble.cure_of_lists(),
                );
            }
        }
    }
}

fn models(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let on_cpu = |m: &&Model| m.loaded.is_some_and(|l| l.vram_bytes == 0);
    if let Some(model) = facts.ollama.models.iter().find(on_cpu).filter(|_| any_usable(facts.gpu)) {
        findings.add(
            Code::ModelOnCpu,
            Verdict::Degraded,
            None,
            format!("model {} is loaded into main memory, not onto the GPU", model.name),
            "restart Ollama and load the model again; see Ollama's log for why no GPU was used",
        );
    }
    let GpuState::Sample(sample) = facts.gpu else { return };
    if let Some((claimed, used)) =
        reading_log::vram_mismatch(sample, facts.ollama).filter(|_| facts.history.vram_mismatch())
    {
        let message = format!(
            "Ollama says that its models hold {} MiB of VRAM, but only {} MiB are in use",
            claimed >> 20,
            used >> 20
        );
        let action =
            "the models probably run on the CPU: restart Ollama; or it uses GPUs that this worker was not given";
        findings
            .add(Code::ModelVramMismatch, Verdict::Degraded, None, message, action)
            .numbers(used as f64, (claimed / 2) as f64);
    }
}

/// Nothing is said while nobody knows the models.
fn wanted_models(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    if !facts.ollama.lists_known || !matches!(facts.ollama.reach, Reach::Up { .. }) {
        return;
    }
    let mut cloud = false;
    let missing = facts.wanted.iter().filter_map(|name| {
        let standing = models::standing(&facts.ollama.models, name);
        cloud |= standing.remote_host.is_some();
        let how = match standing.remote_host {
            Some(host) => format!("in Ollama's cloud ({host}), not on this machine's GPU"),
            None if standing.pulled => "not loaded".into(),
            None => "not pulled".into(),
        };
        standing.loaded.is_none().then(|| format!("{name} is {how}"))
    });
    let missing: Vec<String> = missing.collect();
    if !missing.is_empty() {
        let action = if cloud {
            "take cloud models out of MODEL: they are neither pulled nor loaded; for others see model_keeper"
        } else {
            "wait: it is being pulled or loaded; model_keeper says how far it is, or why it does not get on"
        };
        findings.add(Code::ModelNotLoaded, Verdict::Degraded, None, missing.join(", "), action);
    }
}

/// What those who keep the models have found.
fn kept_models(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    if !matches!(facts.ollama.reach, Reach::Up { .. }) {
        return;
    }
    let named = |rows: Vec<&str>| rows.join(" and ");
    let stuck = || facts.keepers.iter().filter_map(|row| Some((row.stuck?, row.model.as_str())));
    if let Some(worst) = stuck().map(|(how, _)| how).max() {
        let names = named(stuck().filter(|(each, _)| *each == worst).map(|(_, name)| name).collect());
        let severity = if worst == Stuck::Certainly { Verdict::Unhealthy } else { Verdict::Degraded };
        let (what, action) = if worst == Stuck::Certainly {
            let action = "restart Ollama: the model's runner hangs; look at Ollama's log and at dmesg for why";
            ("two requests in a row for it got no answer", action)
        } else {
            let action =
                "wait: its runner serves a long request, or hangs; if it hangs, it is unhealthy in two minutes";
            ("a request for it got no answer", action)
        };
        let message = format!("Ollama lists {names} as loaded past its time, and {what}");
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
            format!("{} displace each other: Ollama has no room for all of them", named(displaced.into_iter().collect())),
            "raise OLLAMA_MAX_LOADED_MODELS if the memory suffices, use a smaller model or context, or take one out of MODEL",
        );
    }
}

fn uptime(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let codes = [Code::UptimeLowShort, Code::UptimeLowMedium, Code::UptimeLowLong];
    let rows = codes.into_iter().zip(WINDOWS).zip(facts.uptime).zip(facts.limits.uptime_percent);
    for (((code, (name, _)), window), threshold) in rows {
        let Some(percent) = window.percent().filter(|_| window.is_low(threshold)) else { continue };
        let message = format!("in the last {name} the GPUs were up for {percent} % of the time");
        let action = "see GET /uptime for the minutes; it passes as good time follows";
        findings.add(code, Verdict::Degraded, None, message, action).numbers(percent, threshold);
    }
}
