//! One GPU as the report shows it: operators' units, null for what is not known.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::gpu::readings::{Gpu, Shown};
use crate::gpu::vendor::Vendor;
use crate::gpu::xid::{self, Xid};
use crate::health::verdict::{self, Reason, Verdict};
use crate::sys::order;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Gpu"))]
pub(crate) struct GpuRow<'a> {
    vendor: Vendor,
    /// NVML's index, as nvidia-smi counts; AMD GPUs follow, by their place on the bus.
    index: u32,
    uuid: Option<&'a str>,
    name: Option<&'a str>,
    pci_bus_id: Option<&'a str>,
    /// The worst of the reasons that name this GPU.
    verdict: Verdict,
    /// True: it has no memory of its own and shares the system memory (Tegra, GB10).
    unified_memory: bool,
    /// True: it sleeps to save power and was not woken; most readings are null.
    asleep: bool,
    #[serde(flatten)]
    readings: Shown<'a>,
    /// Errors that the driver has reported since the machine started, as far as they are known.
    xids: Vec<XidRow>,
    /// Milliseconds that reading it took; of a GPU that does not respond, for how long it has not.
    read_ms: Option<u64>,
    /// Names of the readings that it does not have. They are null, and never count against it.
    unsupported: Vec<&'a str>,
    /// Readings that failed, with the driver's error or the impossible value. They are null.
    failed: BTreeMap<&'a str, &'a str>,
    /// Why it does not respond at all; null if it responds.
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Xid"))]
struct XidRow {
    xid: u32,
    meaning: &'static str,
    count: u64,
    /// Unix seconds of the last error with this number.
    last: f64,
}

impl<'a> GpuRow<'a> {
    /// `xids` are those of the whole machine.
    pub(crate) fn new(gpu: &'a Gpu, reasons: &[Reason], xids: &[Xid]) -> Self {
        Self {
            vendor: gpu.vendor,
            index: gpu.index,
            uuid: gpu.uuid.as_deref(),
            name: gpu.name.as_deref(),
            pci_bus_id: gpu.pci_bus_id.as_deref(),
            verdict: verdict::of_gpu(gpu, reasons),
            unified_memory: gpu.unified_memory,
            asleep: gpu.asleep,
            readings: Shown(gpu),
            xids: xids.iter().filter(|x| gpu.pci() == Some(x.pci)).map(XidRow::new).collect(),
            read_ms: gpu.read_us.map(|us| us / 1000),
            unsupported: gpu.unsupported().collect(),
            failed: order::map(gpu.failed().map(|(name, why)| (name, why.words.as_str()))),
            error: gpu.error.as_ref().map(|e| e.message.as_str()),
        }
    }
}

impl XidRow {
    fn new(xid: &Xid) -> Self {
        Self { xid: xid.number, meaning: xid::meaning(xid.number), count: xid.count, last: xid.last }
    }
}
