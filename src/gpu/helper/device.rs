//! One GPU: its identity, its readings, and the events of the driver.

use std::mem;
use std::time::Instant;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;

use super::activity::Mark;
use super::fabric::FabricVersion;
use super::final_calls::FinalCalls;
use super::gpm::Gpm;
use super::mig::Instances;
use super::process_use::ProcessUse;
use super::reading_log::{self, ReadingLog, Times, micros};
use super::threads::{self, Reading};
use super::words::words;
use super::{fixed, memory_health, processes, raw, readings};
use crate::gpu::reading::Kind;
use crate::gpu::readings::READINGS;
use crate::gpu::sample::{Gaps, Gpu, GpuError};
use crate::gpu::wire::{ActivityAsk, Wanted};

/// Events of one GPU that one sample takes.
const MAX_EVENTS: usize = 64;
/// Samples in a row that retry failed slow and fixed readings. After that they are read when they are due.
const RETRIES: u32 = 3;

/// One GPU, with its earlier readings.
pub(super) struct Device {
    nvml: &'static Nvml,
    /// As it was last read.
    gpu: Gpu,
    /// None before the slow and fixed readings were read once, else how often failed ones were retried.
    retries: Option<u32>,
    events: Events,
    /// None before the first.
    mark: Option<Mark>,
    instances: Instances,
    newer: Newer,
}

/// What the calls of newer drivers need from one reading to the next.
#[derive(Default)]
struct Newer {
    finals: FinalCalls,
    fabric: FabricVersion,
    gpm: Gpm,
    processes: ProcessUse,
    /// Whether MIG was on: with it a GPU has other calls.
    mig: Option<bool>,
}

/// The driver's events of one GPU.
enum Events {
    Untried,
    Refused,
    Heard(EventSet<'static>),
}

impl Device {
    pub(super) fn new(nvml: &'static Nvml, index: u32) -> Self {
        Self {
            nvml,
            gpu: Gpu { index, ..Gpu::default() },
            retries: None,
            events: Events::Untried,
            mark: None,
            instances: Instances::default(),
            newer: Newer::default(),
        }
    }

    fn readings(&mut self, device: &nvml_wrapper::Device<'static>, wanted: Wanted, times: &mut Times) -> Gpu {
        let mut log = ReadingLog::new(times);
        self.identify(device, &mut log);
        clear(&mut self.gpu, Kind::Fast);
        readings::fast(device, &mut self.gpu, &mut log);
        self.newer.gpm.read(device, &mut self.gpu, wanted.activity.is_some(), &mut log);
        let gaps = log.gaps_of(Kind::Fast, &self.gpu);
        let before = mem::replace(&mut self.gpu.gaps, gaps);
        let is_listed = self.instances.refresh(&mut self.gpu, &mut log);
        // An instance that is gone changes more than the list: its processes, and perhaps the mode. So may a reading that
        // ends.
        let has_changed = !is_listed || before.unsupported != self.gpu.gaps.unsupported;
        if log.error.is_none() {
            self.slower_readings(device, wanted.slow || has_changed, &mut log);
        }
        self.instances.activity(device, &mut self.gpu, wanted.activity.is_some(), &mut log);
        let mut gpu = Gpu { error: log.error, ..self.gpu.clone() };
        if gpu.error.is_some() {
            // They are those of the time before.
            clear(&mut gpu, Kind::Slow);
            gpu.slow_gaps = Gaps::default();
        }
        if gpu.all_gaps().iter().any(|gaps| gaps.inforom_corrupt) {
            gpu.inforom_corrupt = Some(true);
        }
        // A GPU in MIG mode rejects readings of the whole GPU in various ways. A dead GPU does not report MIG mode.
        if gpu.failed().next().is_some() && device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            for gaps in [&mut gpu.gaps, &mut gpu.slow_gaps, &mut gpu.fixed_gaps] {
                let instances = gaps.failed.remove("mig");
                gaps.unsupported.extend(mem::take(&mut gaps.failed).into_keys());
                gaps.failed.extend(instances.map(|why| ("mig".to_owned(), why)));
            }
        }
        gpu
    }

    /// What is not read at every sample: when it is wanted, and retries of failed readings.
    fn slower_readings(&mut self, device: &nvml_wrapper::Device<'static>, wanted: bool, log: &mut ReadingLog<'_>) {
        let first = self.retries.is_none();
        let again = self.retries.is_some_and(|tried| tried < RETRIES);
        let failed = |gaps: &Gaps| again && !gaps.failed.is_empty();
        let (slow_again, fixed_again) = (failed(&self.gpu.slow_gaps), failed(&self.gpu.fixed_gaps));
        self.retries = match self.retries {
            None => Some(0),
            Some(tried) if slow_again || fixed_again => Some(tried + 1),
            Some(_) if self.gpu.slow_gaps.failed.is_empty() && self.gpu.fixed_gaps.failed.is_empty() => Some(0),
            tried => tried,
        };
        if first || wanted || slow_again {
            clear(&mut self.gpu, Kind::Slow);
            readings::slow(device, &mut self.gpu, log);
            self.instances.list(device, &mut self.gpu, log);
            processes::read(device, self.instances.handles(), &mut self.gpu, log);
            self.newer.slow(device, &mut self.gpu, log);
            self.gpu.slow_gaps = log.gaps_of(Kind::Slow, &self.gpu);
        }
        if first || wanted || fixed_again {
            fixed::read(device, &mut self.gpu, log);
            self.gpu.fixed_gaps = log.gaps_of(Kind::Fixed, &self.gpu);
        }
    }

    /// Reads its identity once, and again while that fails.
    fn identify(&mut self, device: &nvml_wrapper::Device<'_>, log: &mut ReadingLog<'_>) {
        if self.gpu.uuid.is_none() {
            self.gpu.uuid = log.at("uuid", &["uuid"], || raw::uuid(device));
        }
        if self.gpu.name.is_none() {
            self.gpu.name = log.at("name", &["name"], || raw::name(device));
        }
        if self.gpu.pci_bus_id.is_none() {
            self.gpu.pci_bus_id = log.at("pci_info", &["pci_bus_id"], || device.pci_info()).map(|pci| pci.bus_id);
        }
    }

    /// The XIDs since the last call, without waiting for more.
    fn heard(&mut self, device: &nvml_wrapper::Device<'static>, wanted: bool, times: &mut Times) -> Vec<u32> {
        let mut log = ReadingLog::new(times);
        let mut xids = Vec::new();
        if wanted && matches!(self.events, Events::Untried) {
            let register = || {
                let set = device.nvml().create_event_set()?;
                device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|why| why.error)
            };
            self.events = log.at("register_events", &[], register).map_or(Events::Refused, Events::Heard);
        }
        if let (true, Events::Heard(set)) = (wanted, &self.events) {
            for _ in 0..MAX_EVENTS {
                let waited = log.at("event_set_wait", &[], || match set.wait(0) {
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

impl threads::Device for Device {
    fn read(&mut self, wanted: Wanted) -> Reading {
        let start = Instant::now();
        let mut times = Times::new();
        let handle =
            ReadingLog::new(&mut times).at("device_by_index", &[], || Ok(self.nvml.device_by_index(self.gpu.index)));
        let mut xids = Vec::new();
        let gpu = match handle {
            Some(Ok(device)) => {
                // Close to the probe: before the other readings at its end, after them at its beginning.
                let mark = self.mark.as_ref().filter(|_| wanted.activity == Some(ActivityAsk::SinceMark));
                let activity = mark.map(|mark| mark.since(&device, &mut times));
                let gpu = Gpu { activity, ..self.readings(&device, wanted, &mut times) };
                self.mark = match wanted.activity {
                    Some(ActivityAsk::Mark) => Some(Mark::new(&device, gpu.power_mw, &mut times)),
                    _ => self.mark.take(),
                };
                xids = self.heard(&device, wanted.events, &mut times);
                gpu
            }
            Some(Err(why)) => {
                self.mark = None;
                self.newer.gpm.interrupt();
                self.instances.interrupt();
                let error = GpuError { kind: reading_log::refusal(&why), message: words(&why) };
                Gpu { error: Some(error), ..self.gpu.identity() }
            }
            None => self.gpu.identity(),
        };
        let gpu = Gpu { read_us: Some(micros(start)), ..gpu };
        Reading { gpu, xids, listening: matches!(self.events, Events::Heard(_)), times }
    }

    fn identity(&self) -> Gpu {
        self.gpu.identity()
    }
}

impl Newer {
    fn slow(&mut self, device: &nvml_wrapper::Device<'_>, gpu: &mut Gpu, log: &mut ReadingLog<'_>) {
        if self.mig.is_some() && gpu.mig_mode.is_some() && self.mig != gpu.mig_mode {
            *self = Self::default();
        }
        self.mig = gpu.mig_mode.or(self.mig);
        memory_health::read(device, gpu, &mut self.finals, log);
        self.fabric.read(device, gpu, &mut self.finals, log);
        if let Some(processes) = &mut gpu.processes {
            self.processes.read(device, processes, &mut self.finals, log);
        }
    }
}

/// Forgets the readings of this kind.
pub(super) fn clear(gpu: &mut Gpu, kind: Kind) {
    READINGS.iter().filter(|reading| reading.kind == kind).for_each(|reading| (reading.clear)(gpu));
}
