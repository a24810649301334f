//! What a GPU did in a short time, as the driver's own buffers have it.

use serde::{Deserialize, Serialize};

/// Activity of one GPU since a mark. Each reading is None where the driver does not have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Activity {
    /// Microseconds since the mark.
    pub(crate) window_us: u64,
    /// The highest of the utilization samples in that time, 0 to 100.
    pub(crate) utilization_percent: Option<u32>,
    /// Number of these samples.
    pub(crate) samples: u32,
    /// Microseconds from the last sample before the mark to the newest one, by the driver's clock.
    pub(crate) sampled_us: Option<u64>,
    /// The highest utilization by one process, 0 to 100.
    pub(crate) process_percent: Option<u32>,
    /// Energy used in that time.
    pub(crate) energy_mj: Option<u64>,
    /// Power at the mark, when the GPU was idle.
    pub(crate) power_before_mw: Option<u32>,
}
