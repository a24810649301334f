//! The models of MODEL.

use super::probes;
use super::rows::{Read, ended, one};
use crate::ollama::keeper::row::{KeeperRow, ModelState};
use crate::sys::exposition::{Exposition, Family, counter, flag, gauge, metrics};

metrics! {
    STATE =
        gauge("agent_net_model_keeper_state", &["model", "state"], "1 for the current state of a model of MODEL.");
    PULL_RATIO = gauge("agent_net_model_pull_ratio", &["model"], "Progress of the current pull.");
    PULL_COMPLETED =
        gauge("agent_net_model_pull_completed_bytes", &["model"], "Bytes received by the current pull.");
    PULL_SIZE =
        gauge("agent_net_model_pull_size_bytes", &["model"], "Size of the current pull, as far as known.");
    PULLS = counter("agent_net_model_pulls_total", &["model", "result"], "Finished pulls.");
    LOADS = counter("agent_net_model_loads_total", &["model", "result"], "Requests to load or keep the model.");
}

/// Writes all rows; nothing where MODEL is not set.
pub(crate) fn write(out: &mut Exposition, rows: &[KeeperRow]) {
    let families: [(&Family, Read); 6] = [
        (&STATE, |row| ModelState::ALL.map(|state| (vec![state.name()], flag(row.state == state))).into()),
        (&PULL_RATIO, |row| one(row.progress.as_ref().map(|p| f64::from(p.percent) / 100.0))),
        (&PULL_COMPLETED, |row| one(row.progress.as_ref().map(|p| p.completed as f64))),
        (&PULL_SIZE, |row| one(row.progress.as_ref().map(|p| p.total as f64))),
        (&PULLS, |row| ended(row.pulls, &[])),
        (&LOADS, |row| ended(row.loads, &[])),
    ];
    for (family, read) in families.iter().chain(&probes::FAMILIES) {
        let samples = rows.iter().flat_map(|row| {
            read(row)
                .into_iter()
                .map(|(more, value)| ([row.model.as_str()].into_iter().chain(more).collect(), Some(value)))
        });
        out.samples(family, samples);
    }
}
