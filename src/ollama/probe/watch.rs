//! The GPUs, as the probe of a model asks for them. Implemented where they are read.

use crate::gpu::sample::GpuSample;

/// A second witness of a probe. Each call returns within a few seconds, whatever the driver does. Without `Debug`, which
/// would put the code that prints all readings into the binary.
pub(crate) trait GpuWatch: Send + Sync {
    /// Why a probe would disturb others or show nothing now; None: go ahead.
    fn busy(&self) -> Option<String>;

    /// A probe begins: activity counts from here. Why it would disturb others all the same, by what the GPUs do at this
    /// moment; None: go ahead.
    fn mark(&self) -> Option<String>;

    /// The GPUs now, each with its activity since [`GpuWatch::mark`]; None: unknown.
    fn since_mark(&self) -> Option<GpuSample>;

    /// Whether a healthy GPU has this many bytes free.
    fn has_room(&self, bytes: u64) -> bool;

    /// UUIDs of the GPUs, versions of the driver and of Ollama: what a usual speed belongs to. Empty while it is unknown.
    fn identity(&self) -> String;
}
