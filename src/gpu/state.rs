//! What is known of the GPUs at one moment.

use super::sample::{Gpu, GpuFault, GpuSample, busiest};
use super::vendor::Vendor;

/// What is known of the GPUs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GpuState {
    /// There is no answer yet.
    Pending,
    /// The reader starts, and with it perhaps the driver.
    Starting {
        /// Whose driver.
        vendor: Vendor,
        /// Seconds since it was started.
        lasting_s: f64,
        /// Those of its last good sample, without their readings, and the GPUs of other readers.
        gpus: Vec<Gpu>,
    },
    Sample(GpuSample),
    Fault {
        /// Whose driver it concerns.
        vendor: Vendor,
        fault: GpuFault,
        /// Seconds since the first of the faults that follow each other without a good sample between.
        lasting_s: f64,
        /// Those of its last good sample, without their readings, and the GPUs of other readers.
        gpus: Vec<Gpu>,
    },
}

impl GpuState {
    pub(crate) fn gpus(&self) -> &[Gpu] {
        match self {
            Self::Pending => &[],
            Self::Sample(sample) => &sample.gpus,
            Self::Starting { gpus, .. } | Self::Fault { gpus, .. } => gpus,
        }
    }

    pub(crate) fn gpus_mut(&mut self) -> &mut [Gpu] {
        match self {
            Self::Pending => &mut [],
            Self::Sample(sample) => &mut sample.gpus,
            Self::Starting { gpus, .. } | Self::Fault { gpus, .. } => gpus,
        }
    }

    /// Whose driver fails or starts.
    pub(crate) fn vendor(&self) -> Vendor {
        match self {
            Self::Pending | Self::Sample(_) => Vendor::default(),
            Self::Starting { vendor, .. } | Self::Fault { vendor, .. } => *vendor,
        }
    }

    /// GPUs that respond, those of the other driver included.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus().iter().filter(|gpu| gpu.usable())
    }

    /// Index and utilization of the busiest GPU; None where none reports its utilization.
    pub(crate) fn busiest(&self) -> Option<(u32, u32)> {
        busiest(self.usable())
    }

    pub(crate) fn sample(&self) -> Option<&GpuSample> {
        match self {
            Self::Sample(sample) => Some(sample),
            _ => None,
        }
    }
}

/// Where XIDs come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum XidSource {
    /// The kernel's log: all of them since the machine started, as far as the log goes back.
    Kmsg,
    /// NVML's events: the newest of those that come while the worker runs.
    Nvml,
    /// Errors cannot be read. This is not a fault.
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
