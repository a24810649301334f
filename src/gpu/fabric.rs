//! The words for a GPU's place in the NVLink fabric of a machine with NVSwitches, and what they say of its health.

use super::readings::Gpu;

/// More memory than the driver itself uses of an idle GPU.
const MUCH_BYTES: u64 = 1 << 30;

/// `fabric_state`, once NVIDIA's Fabric Manager has registered the GPU.
pub(crate) const COMPLETED: &str = "completed";
/// `fabric_status`, if it is not an error of NVML.
pub(crate) const SUCCESS: &str = "success";
/// How `fabric_health` begins, if it is bad.
pub(crate) const UNHEALTHY: &str = "unhealthy";

impl Gpu {
    /// The GPU waits for its registration, and nothing computes on it: until then CUDA programs fail with error 802.
    pub(crate) fn awaits_fabric(&self) -> bool {
        // A card without NVLink is in no fabric, whatever the driver says.
        let has_nvlink = self.nvlinks_active.is_some();
        let waits = has_nvlink && self.fabric_state.as_deref().is_some_and(|state| state != COMPLETED);
        // A container need not see all processes.
        let is_free = self.processes.as_ref().is_none_or(Vec::is_empty)
            && self.utilization_percent.is_none_or(|percent| percent == 0)
            && self.vram_used_bytes.is_none_or(|bytes| bytes < MUCH_BYTES);
        waits && is_free
    }

    /// Why its registration failed.
    pub(crate) fn fabric_error(&self) -> Option<&str> {
        self.fabric_status.as_deref().filter(|status| *status != SUCCESS)
    }

    /// `fabric_health`, if the fabric is unhealthy.
    pub(crate) fn fabric_fault(&self) -> Option<&str> {
        self.fabric_health.as_deref().filter(|health| health.starts_with(UNHEALTHY))
    }
}
