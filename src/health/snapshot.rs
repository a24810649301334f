//! One moment of the machine: what the GPUs and Ollama said last, and what follows from it.

use crate::gpu::state::GpuState;
use crate::gpu::state::XidSource;
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::state::OllamaState;
use crate::ollama::state::Reach;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::uptime::Windows;
use super::verdict::{self, Reason, Verdict};
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
    /// When the GPUs were last asked to the end, with or without success.
    pub(crate) at: Instant,
    pub(crate) gpu: GpuState,
    pub(crate) ollama: OllamaState,
    /// The models of MODEL.
    pub(crate) keepers: Arc<Vec<KeeperRow>>,
    /// Worst first.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) uptime: Windows,
    pub(crate) xids: Vec<Xid>,
    pub(crate) xid_source: XidSource,
    pub(crate) counts: Counts,
}

impl Snapshot {
    /// The worst of all reasons.
    pub(crate) fn verdict(&self) -> Verdict {
        verdict::worst(&self.reasons)
    }

    /// GPUs that can be used; where none can be read, one if Ollama holds a model in VRAM, else none.
    pub(crate) fn gpu_count(&self) -> usize {
        match &self.gpu {
            GpuState::Sample(sample) => sample.gpus.iter().filter(|g| g.usable()).count(),
            _ => usize::from(self.ollama.vram_bytes() > 0),
        }
    }

    /// Who the answer comes from: `nvml` or `tegra` (a board's sysfs), `ollama`, both with a +, or `none`.
    pub(crate) fn source(&self) -> &'static str {
        let tegra = self.gpu.sample().is_some_and(|sample| !sample.is_of_nvml());
        match (self.gpu.sample().is_some(), matches!(self.ollama.reach, Reach::Up { .. })) {
            (true, true) if tegra => "tegra+ollama",
            (true, false) if tegra => "tegra",
            (true, true) => "nvml+ollama",
            (true, false) => "nvml",
            (false, true) => "ollama",
            (false, false) => "none",
        }
    }
}
