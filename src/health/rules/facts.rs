//! What the rules look at.

use crate::config::limits::Limits;
use crate::gpu::host_facts::HostFacts;
use crate::gpu::state::GpuState;
use crate::gpu::xid::XidLog;
use crate::health::history::History;
use crate::health::uptime::Windows;
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
