//! The rules: one moment and its past in, all reasons that hold out. Thresholds follow what gpud, DCGM,
//! nvidia_gpu_exporter and NVIDIA's XID catalogue judge by.

mod driver;
mod gpu;
mod heat;
mod presence;
mod service;

pub(crate) use driver::KEEP_LOADED;

use super::reading_log::History;
use super::snapshot::{GpuState, OllamaState};
use super::uptime::Windows;
use super::verdict::{Code, Reason, Verdict};
use crate::gpu::legacy::Legacy;
use crate::gpu::pci::PciId;
use crate::gpu::sample::Gpu;
use crate::gpu::xid::XidLog;
use crate::ollama::keeper::Row;

/// The operator's own limits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// EXPECTED_GPUS.
    pub(crate) expected_gpus: Option<u32>,
    /// GPU_MIN_VRAM_GB, in bytes.
    pub(crate) min_vram_bytes: Option<u64>,
    /// GPU_MAX_TEMP_C.
    pub(crate) max_temp_c: Option<u32>,
    /// The thresholds of the windows of 1 h, 24 h and 30 d, in percent.
    pub(crate) uptime_percent: [f64; 3],
}

/// What the machine shows of its GPUs without NVML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// NVIDIA display devices on the PCI bus; None where the bus cannot be seen.
    pub(crate) pci_gpus: Option<u32>,
    /// Those of them that run NVIDIA's driver, or none: no other machine and no other driver has them.
    pub(crate) pci_gpus_for_nvidia: Option<u32>,
    /// Those of them that have no driver at all.
    pub(crate) unbound: Vec<PciId>,
    /// Drivers of other makers that have cards: nouveau, or vfio-pci for a virtual machine.
    pub(crate) other_drivers: Vec<String>,
    /// Cards that the installed driver ignores, as far as the kernel's log can be read.
    pub(crate) legacy: Legacy,
    /// /dev/nvidia0 and so on: the GPUs that were given to this container.
    pub(crate) device_nodes: Option<u32>,
    /// The PCI bus then also shows GPUs that are none of ours.
    pub(crate) in_container: bool,
    pub(crate) access: Access,
}

impl Surroundings {
    /// GPUs on the PCI bus that NVIDIA's driver should have; None where the bus cannot be seen.
    pub(crate) fn gpus_on_bus(&self) -> Option<u32> {
        let ignored = u32::try_from(self.legacy.ignored(&self.unbound)).unwrap_or(u32::MAX);
        self.pci_gpus_for_nvidia.map(|gpus| gpus.saturating_sub(ignored))
    }

    /// What there is to say of cards that NVIDIA's driver does not have: begins with a semicolon, or is empty.
    pub(crate) fn without_driver(&self) -> String {
        let legacy = self.legacy.because();
        match (legacy.is_empty(), self.other_drivers.is_empty()) {
            (true, false) => format!("; other drivers have NVIDIA's cards: {}", self.other_drivers.join(", ")),
            _ => legacy,
        }
    }

    /// What to do when NVIDIA's driver is not loaded.
    pub(crate) fn load_driver(&self) -> &'static str {
        if !self.legacy.sentences().is_empty() {
            "install the driver that the card needs: the one that is installed ignores it"
        } else if self.pci_gpus_for_nvidia == Some(0) && !self.other_drivers.is_empty() {
            "give the card to NVIDIA's driver: blacklist nouveau or nvidiafb and reboot, or take the card back from the virtual machine (vfio-pci); then modprobe nvidia"
        } else {
            "load the driver on the host (modprobe nvidia) or install it"
        }
    }
}

/// Whether the driver's device node can be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// There is none, or it was not tried.
    #[default]
    Untested,
    Open,
    /// It is there and cannot be opened; the system's words.
    Refused(String),
    /// The same because the container's right was taken away (EPERM).
    Revoked,
}

/// All that is judged at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) gpu: &'a GpuState,
    pub(crate) ollama: &'a OllamaState,
    pub(crate) history: &'a History,
    pub(crate) xids: &'a XidLog,
    /// Seconds of the monotonic clock, by which errors have their times.
    pub(crate) monotonic: f64,
    pub(crate) uptime: &'a Windows,
    pub(crate) around: &'a Surroundings,
    pub(crate) limits: &'a Limits,
    /// Models that are to be loaded.
    pub(crate) wanted: &'a [String],
    /// How their keepers stand; none where nobody keeps them.
    pub(crate) keepers: &'a [Row],
}

/// All reasons that hold, worst first. `before` are those of the last moment: what lasts keeps its `since`.
/// `now`: Unix seconds.
pub(crate) fn judge(facts: &Facts<'_>, before: &[Reason], now: f64) -> Vec<Reason> {
    let mut findings = Findings { all: Vec::new(), before, now };
    driver::judge(facts, &mut findings);
    gpu::judge(facts, &mut findings);
    service::judge(facts, &mut findings);
    findings.all.sort_by_key(|r| std::cmp::Reverse(r.severity));
    findings.all
}

/// A command that asks once has no later: a driver that did not answer until its timeout, or a helper that crashed
/// again, is unhealthy, however short that was.
pub(crate) fn settle(reasons: &mut [Reason]) {
    for reason in reasons.iter_mut() {
        if reason.code == Code::GpuSlow && reason.severity == Verdict::Unknown {
            reason.code = Code::DriverStuck;
        }
        reason.action = match reason.code {
            Code::DriverStuck => {
                "look at dmesg and nvidia-smi on the host, reboot if they hang too; a driver that only starts slowly wants persistence mode (nvidia-smi -pm 1) or a longer --timeout"
            }
            Code::NvmlHelperFailed => {
                "look at dmesg and nvidia-smi on the host; if that crashes too, install the driver again"
            }
            _ => continue,
        };
        (reason.severity, reason.value, reason.threshold) = (Verdict::Unhealthy, None, None);
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
}

struct Findings<'a> {
    all: Vec<Reason>,
    before: &'a [Reason],
    now: f64,
}

impl Findings<'_> {
    /// One more; the last one added can be given its numbers.
    fn add(
        &mut self,
        code: Code,
        severity: Verdict,
        gpu: Option<&Gpu>,
        message: String,
        action: &'static str,
    ) -> &mut Reason {
        let gpu = gpu.map(Gpu::id);
        let since = self.before.iter().find(|r| r.code == code && r.gpu == gpu).map_or(self.now, |r| r.since);
        self.all.push(Reason { code, severity, gpu, value: None, threshold: None, message, action, since });
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

impl Reason {
    /// Says what was measured and what it was measured against.
    fn numbers(&mut self, value: impl Into<f64>, threshold: impl Into<f64>) {
        (self.value, self.threshold) = (Some(value.into()), Some(threshold.into()));
    }
}

#[cfg(test)]
mod tests;
