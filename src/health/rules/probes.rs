//! What the probes of the models of MODEL have found.

use super::driver::any_usable;
use super::facts::Facts;
use super::findings::Findings;
use crate::gpu::holders;
use crate::gpu::sample::Gpu;
use crate::health::codes::advice;
use crate::health::verdict::{Code, Verdict};
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::models::{self, Loaded};
use crate::ollama::state::Reach;

/// Other findings that make a model slow.
const SLOWING: [Code; 11] = [
    Code::TempCritical,
    Code::TempHigh,
    Code::TempAboveMax,
    Code::MemTempHigh,
    Code::HwThermalSlowdown,
    Code::HwPowerBrake,
    Code::HwSlowdown,
    Code::PowerAlarm,
    Code::PcieWidthLow,
    Code::PcieReplay,
    Code::ModelOnCpu,
];

pub(super) fn probe_reasons(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    on_cpu(facts, findings);
    hangs(facts, findings);
    slow(facts, findings);
}

/// The keepers, while what they found is current: one lost poll of Ollama changes nothing.
fn keepers<'a>(facts: &Facts<'a>) -> &'a [KeeperRow] {
    if matches!(facts.ollama.reach, Reach::Down(_)) { &[] } else { facts.keepers }
}

fn loaded(facts: &Facts<'_>, row: &KeeperRow) -> Option<Loaded> {
    models::status_of(&facts.ollama.models, &row.model).loaded
}

/// By Ollama's list, or by what the GPUs did during the probes of a model that the list has on a GPU.
fn on_cpu(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    // Without a MIG instance nothing runs on a GPU, which has a reason of its own.
    if !any_usable(facts.gpu) || facts.gpu.gpus().iter().filter(|gpu| gpu.usable()).all(Gpu::lacks_instance) {
        return;
    }
    let on_cpu = |loaded: Option<Loaded>| loaded.is_some_and(|loaded| loaded.vram_bytes == 0);
    let mut found = Vec::new();
    let mut action = holders::cure(facts.gpu.gpus());
    action += advice::ON_CPU;
    if facts.gpu.usable().any(|gpu| !gpu.vendor.is_amd()) {
        action += advice::ON_CPU_AFTER_SLEEP;
    }
    if let Some(model) = facts.ollama.models.iter().find(|model| on_cpu(model.loaded)) {
        found.push(format!("Model {} is running on the CPU, not the GPU", model.name));
    }
    let listed = found.len();
    let on_gpu = keepers(facts).iter().filter(|row| !on_cpu(loaded(facts, row)));
    found.extend(on_gpu.filter_map(|row| row.probes.idleness(&row.model)));
    if found.len() > listed {
        action += " If Ollama uses GPUs that this worker does not list, give both the same ones. If it runs on another machine, run \
             the worker there.";
    }
    if !found.is_empty() {
        // What a probe saw has them already.
        let held = if found.len() > listed { String::new() } else { holders::clause(facts.gpu.gpus()) };
        findings.add(Code::ModelOnCpu, Verdict::Degraded, None, found.join(". ") + &held, action);
    }
}

/// A model whose runner hangs, or dies again and again.
fn hangs(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let silence = |row: &KeeperRow| row.probes.silence(&row.model);
    let found = keepers(facts).iter().filter_map(|row| silence(row).or_else(|| row.deaths.in_words(&row.model)));
    let found: Vec<String> = found.collect();
    if found.is_empty() {
        return;
    }
    let down = keepers(facts).iter().any(|row| row.probes.hangs() || row.deaths.is_down());
    let severity = if down { Verdict::Unhealthy } else { Verdict::Degraded };
    let action = if keepers(facts).iter().any(|row| row.deaths.in_words(&row.model).is_some()) {
        "Read Ollama's log and `dmesg`: a runner ends for lack of memory, by a fault of driver or GPU, or by a damaged \
         model file. Then restart Ollama."
    } else {
        "Restart Ollama. Its log and `dmesg` say why the model's runner hangs or fails."
    };
    findings.add(Code::ModelHangs, severity, None, named(&found), action);
}

fn slow(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    let slow = || keepers(facts).iter().filter_map(|row| Some((row, row.probes.slow?)));
    let part = |(_, (median, best)): &(_, (f64, f64))| median / best;
    let Some((_, (median, best))) = slow().min_by(|one, other| part(one).total_cmp(&part(other))) else { return };
    let each: Vec<String> = slow()
        .map(|(row, (median, best))| format!("{} ({median:.1} of its usual {best:.1} tokens/s)", row.model))
        .collect();
    let mut message = format!("{} {} slow", named(&each), if each.len() == 1 { "is" } else { "are" });
    let causes: Vec<&str> = SLOWING.into_iter().filter(|code| findings.has(*code)).map(Code::name).collect();
    let partly = |row| loaded(facts, row).and_then(|loaded| loaded.on_gpu_percent()).is_some_and(|on_gpu| on_gpu < 100);
    let action = if !causes.is_empty() {
        format!(
            "Fix {} first: {} models slow.",
            causes.join(" and "),
            if causes.len() == 1 { "it makes" } else { "they make" }
        )
    } else if slow().any(|(row, _)| partly(row)) {
        message += &holders::clause(facts.gpu.gpus());
        let cure = holders::cure(facts.gpu.gpus());
        format!("{cure}Free VRAM, or use a smaller model or context: Ollama runs a part of the model on the CPU.")
    } else {
        let host = findings.place.on_the_host();
        let amd = facts.gpu.usable().all(|gpu| gpu.vendor.is_amd());
        let smi = if amd { String::new() } else { format!(" with `nvidia-smi`{host}") };
        format!(
            "Look for heat, power limits and other programs on the GPU{smi}. See `probe` of the model in \
             GET /gpu."
        )
    };
    let rounded = |speed: f64| (speed * 100.0).round() / 100.0;
    findings
        .add(Code::ModelSlow, Verdict::Degraded, None, message, action)
        .numbers(rounded(median), rounded(best / 2.0));
}

fn named(each: &[String]) -> String {
    format!("{} {}", if each.len() == 1 { "Model" } else { "Models" }, each.join(" and "))
}
