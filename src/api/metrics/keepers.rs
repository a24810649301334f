//! How the models of MODEL stand.

use crate::ollama::keeper::row::{KeeperRow, ModelState};
use crate::sys::exposition::{Exposition, Kind};

/// A sample of one model: one more label, and a value.
type Sample = (Option<(&'static str, &'static str)>, f64);

/// Writes all rows; nothing where MODEL is not set.
pub(crate) fn write(out: &mut Exposition, rows: &[KeeperRow]) {
    type Family = (&'static str, Kind, &'static str, fn(&KeeperRow) -> Vec<Sample>);
    let families: [Family; 6] = [
        ("agent_net_model_keeper_state", Kind::Gauge, "1 for the state that holds.", |row| {
            ModelState::ALL
                .iter()
                .map(|state| (Some(("state", state.name())), f64::from(u8::from(row.state == *state))))
                .collect()
        }),
        ("agent_net_model_pull_ratio", Kind::Gauge, "How much of the model a pull under way has.", |row| {
            row.progress.iter().map(|p| (None, f64::from(p.percent) / 100.0)).collect()
        }),
        ("agent_net_model_pull_completed_bytes", Kind::Gauge, "Bytes that a pull under way has.", |row| {
            row.progress.iter().map(|p| (None, p.completed as f64)).collect()
        }),
        ("agent_net_model_pull_size_bytes", Kind::Gauge, "Bytes that it is to have, as far as is known.", |row| {
            row.progress.iter().map(|p| (None, p.total as f64)).collect()
        }),
        ("agent_net_model_pulls_total", Kind::Counter, "Pulls that ended.", |row| ended(row.pulls)),
        ("agent_net_model_loads_total", Kind::Counter, "Requests to load the model, or to keep it.", |row| {
            ended(row.loads)
        }),
    ];
    for (name, kind, help, read) in families {
        let samples = rows.iter().flat_map(|row| {
            let base = ("model", row.model.as_str());
            read(row).into_iter().map(move |(more, value)| ([base].into_iter().chain(more).collect(), Some(value)))
        });
        super::family(out, name, kind, help, samples);
    }
}

fn ended([ok, failed]: [u64; 2]) -> Vec<Sample> {
    vec![(Some(("result", "ok")), ok as f64), (Some(("result", "failed")), failed as f64)]
}
