//! Why a reading, a GPU or all of them have no value.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Readings without a value, by the names that the report gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gaps {
    /// The device, its driver or this user does not have them: nothing is wrong.
    pub(crate) unsupported: Vec<String>,
    /// By name.
    pub(crate) failed: BTreeMap<String, Failure>,
    /// One of the calls reported that the infoROM is corrupted (NVML 14).
    pub(crate) inforom_corrupt: bool,
}

/// Why a reading failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// The driver's error, or its value and what is wrong with it.
    pub(crate) words: String,
    /// NVML answered "unknown error" (999) or "lost" (15): the device is at fault, whatever the reading.
    pub(crate) of_device: bool,
}

/// Why a GPU as a whole does not respond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuError {
    pub(crate) kind: GpuErrorKind,
    /// NVML's error message.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GpuErrorKind {
    /// NVML 15, or a handle that fails with "unknown error": off the bus, or gone from the container.
    Lost,
    /// NVML 16.
    ResetRequired,
    /// The whole library must be restarted (NVML 1, 9, 18, 28).
    Stale,
    /// It has been asked and has not responded yet, while others have.
    Slow,
    /// NVML 4 or 17 instead of a handle: this process or its container may not use the GPU. Nothing is wrong with it.
    NotGiven,
    /// NVML 8: its external power cables are not attached.
    NoPower,
    /// NVML 27: the driver is still starting it.
    NotReady,
    /// Any other failing handle.
    Other,
    /// The reader does not respond for it any more; the identity is the last one known.
    NoAnswer,
}

/// Why there is no sample at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GpuFault {
    pub(crate) kind: FaultKind,
    /// One sentence that says what was tried.
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
    /// It is there, and not a program that this machine can run.
    HelperNotExecutable,
    /// The helper ended, or sent a line that is not valid.
    HelperFailed,
    /// The helper has another protocol: another build.
    HelperOfOtherBuild,
    /// The helper did not respond in time.
    Stuck,
}

impl FaultKind {
    /// No helper can be started.
    pub(crate) fn without_helper(self) -> bool {
        matches!(self, Self::HelperMissing | Self::HelperNotExecutable)
    }

    /// The helper failed, and not the driver.
    pub(crate) fn of_helper(self) -> bool {
        matches!(self, Self::HelperFailed | Self::HelperOfOtherBuild)
    }
}

impl fmt::Display for GpuFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
