//! What one GPU says. A reading is an Option: None is "not known", never 0; why it is not known stands beside it.
//! Source of the fields: NVML (`edge/helper`), or a Tegra board's sysfs (`edge/tegra`).

mod identity;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pci::PciId;

/// One GPU at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gpu {
    /// NVML's index; it can change at a driver reload, the UUID does not.
    pub(crate) index: u32,
    pub(crate) uuid: Option<String>,
    pub(crate) name: Option<String>,
    /// `00000000:01:00.0`, as NVML writes it.
    pub(crate) pci_bus_id: Option<String>,
    /// It has no memory of its own; what `vram_` says is the machine's main memory.
    pub(crate) unified_memory: bool,
    pub(crate) vram_total_bytes: Option<u64>,
    pub(crate) vram_used_bytes: Option<u64>,
    pub(crate) vram_free_bytes: Option<u64>,
    /// Held back by driver and firmware; part of neither used nor free.
    pub(crate) vram_reserved_bytes: Option<u64>,
    /// Degrees Celsius.
    pub(crate) temperature_c: Option<u32>,
    /// Degrees Celsius left to the limit at which the GPU slows down (T.Limit); negative beyond it.
    pub(crate) temperature_margin_c: Option<i32>,
    /// Degrees Celsius of HBM.
    pub(crate) memory_temperature_c: Option<u32>,
    /// Milliwatts, as NVML counts them.
    pub(crate) power_mw: Option<u32>,
    pub(crate) power_limit_mw: Option<u32>,
    /// Millijoules since the driver was loaded.
    pub(crate) energy_mj: Option<u64>,
    /// Percent of the time in which a kernel ran.
    pub(crate) utilization_percent: Option<u32>,
    /// Percent of the time in which memory was read or written.
    pub(crate) memory_utilization_percent: Option<u32>,
    /// Megahertz.
    pub(crate) graphics_clock_mhz: Option<u32>,
    pub(crate) memory_clock_mhz: Option<u32>,
    /// 0 is the fastest, 15 the slowest.
    pub(crate) performance_state: Option<u32>,
    /// NVML's bits for why clocks are held down, see [`THROTTLES`].
    pub(crate) throttle_bits: Option<u64>,
    /// Nanoseconds in which clocks were held down since the driver was loaded, by the names of [`THROTTLES`].
    pub(crate) throttle_ns: BTreeMap<String, u64>,
    /// What the driver says must be done (NVML field 230); 0 is nothing.
    pub(crate) recovery_action: Option<u32>,
    pub(crate) remapped_rows: Option<RemappedRows>,
    /// A power rail reports that it is over its limit (Tegra boards only).
    pub(crate) power_alarm: Option<bool>,
    /// Microseconds that reading it took; of a GPU that does not answer, how long it has not.
    pub(crate) read_us: Option<u64>,
    pub(crate) gaps: Gaps,
    /// What is read every half minute.
    pub(crate) slow: Slow,
    /// What is read once.
    pub(crate) fixed: Fixed,
    /// The GPU as a whole does not answer.
    pub(crate) error: Option<GpuError>,
}

/// Readings that cost more than they change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Slow {
    /// Percent of full speed, of each fan.
    pub(crate) fan_percent: Option<Vec<u32>>,
    pub(crate) pcie_generation: Option<u32>,
    pub(crate) pcie_width: Option<u32>,
    /// Transfers that had to be repeated since the driver was loaded.
    pub(crate) pcie_replays: Option<u32>,
    pub(crate) ecc_enabled: Option<bool>,
    /// Since the driver was loaded; only with ECC.
    pub(crate) ecc_uncorrected_volatile: Option<u64>,
    /// In the life of the board.
    pub(crate) ecc_uncorrected_aggregate: Option<u64>,
    pub(crate) retired_pages: Option<RetiredPages>,
    /// Programs that compute on it, at most [`MAX_PROCESSES`].
    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) persistence_mode: Option<bool>,
    /// It is cut into slices; many readings of the whole are not to be had then.
    pub(crate) mig_mode: Option<bool>,
    /// NVLinks that are up.
    pub(crate) nvlinks_active: Option<u32>,
    pub(crate) gaps: Gaps,
}

/// What does not change while the driver stays loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Fixed {
    pub(crate) vbios_version: Option<String>,
    /// CUDA's: major and minor version of what the GPU can compute.
    pub(crate) compute_capability: Option<(i32, i32)>,
    /// Degrees Celsius at which the GPU slows itself down.
    pub(crate) temperature_slowdown_c: Option<u32>,
    /// Degrees Celsius at which it switches itself off.
    pub(crate) temperature_shutdown_c: Option<u32>,
    /// Degrees Celsius up to which it is specified.
    pub(crate) temperature_max_c: Option<u32>,
    /// The same of its memory.
    pub(crate) memory_temperature_max_c: Option<u32>,
    /// The margin (see `temperature_margin_c`) at the specified maximum: newer parts have it instead of the above.
    pub(crate) margin_at_max_c: Option<i32>,
    /// The same where it switches itself off.
    pub(crate) margin_at_shutdown_c: Option<i32>,
    pub(crate) power_limit_default_mw: Option<u32>,
    pub(crate) graphics_clock_max_mhz: Option<u32>,
    pub(crate) memory_clock_max_mhz: Option<u32>,
    pub(crate) pcie_generation_max: Option<u32>,
    /// The slot is counted in.
    pub(crate) pcie_width_max: Option<u32>,
    /// The checksum of the board's own data is wrong (NVML 14).
    pub(crate) inforom_corrupt: Option<bool>,
    pub(crate) gaps: Gaps,
}

/// Readings without a value, by the names that the report gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gaps {
    /// The device, its driver or this user does not have them: nothing is wrong.
    pub(crate) unsupported: Vec<String>,
    /// They failed, by name.
    pub(crate) failed: BTreeMap<String, Failure>,
    /// One of the calls said that the board's own data is damaged (NVML 14).
    pub(crate) inforom_corrupt: bool,
}

/// Why a reading has no value although the device may have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// The driver's words, or its value and what is wrong with that.
    pub(crate) words: String,
    /// NVML answered "unknown error" (999) or "lost" (15): the device is at fault, whatever the reading.
    pub(crate) of_device: bool,
}

/// Memory rows that were replaced by spare ones (Ampere and later).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RemappedRows {
    pub(crate) correctable: u32,
    pub(crate) uncorrectable: u32,
    /// A row waits for a reset to be replaced.
    pub(crate) pending: bool,
    /// No spare row was left.
    pub(crate) failed: bool,
}

/// Memory pages that are no longer used (before Ampere).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RetiredPages {
    pub(crate) single_bit: u32,
    pub(crate) double_bit: u32,
    /// A page waits for a reboot to be retired.
    pub(crate) pending: bool,
}

/// A program that computes on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// As the host counts them.
    pub(crate) pid: u32,
    /// None: the driver does not say.
    pub(crate) vram_bytes: Option<u64>,
}

/// More processes than this are not listed.
#[cfg(feature = "nvml")]
pub(crate) const MAX_PROCESSES: usize = 32;

/// Why clocks are held down: NVML's bit and our name.
pub(crate) const THROTTLES: &[(u64, &str)] = &[
    (IDLE, "idle"),
    (0x04, "sw_power"),
    (HW_SLOWDOWN, "hw"),
    (HW_THERMAL, "hw_thermal"),
    (HW_POWER_BRAKE, "hw_power_brake"),
    (SW_THERMAL, "sw_thermal"),
];
pub(crate) const IDLE: u64 = 0x01;
/// Heat or power: older GPUs do not say which.
pub(crate) const HW_SLOWDOWN: u64 = 0x08;
pub(crate) const SW_THERMAL: u64 = 0x20;
pub(crate) const HW_THERMAL: u64 = 0x40;
pub(crate) const HW_POWER_BRAKE: u64 = 0x80;

/// How long a helper's first answer may take: the helper starts and NVML is initialised. Where no persistence mode keeps
/// the driver loaded, that takes 6 to 25 s, and a helper that is killed before then begins again, without end.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// A GPU that takes longer to answer is slow.
pub(crate) const SLOW_READ: Duration = Duration::from_secs(2);

/// Readings that every GPU has: they may not fail even if nobody has seen them work.
pub(crate) const CORE_READINGS: &[&str] =
    &["vram_total_mb", "vram_used_mb", "vram_free_mb", "temperature_c", "power_w", "utilization_percent"];

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
    /// The whole library must be started anew (NVML 1, 9, 18, 28).
    Stale,
    /// It has been asked and has not answered yet, while others have.
    Slow,
    /// NVML 4 or 17 instead of a handle: this process or its container may not use the GPU. Nothing is wrong with it.
    NotGiven,
    /// NVML 8: its external power cables are not attached.
    NoPower,
    /// NVML 27: the driver is still starting it.
    NotReady,
    /// Any other failing handle.
    Other,
    /// Nobody answers for it any more; the identity is the last one known.
    NoAnswer,
}

/// All GPUs of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GpuSample {
    pub(crate) driver_version: Option<String>,
    pub(crate) nvml_version: Option<String>,
    /// `12.4`
    pub(crate) cuda_version: Option<String>,
    /// The path that was loaded; None: the readings do not come from NVML.
    pub(crate) library: Option<String>,
    pub(crate) gpus: Vec<Gpu>,
    /// The slow readings are new in this sample.
    pub(crate) slow_fresh: bool,
    /// What the driver reported since the last sample; None when nobody listens.
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

impl Gpu {
    fn all_gaps(&self) -> [&Gaps; 3] {
        [&self.gaps, &self.slow.gaps, &self.fixed.gaps]
    }

    /// Names of all readings that it does not have.
    pub(crate) fn unsupported(&self) -> impl Iterator<Item = &str> {
        self.all_gaps().into_iter().flat_map(|gaps| &gaps.unsupported).map(String::as_str)
    }

    /// All readings that failed although it may have them.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.all_gaps().into_iter().flat_map(|gaps| &gaps.failed).map(|(name, why)| (name.as_str(), why))
    }

    /// So many of the readings that every GPU has fail as those of a dead one do.
    pub(crate) fn dead_readings(&self) -> usize {
        self.failed().filter(|(name, why)| why.of_device && CORE_READINGS.contains(name)).count()
    }

    /// Names of what holds its clocks down; None when it does not say.
    pub(crate) fn throttles(&self) -> Option<Vec<&'static str>> {
        let bits = self.throttle_bits?;
        Some(THROTTLES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect())
    }

    pub(crate) fn pci(&self) -> Option<PciId> {
        PciId::parse(self.pci_bus_id.as_deref()?)
    }

    /// The same GPU with nothing but its identity.
    pub(crate) fn identity(&self) -> Self {
        Self {
            index: self.index,
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            pci_bus_id: self.pci_bus_id.clone(),
            unified_memory: self.unified_memory,
            ..Self::default()
        }
    }

    /// What is left of it while nothing answers for it.
    pub(crate) fn silent(&self, message: &str) -> Self {
        let error = Some(GpuError { kind: GpuErrorKind::NoAnswer, message: message.to_owned() });
        Self { error, ..self.identity() }
    }

    /// True when NVML gave a handle and the GPU answers.
    pub(crate) fn usable(&self) -> bool {
        self.error.is_none()
    }

    /// False for a GPU that the driver lists and that this process may not use.
    pub(crate) fn given(&self) -> bool {
        self.error.as_ref().is_none_or(|error| error.kind != GpuErrorKind::NotGiven)
    }

    /// It has been asked and has not answered yet.
    pub(crate) fn is_slow(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind == GpuErrorKind::Slow)
    }

    /// It gives nothing that its health could be told from.
    pub(crate) fn says_nothing(&self) -> bool {
        self.vram_used_bytes.is_none() && self.temperature_c.is_none() && self.utilization_percent.is_none()
    }

    /// What reasons and labels call it: the UUID, else the index.
    pub(crate) fn id(&self) -> String {
        self.uuid.clone().unwrap_or_else(|| format!("gpu{}", self.index))
    }
}

#[test]
fn throttle_bits_have_names() {
    let gpu = |bits| Gpu { throttle_bits: bits, ..Gpu::default() };
    assert_eq!(gpu(None).throttles(), None);
    assert_eq!(gpu(Some(0)).throttles(), Some(vec![]));
    assert_eq!(gpu(Some(0x49 | 1 << 40)).throttles(), Some(vec!["idle", "hw", "hw_thermal"]));
}
