//! The models of MODEL.

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

/// A sample of one model: the value of one more label, and the number.
type Sample = (Option<&'static str>, f64);

/// Writes all rows; nothing where MODEL is not set.
pub(crate) fn write(out: &mut Exposition, rows: &[KeeperRow]) {
    type Read = fn(&KeeperRow) -> Vec<Sample>;
    let families: [(&Family, Read); 6] = [
        (&STATE, |row| ModelState::ALL.map(|state| (Some(state.name()), flag(row.state == state))).into()),
        (&PULL_RATIO, |row| row.progress.iter().map(|p| (None, f64::from(p.percent) / 100.0)).collect()),
        (&PULL_COMPLETED, |row| row.progress.iter().map(|p| (None, p.completed as f64)).collect()),
        (&PULL_SIZE, |row| row.progress.iter().map(|p| (None, p.total as f64)).collect()),
        (&PULLS, |row| ended(row.pulls)),
        (&LOADS, |row| ended(row.loads)),
    ];
    for (family, read) in families {
        let samples = rows.iter().flat_map(|row| {
            read(row)
                .into_iter()
                .map(|(more, value)| ([row.model.as_str()].into_iter().chain(more).collect(), Some(value)))
        });
        out.samples(family, samples);
    }
}

fn ended([ok, failed]: [u64; 2]) -> Vec<Sample> {
    vec![(Some("ok"), ok as f64), (Some("failed"), failed as f64)]
}
