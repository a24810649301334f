//! One moment of the machine: what the GPUs and Ollama said last, and what follows from it.

use crate::gpu::pci::PciId;
use crate::gpu::sample::{Gpu, GpuSample};
use crate::gpu::state::GpuState;
use crate::gpu::state::XidSource;
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::state::OllamaState;
use crate::ollama::state::Reach;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::uptime::Windows;
use super::verdict::{self, Code, Reason, Verdict};
use crate::gpu::xid::Xid;

/// What was counted since the worker started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// Failed samples of the GPUs by reason code.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// How often NVML was restarted.
    pub(crate) reinits: u64,
    /// Unix seconds of the last good sample of the GPUs.
    pub(crate) last_success: Option<f64>,
}

/// What every request is answered from; replaced whole.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When the last reading of the GPUs ended, with or without success.
    pub(crate) at: Instant,
    pub(crate) gpu: GpuState,
    pub(crate) ollama: OllamaState,
    /// The models of MODEL.
    pub(crate) keepers: Arc<Vec<KeeperRow>>,
    /// Worst first.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) uptime: Windows,
    pub(crate) xids: Vec<Xid>,
    /// Resets of AMD GPUs by their driver.
    pub(crate) resets: Vec<(PciId, u64)>,
    pub(crate) xid_source: XidSource,
    pub(crate) counts: Counts,
}

impl Snapshot {
    /// The worst of all reasons.
    pub(crate) fn verdict(&self) -> Verdict {
        verdict::worst(&self.reasons)
    }

    /// The verdict once this is `age` old. `interval`: SAMPLE_INTERVAL.
    pub(crate) fn verdict_at(&self, age: Duration, interval: Duration) -> Verdict {
        let stale = verdict::stale(age, interval, 0.0);
        stale.map_or(self.verdict(), |stale| self.verdict().max(stale.severity))
    }

    /// GPUs that can be used; where none can be read, one if Ollama holds a model in VRAM, else none.
    pub(crate) fn gpu_count(&self) -> usize {
        let is_of = |reason: &Reason, gpu: &Gpu| reason.gpu.as_ref() == Some(&gpu.id());
        let is_dead = |gpu: &Gpu| self.reasons.iter().any(|r| r.code == Code::GpuReadFailed && is_of(r, gpu));
        let count = self.gpu.usable().filter(|gpu| !is_dead(gpu)).count();
        match &self.gpu {
            GpuState::Sample(_) => count,
            _ => count.max(usize::from(self.ollama.vram_bytes() > 0)),
        }
    }

    /// Who the answer comes from: `nvml`, `amdgpu`, `tegra` (a board's sysfs) and `ollama`, joined by +, or `none`.
    pub(crate) fn source(&self) -> String {
        let sample = self.gpu.sample();
        let nvml = sample.is_some_and(GpuSample::is_of_nvml);
        let amd = self.gpu.usable().any(|gpu| gpu.vendor.is_amd());
        let parts = [
            (nvml, "nvml"),
            (amd, "amdgpu"),
            (sample.is_some() && !nvml && !amd, "tegra"),
            (matches!(self.ollama.reach, Reach::Up { .. }), "ollama"),
        ];
        let parts: Vec<&str> = parts.into_iter().filter(|(is, _)| *is).map(|(_, part)| part).collect();
        if parts.is_empty() { "none".into() } else { parts.join("+") }
    }
}

#[test]
fn an_old_snapshot_is_not_ok() {
    let mut snapshot = Snapshot {
        at: Instant::now(),
        gpu: GpuState::Pending,
        ollama: OllamaState::PENDING,
        keepers: Arc::default(),
        reasons: Vec::new(),
        uptime: Windows::default(),
        xids: Vec::new(),
        resets: Vec::new(),
        xid_source: XidSource::None,
        counts: Counts::default(),
    };
    let at = |snapshot: &Snapshot, age| snapshot.verdict_at(Duration::from_secs(age), Duration::from_secs(5));
    let ages = [0, 16, 301];
    assert_eq!(ages.map(|age| at(&snapshot, age)), [Verdict::Ok, Verdict::Degraded, Verdict::Unhealthy]);
    let lost = Reason::new(verdict::Code::GpuLost, Verdict::Unhealthy, None, "GPU 0 is lost".into(), "Reboot.", 1.0);
    snapshot.reasons.push(lost);
    assert_eq!(ages.map(|age| at(&snapshot, age)), [Verdict::Unhealthy; 3]);
}
