//! Answers in the formats of other Livepeer tools: GET /version, GET /hardware/info and GET /hardware/stats in that of
//! pytrickle's workers (`server.py`, `utils/hardware.py`), GET /capabilities in that of `list_capabilities` of Livepeer's
//! Python SDK (livepeer-gateway 1.0.0, `byoc.py`). Unknown values are null.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::Published;
use crate::gpu::sample::Gpu;
use crate::sys::json::json;
use crate::sys::order;

/// What all answers in pytrickle's format begin with.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Identity<'a> {
    /// CAPABILITY_NAME, or `agent-net` without one.
    pub(crate) pipeline: &'a str,
    /// The loaded model with the most VRAM; empty without one.
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
    /// The GPUs by their index.
    gpu_info: BTreeMap<u32, GpuInfo<'a>>,
}

/// The body of GET /hardware/stats.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HardwareStats<'a> {
    #[serde(flatten)]
    identity: Identity<'a>,
    /// The GPUs by their index.
    gpu_stats: BTreeMap<u32, GpuStats<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GpuBase<'a> {
    id: Option<&'a str>,
    /// The GPU's name, in MIG mode with the profile of the largest instance, as CUDA names it.
    name: Option<String>,
    /// Bytes of memory; in MIG mode those of the largest instance.
    memory_total: Option<u64>,
    /// Bytes of free memory; in MIG mode those of the instance with the most.
    memory_free: Option<u64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GpuInfo<'a> {
    #[serde(flatten)]
    base: GpuBase<'a>,
    /// CUDA's compute capability.
    major: Option<i32>,
    minor: Option<i32>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GpuStats<'a> {
    #[serde(flatten)]
    base: GpuBase<'a>,
    /// Percent of the time with a kernel running.
    utilization_compute: Option<u32>,
    /// Percent of the time with memory read or written.
    utilization_memory: Option<u32>,
}

/// The body of GET /capabilities.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Capabilities<'a> {
    /// One for each CAPABILITY_NAME.
    capabilities: Vec<CapabilityRow<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Capability"))]
struct CapabilityRow<'a> {
    name: &'a str,
    /// The loaded model with the most VRAM; empty without one, null while Ollama's list is unknown.
    model_id: Option<&'a str>,
    /// CAPABILITY_CAPACITY, shared by all names.
    capacity: usize,
}

pub(crate) fn version(identity: Identity<'_>) -> String {
    json(&Version { identity, version: env!("CARGO_PKG_VERSION") })
}

/// `latest`: None before the first sample.
pub(crate) fn capabilities(names: &[String], latest: Option<&Published>, capacity: usize) -> String {
    let model_id = latest.filter(|latest| latest.snapshot.ollama.lists_known).map(Published::model_name);
    let rows = names.iter().map(|name| CapabilityRow { name, model_id, capacity });
    json(&Capabilities { capabilities: rows.collect() })
}

/// What both answers have about a GPU.
fn base(gpu: &Gpu) -> GpuBase<'_> {
    GpuBase {
        id: gpu.uuid.as_deref(),
        name: gpu.model_gpu(),
        memory_total: gpu.model_memory(),
        memory_free: gpu.model_free(),
    }
}

pub(crate) fn stats(pipeline: &str, latest: &Published) -> String {
    let gpus = latest.snapshot.gpu.gpus().iter().map(|gpu| {
        let stats = GpuStats {
            base: base(gpu),
            utilization_compute: gpu.utilization_percent,
            utilization_memory: gpu.memory_utilization_percent,
        };
        (gpu.index, stats)
    });
    let identity = Identity { pipeline, model_id: latest.model_name() };
    json(&HardwareStats { identity, gpu_stats: order::map(gpus) })
}

pub(crate) fn info(pipeline: &str, latest: &Published) -> String {
    let gpus = latest.snapshot.gpu.gpus().iter().map(|gpu| {
        let (major, minor) = gpu.compute_capability.unzip();
        (gpu.index, GpuInfo { base: base(gpu), major, minor })
    });
    let identity = Identity { pipeline, model_id: latest.model_name() };
    json(&Hardware { identity, gpu_info: order::map(gpus) })
}
