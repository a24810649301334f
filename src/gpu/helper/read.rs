//! All GPUs, each on a thread of its own: one that is slow or hangs does not delay the others.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};

use super::device::{Device, Reading};
use super::library::{self, Loaded};
use super::raw;
use super::reading_log::{ReadingLog, Times, micros};
use crate::gpu::sample::{FaultKind, Gpu, GpuError, GpuErrorKind, GpuFault, GpuSample, SLOW_READ, XidEvent};
use crate::gpu::wire::{ActivityAsk, Wanted};

/// More than any machine has. A wrong count must not make a line longer than the protocol allows.
const MAX_GPUS: u32 = 128;

/// NVML and its GPUs.
pub(super) struct Reader {
    library: Loaded,
    gpus: Vec<Asked>,
}

/// The thread of one GPU, as the others see it.
struct Asked {
    asks: SyncSender<Wanted>,
    readings: Receiver<Reading>,
    /// When the unanswered ask was sent.
    since: Option<Instant>,
    /// Its identity by its last reading; None before the first.
    identity: Option<Gpu>,
    /// The driver reports its events.
    listening: bool,
    /// The last mark was set in time.
    marked: bool,
}

impl Reader {
    /// # Errors
    /// Why NVML cannot be used.
    pub(super) fn open() -> Result<Self, GpuFault> {
        Ok(Self { library: library::load()?, gpus: Vec::new() })
    }

    /// Reads all GPUs. Those that do not answer within [`SLOW_READ`] are reported as slow, and their readings come with a
    /// later sample.
    ///
    /// # Errors
    /// NVML answers for no GPU.
    pub(super) fn sample(&mut self, wanted: Wanted) -> Result<GpuSample, GpuFault> {
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
            self.gpus.push(Asked::start(Device::new(nvml, index))?);
        }
        let slow_fresh = wanted.slow || self.gpus.iter().any(|gpu| gpu.identity.is_none());
        // Late answers of slow GPUs since the last sample. They are asked again with the others.
        let late: Vec<Option<Reading>> = self.gpus.iter_mut().map(|gpu| gpu.answer(Duration::ZERO)).collect();
        let sent: Vec<bool> = self.gpus.iter_mut().map(|gpu| gpu.ask(wanted)).collect();
        let mut events = Vec::new();
        let mut gpus = Vec::new();
        for (((index, asked), late), sent) in (0..count).zip(&mut self.gpus).zip(late).zip(sent) {
            let fresh = asked.answer(SLOW_READ);
            let answered = sent && fresh.is_some();
            if wanted.activity == Some(ActivityAsk::Mark) {
                asked.marked = answered;
            }
            let mut gpu = None;
            for reading in late.into_iter().chain(fresh) {
                events.extend(reading.xids.into_iter().map(|xid| XidEvent { index, xid }));
                reading.times.into_iter().for_each(|(call, us)| *times.entry(call).or_default() += us);
                gpu = Some(reading.gpu);
            }
            let mut gpu = gpu.unwrap_or_else(|| Gpu { index, ..asked.slow() });
            if !answered || !asked.marked {
                // It belongs to an earlier ask, or to an earlier mark.
                gpu.activity = None;
            }
            gpus.push(gpu);
        }
        Ok(GpuSample {
            driver_version,
            nvml_version,
            cuda_version: cuda.map(|v| format!("{}.{}", cuda_driver_version_major(v), cuda_driver_version_minor(v))),
            library: Some(self.library.path.display().to_string()),
            gpus,
            slow_fresh,
            events: self.gpus.iter().any(|gpu| gpu.listening).then_some(events),
            read_us: micros(start),
            call_us: times,
        })
    }
}

impl Asked {
    fn start(mut device: Device) -> Result<Self, GpuFault> {
        let (asks, wanted) = mpsc::sync_channel(1);
        let (sender, readings) = mpsc::sync_channel(1);
        let read = move || {
            while let Ok(wanted) = wanted.recv() {
                if sender.send(device.read(wanted)).is_err() {
                    return;
                }
            }
        };
        // It lives as long as the process: a thread that hangs in the driver cannot be ended alone.
        thread::Builder::new().name("gpu".into()).spawn(read).map_err(|why| GpuFault {
            kind: FaultKind::InitFailed,
            detail: format!("cannot start a thread to read a GPU: {why}"),
        })?;
        Ok(Self { asks, readings, since: None, identity: None, listening: false, marked: false })
    }

    /// Asks, unless an answer is still expected; whether it did.
    fn ask(&mut self, wanted: Wanted) -> bool {
        let sent = self.since.is_none() && self.asks.try_send(wanted).is_ok();
        if sent {
            self.since = Some(Instant::now());
        }
        sent
    }

    /// The answer, if one is expected and arrives within `timeout` of the ask.
    fn answer(&mut self, timeout: Duration) -> Option<Reading> {
        let timeout = timeout.saturating_sub(self.since?.elapsed());
        let reading = self.readings.recv_timeout(timeout).ok()?;
        self.since = None;
        self.identity = Some(reading.gpu.identity());
        self.listening = reading.listening;
        Some(reading)
    }

    /// What is known while it does not answer.
    fn slow(&self) -> Gpu {
        let read_us = self.since.map(micros);
        let error = Some(GpuError { kind: GpuErrorKind::Slow, message: "has not answered yet".into() });
        Gpu { error, read_us, ..self.identity.clone().unwrap_or_default() }
    }
}
