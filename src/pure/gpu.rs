//! What one GPU says. A reading is an Option: None is "not known", never 0; why it is not known stands beside it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One GPU at one moment, as the helper read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gpu {
    /// NVML's index; it can change at a driver reload, the UUID does not.
    pub(crate) index: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) vram_total_bytes: Option<u64>,
    pub(crate) vram_used_bytes: Option<u64>,
    pub(crate) vram_free_bytes: Option<u64>,
    /// Degrees Celsius.
    pub(crate) temperature_c: Option<u32>,
    /// Milliwatts, as NVML counts them.
    pub(crate) power_mw: Option<u32>,
    pub(crate) power_limit_mw: Option<u32>,
    /// Percent of the time in which a kernel ran.
    pub(crate) utilization_percent: Option<u32>,
    /// Percent of the time in which memory was read or written.
    pub(crate) memory_utilization_percent: Option<u32>,
    /// Names of the readings that this device or driver does not have.
    pub(crate) unsupported: Vec<String>,
    /// Readings that failed although the device may have them: name and NVML's words.
    pub(crate) failed: BTreeMap<String, String>,
    /// The GPU as a whole does not answer.
    pub(crate) error: Option<GpuError>,
}

/// Why a GPU as a whole does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuError {
    pub(crate) kind: GpuErrorKind,
    /// NVML's words.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GpuErrorKind {
    /// NVML 15, or a handle that fails with "unknown error": off the bus, or gone from the container.
    Lost,
    /// NVML 16.
    ResetRequired,
    /// Any other failing handle.
    Other,
    /// The helper does not answer any more; the identity is the last one known.
    NoAnswer,
}

/// All GPUs of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GpuSample {
    pub(crate) driver_version: Option<String>,
    /// The path that was loaded.
    pub(crate) library: Option<String>,
    pub(crate) gpus: Vec<Gpu>,
    /// Microseconds that the readings took inside NVML.
    pub(crate) read_us: u64,
}

/// Why there is no sample at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuFault {
    pub(crate) kind: FaultKind,
    /// One sentence with what was tried.
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// libnvidia-ml.so.1 was not found or could not be loaded.
    LibMissing,
    /// NVML 9.
    DriverNotLoaded,
    /// NVML 18: the driver was upgraded under a running system.
    LibMismatch,
    /// NVML 4.
    NoPermission,
    /// NVML 999 at init: in a container the device access was taken away.
    InitUnknown,
    /// Any other refusal of init or of the device count.
    InitFailed,
    /// agent-net-nvml is not there or cannot be started.
    HelperMissing,
    /// The helper ended, or said what nobody understands.
    HelperFailed,
    /// The helper did not answer in time.
    Stuck,
}

impl fmt::Display for GpuFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Why a reading has no value.
#[cfg(any(feature = "nvml", test))]
#[derive(Debug)]
pub(crate) enum Missing {
    /// The device, its driver or this user does not have it: nothing is wrong.
    Unsupported,
    /// NVML's words.
    Failed(String),
}

impl Gpu {
    /// Keeps why the reading `name` has no value.
    #[cfg(any(feature = "nvml", test))]
    pub(crate) fn note(&mut self, name: &str, why: &Missing) {
        match why {
            Missing::Unsupported => self.unsupported.push(name.to_owned()),
            Missing::Failed(words) => {
                self.failed.insert(name.to_owned(), words.clone());
            }
        }
    }

    /// The same GPU with nothing but its identity: what is left when nobody answers for it any more.
    pub(crate) fn silent(&self, message: &str) -> Self {
        Self {
            index: self.index,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            error: Some(GpuError { kind: GpuErrorKind::NoAnswer, message: message.to_owned() }),
            ..Self::default()
        }
    }

    /// True when NVML gave a handle and the GPU answers.
    pub(crate) fn usable(&self) -> bool {
        self.error.is_none()
    }

    /// What reasons and labels call it: the UUID, else the index.
    pub(crate) fn id(&self) -> String {
        self.uuid.clone().unwrap_or_else(|| format!("gpu{}", self.index))
    }
}

#[test]
fn a_missing_reading_keeps_its_reason_and_is_never_a_number() {
    let mut gpu = Gpu::default();
    gpu.note("temperature_c", &Missing::Unsupported);
    gpu.note("power_w", &Missing::Failed("unknown error".into()));
    assert_eq!((gpu.temperature_c, gpu.power_mw), (None, None));
    assert_eq!(gpu.unsupported, ["temperature_c"]);
    assert_eq!(gpu.failed["power_w"], "unknown error");
}
