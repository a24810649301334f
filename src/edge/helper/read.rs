//! All GPUs, one after the other: who they are, what they say, what the driver reported of them.

use std::mem;
use std::time::Instant;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::{Device, cuda_driver_version_major, cuda_driver_version_minor};

use super::library::{self, Loaded};
use super::look::{self, Look, Times};
use super::readings;
use crate::pure::gpu::{Fixed, Gpu, GpuError, GpuErrorKind, GpuFault, GpuSample, Slow, XidEvent};
use crate::pure::wire::Wanted;

/// More than any machine has. A lying count must not become a line that is longer than the protocol allows.
const MAX_GPUS: u32 = 128;
/// Events of one GPU that are taken from one sample to the next.
const MAX_EVENTS: usize = 64;

/// NVML and what was read of each GPU before.
pub(super) struct Reader {
    library: Loaded,
    known: Vec<Known>,
}

/// What is kept of one GPU.
#[derive(Default)]
struct Known {
    uuid: Option<String>,
    name: Option<String>,
    pci_bus_id: Option<String>,
    fixed: Option<Fixed>,
    slow: Option<Slow>,
    events: Events,
}

/// What the driver reports of one GPU.
#[derive(Default)]
enum Events {
    #[default]
    Untried,
    Refused,
    Heard(EventSet<'static>),
}

impl Reader {
    /// # Errors
    /// Why NVML cannot be used.
    pub(super) fn open() -> Result<Self, GpuFault> {
        Ok(Self { library: library::load()?, known: Vec::new() })
    }

    /// Reads all GPUs.
    ///
    /// # Errors
    /// NVML answers for no GPU.
    pub(super) fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
        let start = Instant::now();
        let nvml = self.library.nvml;
        let mut times = Times::new();
        let mut look = Look::new(&mut times);
        let count = nvml.device_count().map_err(|why| library::fault(&why, "nvmlDeviceGetCount"))?.min(MAX_GPUS);
        let driver_version = look.at("driver_version", &[], || nvml.sys_driver_version());
        let nvml_version = look.at("nvml_version", &[], || nvml.sys_nvml_version());
        let cuda = look.at("cuda_version", &[], || nvml.sys_cuda_driver_version());
        self.known.resize_with(count as usize, Known::default);
        let slow_fresh = wanted.slow || self.known.iter().any(|known| known.slow.is_none());
        let mut events = Vec::new();
        let mut gpus = Vec::new();
        for (index, known) in (0..count).zip(&mut self.known) {
            let gpu = match look.at("device_by_index", &[], || Ok(nvml.device_by_index(index))) {
                Some(Ok(device)) => {
                    let gpu = known.read(&device, wanted, look.times);
                    let heard = known.heard(&device, wanted.events, look.times).into_iter();
                    events.extend(heard.map(|xid| XidEvent { index, xid }));
                    gpu
                }
                Some(Err(why)) => {
                    let kind = look::loss(&why).unwrap_or(GpuErrorKind::Other);
                    Gpu { error: Some(GpuError { kind, message: why.to_string() }), ..known.identity() }
                }
                None => known.identity(),
            };
            gpus.push(Gpu { index, ..gpu });
        }
        let listening = self.known.iter().any(|known| matches!(known.events, Events::Heard(_)));
        Ok(GpuSample {
            driver_version,
            nvml_version,
            cuda_version: cuda.map(|v| format!("{}.{}", cuda_driver_version_major(v), cuda_driver_version_minor(v))),
            library: Some(self.library.path.display().to_string()),
            gpus,
            slow_fresh,
            events: listening.then_some(events),
            read_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            call_us: times,
        })
    }
}

impl Known {
    fn read(&mut self, device: &Device<'static>, wanted: Wanted, times: &mut Times) -> Gpu {
        let mut look = Look::new(times);
        self.identify(device, &mut look);
        let mut gpu = Gpu::default();
        readings::fast(device, self.name.as_deref().unwrap_or_default(), &mut gpu, &mut look);
        gpu.gaps = mem::take(&mut look.gaps);
        if look.error.is_none() && (wanted.slow || self.slow.is_none()) {
            let slow = readings::slow(device, &mut look);
            self.slow = Some(Slow { gaps: mem::take(&mut look.gaps), ..slow });
        }
        if look.error.is_none() && self.fixed.is_none() {
            let fixed = readings::fixed(device, &mut look);
            self.fixed = Some(Fixed { gaps: mem::take(&mut look.gaps), ..fixed });
        }
        gpu.error = look.error;
        gpu.slow = self.slow.clone().unwrap_or_default();
        gpu.fixed = self.fixed.clone().unwrap_or_default();
        // A GPU that is cut into slices refuses readings of the whole in odd ways; it may have been cut a moment ago.
        let just_cut = || gpu.failed().next().is_some() && device.mig_mode().is_ok_and(|mode| mode.current != 0);
        if gpu.slow.mig_mode == Some(true) || just_cut() {
            for gaps in [&mut gpu.gaps, &mut gpu.slow.gaps, &mut gpu.fixed.gaps] {
                gaps.unsupported.extend(mem::take(&mut gaps.failed).into_keys());
            }
        }
        Gpu { uuid: self.uuid.clone(), name: self.name.clone(), pci_bus_id: self.pci_bus_id.clone(), ..gpu }
    }

    /// Reads who it is, once; again as long as that fails.
    fn identify(&mut self, device: &Device<'_>, look: &mut Look<'_>) {
        if self.uuid.is_none() {
            self.uuid = look.at("uuid", &["uuid"], || device.uuid());
        }
        if self.name.is_none() {
            self.name = look.at("name", &["name"], || device.name());
        }
        if self.pci_bus_id.is_none() {
            self.pci_bus_id = look.at("pci_info", &["pci_bus_id"], || device.pci_info()).map(|pci| pci.bus_id);
        }
    }

    fn identity(&self) -> Gpu {
        Gpu { uuid: self.uuid.clone(), name: self.name.clone(), pci_bus_id: self.pci_bus_id.clone(), ..Gpu::default() }
    }

    /// The XIDs that the driver has reported since the last time, without waiting for more.
    fn heard(&mut self, device: &Device<'static>, wanted: bool, times: &mut Times) -> Vec<u32> {
        let mut look = Look::new(times);
        let mut xids = Vec::new();
        if wanted && matches!(self.events, Events::Untried) {
            let register = || {
                let set = device.nvml().create_event_set()?;
                device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|why| why.error)
            };
            self.events = look.at("register_events", &[], register).map_or(Events::Refused, Events::Heard);
        }
        if let (true, Events::Heard(set)) = (wanted, &self.events) {
            for _ in 0..MAX_EVENTS {
                let waited = look.at("event_set_wait", &[], || match set.wait(0) {
                    Err(NvmlError::Timeout) => Ok(None),
                    other => other.map(Some),
                });
                let Some(Some(event)) = waited else { break };
                if let Some(XidError::Value(xid)) = event.event_data {
                    xids.push(u32::try_from(xid).unwrap_or(u32::MAX));
                }
            }
        }
        xids
    }
}
