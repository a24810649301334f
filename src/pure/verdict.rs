//! The verdict: the worst of all reasons, each with its code, in plain words and with what to do.
//! Unknown is never ok; a reading that a device does not have is no reason.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::gpu::{FaultKind, Gpu, GpuErrorKind, GpuFault};
use super::models::Model;
use super::snapshot::{GpuState, OllamaState, Reach};

/// Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Unknown,
    Degraded,
    Unhealthy,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// The reason codes; the serialised name is the public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    NoSample,
    NoGpu,
    NvmlLibMissing,
    DriverNotLoaded,
    DriverLibMismatch,
    NvmlNoPermission,
    NvmlInitUnknown,
    NvmlInitFailed,
    NvmlHelperMissing,
    NvmlHelperFailed,
    DriverStuck,
    GpuLost,
    ResetRequired,
    GpuHandleError,
    GpuNoReadings,
    GpuCountLow,
    FieldReadError,
    Stale,
    OllamaNoAnswer,
    OllamaDown,
    OllamaListFailed,
    ModelOnCpu,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Reason {
    pub(crate) code: Code,
    pub(crate) severity: Verdict,
    /// UUID (else `gpuN`) of the GPU it is about; None: the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<String>,
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

/// What is judged besides GPUs and Ollama.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// EXPECTED_GPUS.
    pub(crate) expected_gpus: Option<u32>,
    /// NVIDIA display devices on the PCI bus; None when nobody could look.
    pub(crate) pci_gpus: Option<u32>,
}

/// A stuck or dying driver is degraded at first and unhealthy from here on.
const STUCK_UNHEALTHY_S: f64 = 30.0;
/// A sample of this age is worthless whatever the interval.
const STALE_UNHEALTHY: Duration = Duration::from_secs(300);
/// Below this age no sample is called stale, so that a short SAMPLE_INTERVAL does not cry wolf.
const STALE_FLOOR: Duration = Duration::from_secs(3);

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

/// All reasons that hold, worst first. `before` are those of the last moment: what lasts keeps its `since`.
pub(crate) fn judge(gpu: &GpuState, ollama: &OllamaState, limits: Limits, before: &[Reason], now: f64) -> Vec<Reason> {
    let mut findings = Findings { all: Vec::new(), before, now };
    findings.gpus(gpu, ollama, limits);
    findings.ollama(ollama, gpu);
    findings.all.sort_by_key(|r| std::cmp::Reverse(r.severity));
    findings.all
}

/// The reason of a sample that nobody replaced in time, if it is too old.
pub(crate) fn stale(age: Duration, interval: Duration, now: f64) -> Option<Reason> {
    let severity = match age {
        age if age > STALE_UNHEALTHY => Verdict::Unhealthy,
        age if age > (interval * 3).max(STALE_FLOOR) => Verdict::Degraded,
        _ => return None,
    };
    Some(Reason {
        code: Code::Stale,
        severity,
        gpu: None,
        message: format!("the last sample is {} s old", age.as_secs()),
        action: "restart the worker if this lasts; its sampler does not get on",
        since: now - age.as_secs_f64(),
    })
}

struct Findings<'a> {
    all: Vec<Reason>,
    before: &'a [Reason],
    now: f64,
}

impl Findings<'_> {
    fn add(&mut self, code: Code, severity: Verdict, gpu: Option<&Gpu>, message: String, action: &'static str) {
        let gpu = gpu.map(Gpu::id);
        let since = self.before.iter().find(|r| r.code == code && r.gpu == gpu).map_or(self.now, |r| r.since);
        self.all.push(Reason { code, severity, gpu, message, action, since });
    }

    fn gpus(&mut self, state: &GpuState, ollama: &OllamaState, limits: Limits) {
        match state {
            GpuState::Pending => self.add(
                Code::NoSample,
                Verdict::Unknown,
                None,
                "the GPUs have not been read yet".into(),
                "wait a few seconds; if this lasts, the driver does not answer",
            ),
            GpuState::Fault { fault, lasting_s, .. } => self.fault(fault, *lasting_s, ollama, limits),
            GpuState::Sample(sample) => {
                for gpu in &sample.gpus {
                    self.gpu(gpu);
                }
                let usable = sample.gpus.iter().filter(|g| g.usable()).count();
                if sample.gpus.is_empty() && limits.expected_gpus != Some(0) {
                    self.no_gpu("NVML works and counts no GPU");
                }
                let expected = limits.expected_gpus.unwrap_or(0) as usize;
                if usable < expected {
                    self.add(
                        Code::GpuCountLow,
                        Verdict::Unhealthy,
                        None,
                        format!("{usable} of {expected} expected GPUs can be used"),
                        "look for the missing GPU in nvidia-smi and dmesg; if it is gone for good, lower EXPECTED_GPUS",
                    );
                }
            }
        }
    }

    fn no_gpu(&mut self, message: &str) {
        self.add(
            Code::NoGpu,
            Verdict::Unhealthy,
            None,
            message.to_owned(),
            "give the container a GPU (compose/gpu.yaml, or --gpus all), or set EXPECTED_GPUS=0 if none is meant to be here",
        );
    }

    fn gpu(&mut self, gpu: &Gpu) {
        if let Some(error) = &gpu.error {
            let (code, action) = match error.kind {
                GpuErrorKind::Lost => {
                    (Code::GpuLost, "reboot the machine; if the GPU is lost again, check its power and seat")
                }
                GpuErrorKind::ResetRequired => (Code::ResetRequired, "stop its users and run nvidia-smi -r, or reboot"),
                GpuErrorKind::Other | GpuErrorKind::NoAnswer => {
                    (Code::GpuHandleError, "look at dmesg and nvidia-smi; a reboot usually mends it")
                }
            };
            let message = format!("GPU {} does not answer: {}", gpu.index, error.message);
            return self.add(code, Verdict::Unhealthy, Some(gpu), message, action);
        }
        if !gpu.failed.is_empty() {
            let fields: Vec<String> = gpu.failed.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            self.add(
                Code::FieldReadError,
                Verdict::Degraded,
                Some(gpu),
                format!("GPU {} cannot be read in full: {}", gpu.index, fields.join(", ")),
                "look at dmesg and nvidia-smi; readings that a device does not have are not counted here",
            );
        }
        let silent = gpu.vram_used_bytes.is_none() && gpu.temperature_c.is_none() && gpu.utilization_percent.is_none();
        if silent {
            self.add(
                Code::GpuNoReadings,
                Verdict::Unknown,
                Some(gpu),
                format!("GPU {} gives neither memory, temperature nor utilisation", gpu.index),
                "its health cannot be told; on Jetson and similar boards NVML is not enough",
            );
        }
    }

    fn fault(&mut self, fault: &GpuFault, lasting_s: f64, ollama: &OllamaState, limits: Limits) {
        let lasting = if lasting_s >= STUCK_UNHEALTHY_S { Verdict::Unhealthy } else { Verdict::Degraded };
        let (code, severity, action) = match fault.kind {
            FaultKind::LibMissing | FaultKind::DriverNotLoaded if limits.expected_gpus == Some(0) => return,
            FaultKind::LibMissing | FaultKind::DriverNotLoaded if limits.pci_gpus == Some(0) => {
                if ollama.vram_bytes() == 0 {
                    return self.no_gpu(&format!("no NVIDIA device on the PCI bus and no NVML: {}", fault.detail));
                }
                // Ollama holds a model in the memory of a GPU that NVML does not know: another maker's.
                (
                    Code::NvmlLibMissing,
                    Verdict::Unknown,
                    "Ollama uses a GPU that is no NVIDIA one; its health cannot be read",
                )
            }
            FaultKind::LibMissing => (
                Code::NvmlLibMissing,
                if limits.pci_gpus.is_some() { Verdict::Unhealthy } else { Verdict::Unknown },
                "start the container with the NVIDIA runtime and NVIDIA_DRIVER_CAPABILITIES=utility (compose/gpu.yaml), or set NVML_LIB",
            ),
            FaultKind::DriverNotLoaded => (
                Code::DriverNotLoaded,
                Verdict::Unhealthy,
                "load the driver on the host (modprobe nvidia) or install it",
            ),
            FaultKind::LibMismatch => (
                Code::DriverLibMismatch,
                Verdict::Unhealthy,
                "the driver was upgraded: reboot the host, then restart the containers",
            ),
            FaultKind::NoPermission => (
                Code::NvmlNoPermission,
                Verdict::Unhealthy,
                "give the worker the group of /dev/nvidiactl (group_add in compose)",
            ),
            FaultKind::InitUnknown => (
                Code::NvmlInitUnknown,
                Verdict::Unhealthy,
                "the container lost its GPU (a systemctl daemon-reload does it): restart the containers; for good: native.cgroupdriver=cgroupfs",
            ),
            FaultKind::InitFailed => {
                (Code::NvmlInitFailed, Verdict::Unhealthy, "run nvidia-smi on the host; if it fails too, reboot")
            }
            FaultKind::HelperMissing => (
                Code::NvmlHelperMissing,
                Verdict::Unknown,
                "put agent-net-nvml beside agent-net, or name it in NVML_HELPER",
            ),
            FaultKind::HelperFailed => (
                Code::NvmlHelperFailed,
                lasting,
                "it is started again by itself; if this lasts, look at the worker's log and at dmesg",
            ),
            FaultKind::Stuck => (
                Code::DriverStuck,
                lasting,
                "the driver does not answer; look at dmesg and nvidia-smi on the host, reboot if they hang too",
            ),
        };
        self.add(code, severity, None, fault.detail.clone(), action);
    }

    fn ollama(&mut self, ollama: &OllamaState, gpu: &GpuState) {
        match &ollama.reach {
            Reach::Pending => self.add(
                Code::OllamaNoAnswer,
                Verdict::Unknown,
                None,
                "Ollama has not answered yet".into(),
                "wait a few seconds; Ollama looks for GPUs before it answers the first time",
            ),
            Reach::Down(why) => self.add(
                Code::OllamaDown,
                Verdict::Unhealthy,
                None,
                format!("Ollama does not answer: {why}"),
                "start Ollama, or mend OLLAMA_URL",
            ),
            Reach::Up { .. } => {
                if let Some(why) = &ollama.list_error {
                    self.add(
                        Code::OllamaListFailed,
                        Verdict::Unknown,
                        None,
                        format!("Ollama answers, but not with its models: {why}"),
                        "look at Ollama's log; a runner that hangs delays /api/ps",
                    );
                }
            }
        }
        let gpu_here = matches!(gpu, GpuState::Sample(s) if s.gpus.iter().any(Gpu::usable));
        let on_cpu = |m: &&Model| m.loaded.is_some_and(|l| l.vram_bytes == 0);
        if let Some(model) = ollama.models.iter().find(on_cpu).filter(|_| gpu_here) {
            self.add(
                Code::ModelOnCpu,
                Verdict::Degraded,
                None,
                format!("model {} is loaded into main memory, not onto the GPU", model.name),
                "restart Ollama and load the model again; see Ollama's log for why no GPU was used",
            );
        }
    }
}

#[cfg(test)]
mod tests;
