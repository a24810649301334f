//! A part of a GPU in MIG mode, and how the report shows it.

use serde::{Deserialize, Serialize};

use crate::sys::json::{MIB, one_decimal};

/// A part of a GPU in MIG mode, with compute units of its own. Its memory is that of its GPU instance, which several
/// compute instances can share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MigInstance {
    pub(crate) uuid: Option<String>,
    /// `1g.10gb`, `1g.10gb+me`, or `1c.3g.40gb` for a part of a GPU instance.
    pub(crate) profile: Option<String>,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
    pub(crate) sm_count: Option<u32>,
    pub(crate) vram_total_bytes: Option<u64>,
    pub(crate) vram_used_bytes: Option<u64>,
    /// Activity of its GPU instance since the last sample, here and in the next two.
    pub(crate) sm_activity_percent: Option<f64>,
    pub(crate) tensor_activity_percent: Option<f64>,
    pub(crate) dram_activity_percent: Option<f64>,
}

/// A MIG instance: a part of a GPU in MIG mode, with compute units of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "MigInstance"))]
pub(crate) struct MigRow<'a> {
    /// `MIG-…`, as CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES take it.
    uuid: Option<&'a str>,
    /// `1g.10gb`, `1g.10gb+me`, or `1c.3g.40gb` for a part of a GPU instance.
    profile: Option<&'a str>,
    /// Id of its GPU instance on this GPU. Instances with the same one share their memory.
    gpu_instance: Option<u32>,
    /// Id of its compute instance in that GPU instance.
    compute_instance: Option<u32>,
    /// Number of streaming multiprocessors.
    sm_count: Option<u32>,
    /// Memory of its GPU instance in MiB.
    vram_total_mb: Option<u64>,
    /// Memory of its GPU instance that is in use, in MiB.
    vram_used_mb: Option<u64>,
    /// Percent of the compute units (SMs) of its GPU instance at work since the last sample (GPM, Hopper and later).
    sm_activity_percent: Option<f64>,
    /// Percent of the tensor cores of its GPU instance at work since the last sample.
    tensor_activity_percent: Option<f64>,
    /// Percent of the memory bandwidth of its GPU instance in use since the last sample.
    dram_activity_percent: Option<f64>,
}

impl<'a> MigRow<'a> {
    pub(super) fn new(instance: &'a MigInstance) -> Self {
        let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes / MIB);
        Self {
            uuid: instance.uuid.as_deref(),
            profile: instance.profile.as_deref(),
            gpu_instance: instance.gpu_instance,
            compute_instance: instance.compute_instance,
            sm_count: instance.sm_count,
            vram_total_mb: mib(instance.vram_total_bytes),
            vram_used_mb: mib(instance.vram_used_bytes),
            sm_activity_percent: instance.sm_activity_percent.map(one_decimal),
            tensor_activity_percent: instance.tensor_activity_percent.map(one_decimal),
            dram_activity_percent: instance.dram_activity_percent.map(one_decimal),
        }
    }
}
