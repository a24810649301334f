//! The part of a report that `check` uses.

use serde::Deserialize;

use crate::health::verdict::Verdict;

/// The part of a report that is used.
#[derive(Deserialize)]
pub(super) struct Report {
    pub(super) gpu_count: u64,
    #[serde(default)]
    pub(super) gpus: Vec<Gpu>,
    pub(super) total_models: u64,
    #[serde(default)]
    pub(super) model_name: String,
    pub(super) health: Health,
    pub(super) source: String,
}

impl Report {
    /// # Errors
    /// One sentence when it is not a report of this worker.
    pub(super) fn read(json: &str) -> Result<Self, String> {
        crate::sys::json::object(json.as_bytes()).map_err(|why| format!("not a report of agent-net: {why}"))
    }
}

/// One GPU of it; null is unknown.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Gpu {
    pub(super) index: Option<u64>,
    pub(super) uuid: Option<String>,
    pub(super) name: Option<String>,
    pub(super) temperature_c: Option<f64>,
    pub(super) power_w: Option<f64>,
    pub(super) power_limit_w: Option<f64>,
    pub(super) vram_used_mb: Option<f64>,
    pub(super) vram_total_mb: Option<f64>,
    pub(super) utilization_percent: Option<f64>,
    pub(super) mig: Option<Vec<MigInstance>>,
    pub(super) error: Option<String>,
    pub(super) asleep: bool,
}

/// A MIG instance of it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct MigInstance {
    pub(super) uuid: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) vram_used_mb: Option<f64>,
    pub(super) vram_total_mb: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct Health {
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<Reason>,
    /// Of `ack`: why a restart of the worker may undo it.
    #[serde(default)]
    pub(super) not_kept: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Reason {
    pub(super) code: String,
    pub(super) severity: Verdict,
    pub(super) gpu: Option<String>,
    pub(super) message: String,
    pub(super) action: String,
}
