//! One moment of the machine: what the GPUs and Ollama said last, and what follows from it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::uptime::Windows;
use super::verdict::Reason;
use crate::gpu::sample::{Gpu, GpuFault, GpuSample};
use crate::gpu::xid::Xid;
use crate::ollama::models::Model;
use crate::outgoing::refusal::Trouble;

/// What is known of the GPUs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GpuState {
    /// Nobody has answered yet.
    Pending,
    /// The reader starts, and with it perhaps the driver.
    Starting {
        /// Seconds since it was started.
        lasting_s: f64,
        /// The GPUs of the last good sample, without their readings.
        last_known: Vec<Gpu>,
    },
    Sample(GpuSample),
    Fault {
        fault: GpuFault,
        /// Seconds since the first of the faults that follow each other without a good sample between.
        lasting_s: f64,
        /// The GPUs of the last good sample, without their readings.
        last_known: Vec<Gpu>,
    },
}

impl GpuState {
    pub(crate) fn gpus(&self) -> &[Gpu] {
        match self {
            Self::Pending => &[],
            Self::Sample(sample) => &sample.gpus,
            Self::Starting { last_known, .. } | Self::Fault { last_known, .. } => last_known,
        }
    }

    pub(crate) fn sample(&self) -> Option<&GpuSample> {
        match self {
            Self::Sample(sample) => Some(sample),
            _ => None,
        }
    }
}

/// Whether Ollama answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not asked to the end yet, or failed once: one lost answer is no outage.
    Pending,
    Up {
        version: String,
    },
    /// Failed twice or more in a row, with the last error.
    Down(Trouble),
}

/// What is known of Ollama.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OllamaState {
    pub(crate) reach: Reach,
    /// Pulled and loaded models of the last good answers; empty when `lists_known` is false.
    pub(crate) models: Vec<Model>,
    /// Both lists were read and are recent.
    pub(crate) lists_known: bool,
    /// Why a list could not be read, although Ollama answers.
    pub(crate) list_error: Option<Trouble>,
}

impl OllamaState {
    pub(crate) const PENDING: Self =
        Self { reach: Reach::Pending, models: Vec::new(), lists_known: false, list_error: None };

    /// Bytes that loaded models hold on GPUs.
    pub(crate) fn vram_bytes(&self) -> u64 {
        self.models.iter().filter_map(|m| m.loaded).fold(0, |sum, l| sum.saturating_add(l.vram_bytes))
    }

    /// The loaded model with the most VRAM.
    pub(crate) fn main_model(&self) -> Option<&Model> {
        // max_by_key takes the last of equals; Ollama lists the one that stays longest first.
        self.models.iter().rev().filter(|m| m.loaded.is_some()).max_by_key(|m| m.loaded.map(|l| l.vram_bytes))
    }
}

/// Where XIDs are heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum XidSource {
    /// The kernel's log: all of them since the machine started, as far as the log goes back.
    Kmsg,
    /// NVML's events: the newest of those that come while the worker runs.
    Nvml,
    /// Nobody listens. That is no fault.
    #[default]
    None,
}

impl XidSource {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kmsg => "kmsg",
            Self::Nvml => "nvml",
            Self::None => "none",
        }
    }
}

/// What was counted since the worker started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// Failed samples of the GPUs by reason code.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Times that NVML was started anew.
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
    /// Worst first.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) uptime: Windows,
    pub(crate) xids: Vec<Xid>,
    pub(crate) xid_source: XidSource,
    pub(crate) counts: Counts,
}

impl Snapshot {
    /// GPUs that can be used; where none can be read, one if Ollama holds a model in VRAM, else none.
    pub(crate) fn gpu_count(&self) -> usize {
        match &self.gpu {
            GpuState::Sample(sample) => sample.gpus.iter().filter(|g| g.usable()).count(),
            _ => usize::from(self.ollama.vram_bytes() > 0),
        }
    }

    /// Who the answer comes from: `nvml` or `tegra` (a board's sysfs), `ollama`, both with a +, or `none`.
    pub(crate) fn source(&self) -> &'static str {
        let tegra = self.gpu.sample().is_some_and(|sample| sample.library.is_none());
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
