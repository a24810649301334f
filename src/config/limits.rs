//! The operator's own limits.

use crate::config::values::Values;

/// The operator's own limits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// EXPECTED_GPUS.
    pub(crate) expected_gpus: Option<u32>,
    /// GPU_MIN_VRAM_GB, in bytes.
    pub(crate) min_vram_bytes: Option<u64>,
    /// GPU_MAX_TEMP_C.
    pub(crate) max_temp_c: Option<u32>,
    /// The thresholds of the windows of 1 h, 24 h and 30 d, in percent.
    pub(crate) uptime_percent: [f64; 3],
}

pub(super) fn read(values: &Values) -> Limits {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the range of its row
    let bytes = |gigabytes: f64| (gigabytes * 1e9) as u64;
    let percent = |name| values.parsed(name).unwrap_or_default();
    Limits {
        expected_gpus: values.parsed("EXPECTED_GPUS"),
        min_vram_bytes: values.parsed("GPU_MIN_VRAM_GB").map(bytes),
        max_temp_c: values.parsed("GPU_MAX_TEMP_C"),
        uptime_percent: [
            percent("GPU_SHORT_TERM_UPTIME_THRESHOLD"),
            percent("GPU_MEDIUM_TERM_UPTIME_THRESHOLD"),
            percent("GPU_LONG_TERM_UPTIME_THRESHOLD"),
        ],
    }
}
