//! What a helper can read.

use crate::gpu::sample::{GpuFault, GpuSample};
use crate::gpu::wire::Wanted;

/// The GPUs of one driver.
pub(super) trait Reader {
    /// Reads all of them.
    ///
    /// # Errors
    /// Why none can be read.
    fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault>;
}
