//! All GPUs of one moment, and what can be said of one of them by its readings. They come from a helper (NVML, amdgpu), or
//! from a Tegra board's sysfs (`tegra`).

mod identity;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use super::failure::{Failure, FaultKind, Gaps, GpuError, GpuErrorKind, GpuFault};
use super::pci::PciId;
use super::readings;
pub(crate) use super::readings::Gpu;
pub(crate) use super::value::{HW_POWER_BRAKE, HW_SLOWDOWN, HW_THERMAL, IDLE, RetiredPages, SW_THERMAL};
use super::vendor::Vendor;

/// How long a helper's first answer may take: the helper starts and initializes NVML. Without persistence mode, which keeps
/// the driver loaded, that takes 6 to 25 s. A helper that is killed before then would start over each time.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// A GPU that takes longer to respond is slow.
pub(crate) const SLOW_READ: Duration = Duration::from_secs(2);

/// All GPUs of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GpuSample {
    pub(crate) driver_version: Option<String>,
    pub(crate) nvml_version: Option<String>,
    /// `12.4`
    pub(crate) cuda_version: Option<String>,
    /// The path that was loaded; None: the readings do not come from NVML, or the GPUs sleep and it was not loaded yet.
    pub(crate) library: Option<String>,
    pub(crate) gpus: Vec<Gpu>,
    /// The slow readings are new in this sample.
    pub(crate) slow_fresh: bool,
    /// What the driver reported since the last sample; None while its events are not read.
    pub(crate) events: Option<Vec<XidEvent>>,
    /// Microseconds that the whole sample took.
    pub(crate) read_us: u64,
    /// Microseconds of each call of this sample, summed over the GPUs.
    pub(crate) call_us: BTreeMap<String, u64>,
}

/// A critical error that the driver reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct XidEvent {
    pub(crate) index: u32,
    pub(crate) xid: u32,
}

impl GpuSample {
    /// NVML has GPUs in it, awake or asleep.
    pub(crate) fn is_of_nvml(&self) -> bool {
        self.library.is_some() || self.gpus.iter().any(|gpu| gpu.asleep && gpu.vendor == Vendor::Nvidia)
    }

    /// Index and utilization of the busiest GPU; None where none reports its utilization.
    pub(crate) fn busiest(&self) -> Option<(u32, u32)> {
        busiest(self.gpus.iter().filter(|gpu| gpu.usable()))
    }
}

/// Index and utilization of the busiest of these; None where none reports its utilization.
pub(crate) fn busiest<'a>(gpus: impl Iterator<Item = &'a Gpu>) -> Option<(u32, u32)> {
    gpus.filter_map(|gpu| Some((gpu.index, gpu.utilization_percent?))).max_by_key(|(_, percent)| *percent)
}

impl Gpu {
    pub(crate) fn all_gaps(&self) -> [&Gaps; 3] {
        [&self.gaps, &self.slow_gaps, &self.fixed_gaps]
    }

    /// Names of all unsupported readings.
    pub(crate) fn unsupported(&self) -> impl Iterator<Item = &str> {
        self.all_gaps().into_iter().flat_map(|gaps| &gaps.unsupported).map(String::as_str)
    }

    /// All failed readings.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.all_gaps().into_iter().flat_map(|gaps| &gaps.failed).map(|(name, why)| (name.as_str(), why))
    }

    /// Number of core readings that fail the way those of a dead GPU do.
    pub(crate) fn dead_readings(&self) -> usize {
        self.failed().filter(|(name, why)| why.of_device && readings::is_core(name)).count()
    }

    pub(crate) fn pci(&self) -> Option<PciId> {
        PciId::parse(self.pci_bus_id.as_deref()?)
    }

    /// Its identity alone.
    pub(crate) fn identity(&self) -> Self {
        Self {
            vendor: self.vendor,
            index: self.index,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            pci_bus_id: self.pci_bus_id.clone(),
            unified_memory: self.unified_memory,
            ..Self::default()
        }
    }

    /// Its identity, and that no reader responds for it.
    pub(crate) fn silent(&self, message: &str) -> Self {
        let error = Some(GpuError { kind: GpuErrorKind::NoAnswer, message: message.to_owned() });
        Self { error, ..self.identity() }
    }

    /// Its identity, that no reader responds for it, and for how long.
    pub(crate) fn silent_for(&self, lasting: Duration, message: &str) -> Self {
        Self { read_us: u64::try_from(lasting.as_micros()).ok(), ..self.silent(message) }
    }

    /// NVML gave a handle, and the GPU responds.
    pub(crate) fn usable(&self) -> bool {
        self.error.is_none()
    }

    /// False for a GPU that the driver lists and that this process may not use.
    pub(crate) fn given(&self) -> bool {
        self.error.as_ref().is_none_or(|error| error.kind != GpuErrorKind::NotGiven)
    }

    /// It has been asked and has not responded yet, or its reader has not.
    pub(crate) fn is_slow(&self) -> bool {
        self.error.as_ref().is_some_and(|error| matches!(error.kind, GpuErrorKind::Slow | GpuErrorKind::NoAnswer))
    }

    /// It has no reading that its health could be judged by: nor has one of its MIG instances.
    pub(crate) fn says_nothing(&self) -> bool {
        !self.asleep
            && self.vram_used_bytes.is_none()
            && self.temperature_c.is_none()
            && self.utilization_percent.is_none()
            && self.mig.iter().flatten().all(|instance| instance.vram_used_bytes.is_none())
    }

    /// What reasons and labels call it: the UUID, else the index.
    pub(crate) fn id(&self) -> String {
        self.uuid.clone().unwrap_or_else(|| format!("gpu{}", self.index))
    }
}
