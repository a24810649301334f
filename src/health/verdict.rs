//! What a verdict is: the worst of all reasons, each with its code, in plain words and with what to do.
//! Unknown is never ok. The rules that find reasons are in `rules`.

use crate::sys::exit::Exit;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gpu::sample::Gpu;

/// Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Unknown,
    Degraded,
    Unhealthy,
}

impl Verdict {
    pub(crate) const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Unhealthy, Self::Unknown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reason codes; the serialised name is the public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    NoSample,
    Stale,
    NoGpu,
    GpuCountLow,
    GpuAccessLost,
    NvmlLibMissing,
    DriverNotLoaded,
    DriverLibMismatch,
    NvmlNoPermission,
    NvmlInitUnknown,
    NvmlInitFailed,
    NvmlHelperMissing,
    NvmlHelperFailed,
    DriverStarting,
    DriverStuck,
    GpuSlow,
    GpuLost,
    GpuReadFailed,
    ResetRequired,
    DrainP2p,
    GpuHandleError,
    GpuNoReadings,
    FieldReadError,
    XidFatal,
    XidWarn,
    EccUncorrected,
    RowRemapFailed,
    RowRemapPending,
    RowRemapMany,
    RetiredPending,
    RetiredLimit,
    TempCritical,
    TempHigh,
    TempAboveMax,
    MemTempHigh,
    HwThermalSlowdown,
    HwPowerBrake,
    HwSlowdown,
    PcieWidthLow,
    PcieReplay,
    InforomCorrupt,
    PowerAlarm,
    VramBelowMin,
    OllamaNoAnswer,
    OllamaDown,
    OllamaListFailed,
    ModelOnCpu,
    ModelVramMismatch,
    ModelNotLoaded,
    ModelStuck,
    ModelsDisplaced,
    UptimeLowShort,
    UptimeLowMedium,
    UptimeLowLong,
}

impl Code {
    /// It is about driver and GPUs, not about Ollama or the past: the uptime of the GPUs counts these alone.
    pub(crate) fn of_gpus(self) -> bool {
        !matches!(
            self,
            Self::OllamaNoAnswer
                | Self::OllamaDown
                | Self::OllamaListFailed
                | Self::ModelOnCpu
                | Self::ModelVramMismatch
                | Self::ModelNotLoaded
                | Self::ModelStuck
                | Self::ModelsDisplaced
                | Self::UptimeLowShort
                | Self::UptimeLowMedium
                | Self::UptimeLowLong
        )
    }

    /// As it is written everywhere.
    pub(crate) fn name(self) -> String {
        // A unit variant serialises as a string.
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Reason {
    pub(crate) code: Code,
    pub(crate) severity: Verdict,
    /// UUID (else `gpuN`) of the GPU it is about; None: the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<String>,
    /// What was measured, and what it was measured against, where the rule compares numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<f64>,
    pub(crate) message: String,
    pub(crate) action: &'static str,
    /// Unix seconds at which it was first seen without a gap.
    pub(crate) since: f64,
}

impl Reason {
    /// The same finding at another moment.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.code == other.code && self.severity == other.severity && self.gpu == other.gpu
    }
}

/// The worst of `reasons`.
pub(crate) fn worst<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> Verdict {
    reasons.into_iter().map(|r| r.severity).max().unwrap_or(Verdict::Ok)
}

/// The verdict of one GPU: the worst of what is said of it; without an answer it is not ok.
pub(crate) fn of_gpu(gpu: &Gpu, reasons: &[Reason]) -> Verdict {
    let id = gpu.id();
    let said = worst(reasons.iter().filter(|r| r.gpu.as_ref() == Some(&id)));
    if gpu.usable() { said } else { said.max(Verdict::Unknown) }
}

/// A sample of this age is worthless whatever the interval.
const STALE_UNHEALTHY: Duration = Duration::from_secs(300);
/// Below this age no sample is called stale, so that a short SAMPLE_INTERVAL does not cry wolf.
const STALE_FLOOR: Duration = Duration::from_secs(3);

/// The reason of a sample that nobody replaced in time, if it is too old. `now`: Unix seconds.
pub(crate) fn stale(age: Duration, interval: Duration, now: f64) -> Option<Reason> {
    let degraded = (interval * 3).max(STALE_FLOOR);
    let (severity, threshold) = match age {
        age if age > STALE_UNHEALTHY.max(degraded) => (Verdict::Unhealthy, STALE_UNHEALTHY),
        age if age > degraded => (Verdict::Degraded, degraded),
        _ => return None,
    };
    Some(Reason {
        code: Code::Stale,
        severity,
        gpu: None,
        value: Some(age.as_secs_f64().floor()),
        threshold: Some(threshold.as_secs_f64()),
        message: format!("the last sample is {} s old", age.as_secs()),
        action: "restart the worker if this lasts; its sampler does not get on",
        since: now - age.as_secs_f64(),
    })
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok => Self::Ok,
            Verdict::Degraded => Self::Failed,
            Verdict::Unhealthy => Self::Unhealthy,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

#[test]
fn an_old_sample_is_not_believed() {
    #[track_caller]
    fn check(age_s: u64, interval_ms: u64, expect: Option<Verdict>) {
        let reason = stale(Duration::from_secs(age_s), Duration::from_millis(interval_ms), 1000.0);
        assert_eq!(reason.map(|r| r.severity), expect);
    }
    check(15, 5000, None);
    check(16, 5000, Some(Verdict::Degraded));
    check(3, 100, None);
    check(4, 100, Some(Verdict::Degraded));
    check(301, 5000, Some(Verdict::Unhealthy));
    check(301, 300_000, None);
    check(901, 300_000, Some(Verdict::Unhealthy));
}

#[test]
fn a_gpu_without_an_answer_is_never_ok() {
    let gpu = Gpu { uuid: Some("GPU-1".into()), ..Gpu::default() };
    assert_eq!(of_gpu(&gpu, &[]), Verdict::Ok);
    assert_eq!(of_gpu(&gpu.silent("gone"), &[]), Verdict::Unknown);
}

#[test]
fn codes_have_their_public_names() {
    assert_eq!(Code::DrainP2p.name(), "DRAIN_P2P");
    assert_eq!(Code::NvmlInitUnknown.name(), "NVML_INIT_UNKNOWN");
}
