//! One GPU: its identity, its readings, and the events of the driver.

use std::mem;
use std::time::Instant;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;

use super::look::{self, Look, Times, micros};
use super::words::words;
use super::{fixed, raw, readings};
use crate::gpu::sample::{Fixed, Gaps, Gpu, GpuError, Slow};
use crate::gpu::wire::Wanted;

/// Events of one GPU that are taken a sample.
const MAX_EVENTS: usize = 64;
/// Samples in a row that retry failed readings; after them they wait for their turn.
const RETRIES: u32 = 3;

/// One GPU, with its earlier readings.
pub(super) struct Device {
    nvml: &'static Nvml,
    index: u32,
    uuid: Option<String>,
    name: Option<String>,
    pci_bus_id: Option<String>,
    fixed: Fixed,
    slow: Slow,
    /// None before the slow and fixed readings were read once, else how often failed ones were retried.
    retries: Option<u32>,
    events: Events,
}

/// The driver's events of one GPU.
enum Events {
    Untried,
    Refused,
    Heard(EventSet<'static>),
}

/// The result of one reading of a GPU.
pub(super) struct Reading {
    pub(super) gpu: Gpu,
    pub(super) xids: Vec<u32>,
    pub(super) listening: bool,
    pub(super) times: Times,
}

impl Device {
    pub(super) fn new(nvml: &'static Nvml, index: u32) -> Self {
        Self {
            nvml,
            index,
            uuid: None,
            name: None,
            pci_bus_id: None,
            fixed: Fixed::default(),
            slow: Slow::default(),
            retries: None,
            events: Events::Untried,
        }
    }

    /// Reads all that is wanted, however long the driver takes.
    pub(super) fn read(&mut self, wanted: Wanted) -> Reading {
        let start = Instant::now();
        let mut times = Times::new();
        let handle = Look::new(&mut times).at("device_by_index", &[], || Ok(self.nvml.device_by_index(self.index)));
        let mut xids = Vec::new();
        let gpu = match handle {
            Some(Ok(device)) => {
                let gpu = self.readings(&device, wanted, &mut times);
                xids = self.heard(&device, wanted.events, &mut times);
                gpu
            }
            Some(Err(why)) => {
                let error = GpuError { kind: look::refusal(&why), message: words(&why) };
                Gpu { error: Some(error), ..self.identity() }
            }
            None => self.identity(),
        };
        let gpu = Gpu { index: self.index, read_us: Some(micros(start)), ..gpu };
        Reading { gpu, xids, listening: matches!(self.events, Events::Heard(_)), times }
    }

    fn readings(&mut self, device: &nvml_wrapper::Device<'_>, wanted: Wanted, times: &mut Times) -> Gpu {
        let mut look = Look::new(times);
        self.identify(device, &mut look);
        let mut gpu = Gpu::default();
        readings::fast(device, self.name.as_deref().unwrap_or_default(), &mut gpu, &mut look);
        gpu.gaps = mem::take(&mut look.gaps);
        if look.error.is_none() {
            self.slower_readings(device, wanted.slow, &mut look);
        }
        gpu.error = look.error;
        gpu.slow = self.slow.clone();
        gpu.fixed = self.fixed.clone();
        if [&gpu.gaps, &gpu.slow.gaps, &gpu.fixed.gaps].iter().any(|gaps| gaps.inforom_corrupt) {
            gpu.fixed.inforom_corrupt = Some(true);
        }
        // A GPU in MIG mode rejects readings of the whole GPU in various ways. A dead GPU does not report MIG mode.
        if gpu.failed().next().is_some() && device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            for gaps in [&mut gpu.gaps, &mut gpu.slow.gaps, &mut gpu.fixed.gaps] {
                gaps.unsupported.extend(mem::take(&mut gaps.failed).into_keys());
            }
        }
        Gpu { uuid: self.uuid.clone(), name: self.name.clone(), pci_bus_id: self.pci_bus_id.clone(), ..gpu }
    }

    /// What is not read at every sample: when it is wanted, and retries of failed readings.
    fn slower_readings(&mut self, device: &nvml_wrapper::Device<'_>, wanted: bool, look: &mut Look<'_>) {
        let first = self.retries.is_none();
        let again = self.retries.is_some_and(|tried| tried < RETRIES);
        let failed = |gaps: &Gaps| again && !gaps.failed.is_empty();
        let (slow_again, fixed_again) = (failed(&self.slow.gaps), failed(&self.fixed.gaps));
        self.retries = match self.retries {
            None => Some(0),
            Some(tried) if slow_again || fixed_again => Some(tried + 1),
            Some(_) if self.slow.gaps.failed.is_empty() && self.fixed.gaps.failed.is_empty() => Some(0),
            tried => tried,
        };
        if first || wanted || slow_again {
            let read = readings::slow(device, look);
            self.slow = Slow { gaps: mem::take(&mut look.gaps), ..read };
        }
        if first || wanted || fixed_again {
            let read = fixed::read(device, &self.fixed, look);
            self.fixed = Fixed { gaps: mem::take(&mut look.gaps), ..read };
        }
    }

    /// Reads its identity once, and again while that fails.
    fn identify(&mut self, device: &nvml_wrapper::Device<'_>, look: &mut Look<'_>) {
        if self.uuid.is_none() {
            self.uuid = look.at("uuid", &["uuid"], || raw::uuid(device));
        }
        if self.name.is_none() {
            self.name = look.at("name", &["name"], || raw::name(device));
        }
        if self.pci_bus_id.is_none() {
            self.pci_bus_id = look.at("pci_info", &["pci_bus_id"], || device.pci_info()).map(|pci| pci.bus_id);
        }
    }

    fn identity(&self) -> Gpu {
        Gpu { uuid: self.uuid.clone(), name: self.name.clone(), pci_bus_id: self.pci_bus_id.clone(), ..Gpu::default() }
    }

    /// The XIDs since the last call, without waiting for more.
    fn heard(&mut self, device: &nvml_wrapper::Device<'static>, wanted: bool, times: &mut Times) -> Vec<u32> {
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
