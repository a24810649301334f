//! The probes of the models of MODEL.

use super::rows::{Read, Sample, ended, one};
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::probe::row::{Heal, ProbeResult, ProbeRow};
use crate::sys::exposition::{Family, counter, gauge, metrics};

metrics! {
    SPEED = gauge(
        "agent_net_model_probe_tokens_per_second", &["model"], "Speed of the model in its last answered probe."
    );
    USUAL = gauge(
        "agent_net_model_probe_usual_tokens_per_second",
        &["model"],
        "Best median of five for this model, context, GPUs, driver and version of Ollama."
    );
    LOAD = gauge(
        "agent_net_model_probe_load_seconds", &["model"], "Time to load the model in its last answered probe."
    );
    ANSWERED = gauge(
        "agent_net_model_probe_last_answer_timestamp_seconds", &["model"], "Unix time of the last answered probe."
    );
    UNANSWERED = gauge(
        "agent_net_model_probes_unanswered", &["model"], "Probes in a row that hung or failed."
    );
    PROBES = counter(
        "agent_net_model_probes_total",
        &["model", "result"],
        "Probes by result. A skipped one counts once until the next is sent."
    );
    TOKENS = counter("agent_net_model_probe_tokens_total", &["model"], "Tokens read and written by probes.");
    BUSY = counter("agent_net_model_probe_busy_seconds_total", &["model"], "Time that the model computed for probes.");
    HEALS = counter(
        "agent_net_model_heals_total",
        &["model", "kind", "result"],
        "Attempts to heal a model: reload (from the CPU) or runner (one that hung or had died)."
    );
}

/// Each metric, and what it reads of a model.
pub(super) const FAMILIES: [(&Family, Read); 9] = [
    (&SPEED, |row| last(row, |last| last.tokens_per_second)),
    (&USUAL, |row| last(row, |last| last.usual_tokens_per_second)),
    (&LOAD, |row| last(row, |last| last.load_ms.map(|ms| ms as f64 / 1e3))),
    (&ANSWERED, |row| last(row, |last| last.answered_at)),
    (&UNANSWERED, |row| one(Some(f64::from(row.probes.unanswered)))),
    (&PROBES, |row| {
        ProbeResult::ALL
            .iter()
            .zip(row.probes.counts)
            .map(|(result, count)| (vec![result.name()], count as f64))
            .collect()
    }),
    (&TOKENS, |row| one(Some(row.probes.tokens as f64))),
    (&BUSY, |row| one(Some(row.probes.busy_ns as f64 / 1e9))),
    (&HEALS, |row| {
        Heal::ALL.iter().zip(row.probes.heals).flat_map(|(heal, counts)| ended(counts, &[heal.name()])).collect()
    }),
];

fn last(row: &KeeperRow, read: fn(&ProbeRow) -> Option<f64>) -> Vec<Sample> {
    one(row.probes.last.as_ref().and_then(read))
}
