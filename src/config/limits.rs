//! The operator's own limits.

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
