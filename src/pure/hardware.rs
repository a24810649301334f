//! What other Livepeer tools ask workers for: GET /version and GET /hardware/info in the shapes of pytrickle's workers.
//! Source: pytrickle, `server.py` and `utils/hardware.py`. What is not known is null.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contract::json;
use super::report::Published;

/// Who answers, and with what.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Identity<'a> {
    /// CAPABILITY_NAME, or `agent-net` without one.
    pub(crate) pipeline: &'a str,
    /// The loaded model with the most VRAM; empty when none is loaded.
    pub(crate) model_id: &'a str,
}

/// The body of GET /version.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Version<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    version: &'static str,
}

/// The body of GET /hardware/info.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Hardware<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    /// By NVML's index.
    gpu_info: BTreeMap<u32, GpuInfo<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GpuInfo<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
    /// Bytes.
    memory_total: Option<u64>,
    memory_free: Option<u64>,
    /// CUDA's compute capability.
    major: Option<i32>,
    minor: Option<i32>,
}

pub(crate) fn version(identity: Identity<'_>) -> String {
    json(&Version { identity, version: env!("CARGO_PKG_VERSION") })
}

pub(crate) fn info(pipeline: &str, latest: &Published) -> String {
    let gpus = latest.snapshot.gpu.gpus().iter().map(|gpu| {
        let (major, minor) = gpu.fixed.compute_capability.unzip();
        let info = GpuInfo {
            id: gpu.uuid.as_deref(),
            name: gpu.name.as_deref(),
            memory_total: gpu.vram_total_bytes,
            memory_free: gpu.vram_free_bytes,
            major,
            minor,
        };
        (gpu.index, info)
    });
    let identity = Identity { pipeline, model_id: latest.model_name() };
    json(&Hardware { identity, gpu_info: gpus.collect() })
}
