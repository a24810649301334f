//! How a helper is released while its GPUs are left alone.

use super::process::End;
use super::{FaultKind, Gpu, GpuState, Gpus};

impl Gpus {
    /// The GPUs of the last good sample.
    pub(crate) fn known(&self) -> &[Gpu] {
        &self.known
    }

    /// Times that NVML was restarted.
    pub(crate) fn reinits(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// The current fault, which lasts while nothing is tried: sleep does not repair it. Except that a helper that ended is
    /// not missed by GPUs that are left alone.
    pub(crate) fn lasting_fault(&mut self) -> Option<GpuState> {
        self.fault.take_if(|(_, fault)| fault.kind == FaultKind::HelperFailed);
        let (_, fault) = self.fault.as_ref()?;
        Some(self.failed(fault.clone()))
    }

    /// Ends the helpers: a process that has ended holds no handle, whatever the driver does. That is not a fault, and the
    /// next start is not a restart.
    pub(crate) fn release(&mut self) {
        if let Some(successor) = self.successor.take() {
            self.end(successor, End::Bad("not needed".into()));
        }
        if self.process.is_some() {
            self.retire();
            self.released = true;
        }
        self.unanswered = None;
        self.silent.clear();
    }
}
