//! NVML and all of its GPUs.

use std::time::Instant;

use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};

use super::device::Device;
use super::library::{self, Loaded};
use super::raw;
use super::reader;
use super::reading_log::{ReadingLog, Times, micros};
use super::threads::{Answers, Threads};
use crate::gpu::sample::{GpuFault, GpuSample};
use crate::gpu::wire::Wanted;

/// More than any machine has. A wrong count must not make a line longer than the protocol allows.
const MAX_GPUS: u32 = 128;

/// NVML and its GPUs.
pub(super) struct Reader {
    library: Loaded,
    gpus: Threads,
}

impl Reader {
    /// # Errors
    /// Why NVML cannot be used.
    pub(super) fn open() -> Result<Self, GpuFault> {
        Ok(Self { library: library::load()?, gpus: Threads::default() })
    }
}

impl reader::Reader for Reader {
    fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
        let start = Instant::now();
        let nvml = self.library.nvml;
        let mut times = Times::new();
        let mut log = ReadingLog::new(&mut times);
        let count = nvml.device_count().map_err(|why| library::fault(&why, "nvmlDeviceGetCount"))?.min(MAX_GPUS);
        let driver_version = log.at("driver_version", &[], || raw::driver_version(nvml));
        let nvml_version = log.at("nvml_version", &[], || raw::nvml_version(nvml));
        let cuda = log.at("cuda_version", &[], || nvml.sys_cuda_driver_version());
        let cuda = cuda.filter(|version| (1000..1_000_000).contains(version));
        self.gpus.truncate(count as usize);
        for index in (0..count).skip(self.gpus.len()) {
            self.gpus.insert(index as usize, Device::new(nvml, index))?;
        }
        let Answers { gpus, slow_fresh, events } = self.gpus.read(wanted, &mut times);
        Ok(GpuSample {
            driver_version,
            nvml_version,
            cuda_version: cuda.map(|v| format!("{}.{}", cuda_driver_version_major(v), cuda_driver_version_minor(v))),
            library: Some(self.library.path.display().to_string()),
            gpus,
            slow_fresh,
            events,
            read_us: micros(start),
            call_us: times,
        })
    }
}
