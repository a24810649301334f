//! The rules: one moment and its past in, all reasons that hold out. Thresholds follow what gpud, DCGM,
//! nvidia_gpu_exporter and NVIDIA's XID catalogue judge by.

mod driver;
mod gpu;
mod heat;
mod presence;
mod service;

use super::reading_log::History;
use super::uptime::Windows;
use super::verdict::{Code, Reason, Verdict};
use crate::config::limits::Limits;
use crate::gpu::sample::Gpu;
use crate::gpu::state::GpuState;
use crate::gpu::surroundings::Surroundings;
use crate::gpu::xid::XidLog;
use crate::ollama::keeper::Row;
use crate::ollama::state::OllamaState;

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
