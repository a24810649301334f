//! The rules: one moment and its past in, all current reasons out. Thresholds follow gpud, DCGM, nvidia_gpu_exporter
//! and NVIDIA's XID catalogue.

mod driver;
mod gpu;
mod heat;
mod presence;
mod service;

use std::borrow::Cow;

use super::reading_log::History;
use super::uptime::Windows;
use super::verdict::{Code, Reason, Verdict};
use crate::config::limits::Limits;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::place::Place;
use crate::gpu::sample::Gpu;
use crate::gpu::state::GpuState;
use crate::gpu::xid::XidLog;
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::state::OllamaState;

/// All that the rules look at in one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) gpu: &'a GpuState,
    pub(crate) ollama: &'a OllamaState,
    pub(crate) history: &'a History,
    pub(crate) xids: &'a XidLog,
    /// Seconds of the monotonic clock, by which XIDs are dated.
    pub(crate) monotonic: f64,
    pub(crate) uptime: &'a Windows,
    pub(crate) host: &'a HostFacts,
    pub(crate) limits: &'a Limits,
    /// MODEL.
    pub(crate) wanted: &'a [String],
    /// The state of their keepers; empty for a command that keeps none.
    pub(crate) keepers: &'a [KeeperRow],
}

/// All current reasons, worst first. `before` are those of the last moment: a reason that persists keeps its `since`.
/// `now`: Unix seconds.
pub(crate) fn reasons(facts: &Facts<'_>, before: &[Reason], now: f64) -> Vec<Reason> {
    let mut findings = Findings { all: Vec::new(), before, now, place: facts.host.place };
    driver::driver_reasons(facts, &mut findings);
    gpu::gpu_reasons(facts, &mut findings);
    service::service_reasons(facts, &mut findings);
    findings.all.sort_by_key(|r| std::cmp::Reverse(r.severity));
    findings.all
}

/// A command that asks once cannot wait for a second look: a driver that did not answer until the timeout, or a helper
/// that crashed again, is unhealthy, however short that was.
pub(crate) fn settle(reasons: &mut [Reason], place: Place) {
    for reason in reasons.iter_mut() {
        if reason.code == Code::GpuSlow && reason.severity == Verdict::Unknown {
            reason.recode(Code::DriverStuck);
        }
        let on_the_host = place.on_the_host();
        reason.action = match reason.code {
            Code::DriverStuck => format!(
                "{} {} if nvidia-smi hangs too. If the driver only starts slowly, enable persistence mode \
                 (`nvidia-smi -pm 1`{on_the_host}) or raise --timeout.",
                place.check_logs(),
                place.reboot()
            ),
            Code::NvmlHelperFailed => {
                format!("{} If nvidia-smi crashes too, reinstall the driver.", place.check_logs())
            }
            _ => continue,
        }
        .into();
        (reason.severity, reason.value, reason.threshold) = (Verdict::Unhealthy, None, None);
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
}

struct Findings<'a> {
    all: Vec<Reason>,
    before: &'a [Reason],
    now: f64,
    place: Place,
}

impl Findings<'_> {
    /// Adds a reason, which can then be given its numbers.
    fn add(
        &mut self,
        code: Code,
        severity: Verdict,
        gpu: Option<&Gpu>,
        message: String,
        action: impl Into<Cow<'static, str>>,
    ) -> &mut Reason {
        let gpu = gpu.map(Gpu::id);
        let since = self.before.iter().find(|r| r.code == code && r.gpu == gpu).map_or(self.now, |r| r.since);
        self.all.push(Reason::new(code, severity, gpu, message, action, since));
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

#[cfg(test)]
mod tests;
