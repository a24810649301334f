//! GPUs, each on a thread of its own: one that is slow or hangs does not delay the others.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::reading_log::{Times, micros};
use crate::gpu::sample::{FaultKind, Gpu, GpuError, GpuErrorKind, GpuFault, SLOW_READ, XidEvent};
use crate::gpu::wire::{ActivityAsk, Wanted};

/// A GPU that can be read.
pub(super) trait Device: Send + 'static {
    /// Reads all that is wanted, however long the driver takes.
    fn read(&mut self, wanted: Wanted) -> Reading;

    /// What is known of it before it is read.
    fn identity(&self) -> Gpu;
}

/// The result of one reading of a GPU.
pub(super) struct Reading {
    pub(super) gpu: Gpu,
    pub(super) xids: Vec<u32>,
    /// The driver reports its events.
    pub(super) listening: bool,
    pub(super) times: Times,
}

/// The GPUs of one driver, in its order.
#[derive(Default)]
pub(super) struct Threads(Vec<Asked>);

/// What the GPUs answered.
pub(super) struct Answers {
    pub(super) gpus: Vec<Gpu>,
    /// The slow readings are new.
    pub(super) slow_fresh: bool,
    /// None while no GPU's driver reports its events.
    pub(super) events: Option<Vec<XidEvent>>,
}

/// The thread of one GPU, as the others see it.
struct Asked {
    asks: SyncSender<Wanted>,
    readings: Receiver<Reading>,
    /// When the unanswered ask was sent.
    since: Option<Instant>,
    /// By its last reading.
    identity: Gpu,
    has_answered: bool,
    /// The driver reports its events.
    listening: bool,
    /// The last mark was set in time.
    marked: bool,
}

impl Threads {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the GPUs from this one on.
    pub(super) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Forgets one GPU; those after it move up.
    pub(super) fn remove(&mut self, at: usize) {
        self.0.remove(at);
    }

    /// # Errors
    /// No thread can be started.
    pub(super) fn insert(&mut self, at: usize, device: impl Device) -> Result<(), GpuFault> {
        self.0.insert(at, Asked::start(device)?);
        Ok(())
    }

    /// Reads all GPUs. Those that do not answer within [`SLOW_READ`] are reported as slow, and their readings come with a
    /// later sample. `times`: of each call, summed.
    pub(super) fn read(&mut self, wanted: Wanted, times: &mut Times) -> Answers {
        let unread = |all: &[Asked]| all.iter().filter(|gpu| !gpu.has_answered).count();
        let unread_before = unread(&self.0);
        // Late answers of slow GPUs since the last sample. They are asked again with the others.
        let late: Vec<Option<Reading>> = self.0.iter_mut().map(|gpu| gpu.answer(Duration::ZERO)).collect();
        let sent: Vec<bool> = self.0.iter_mut().map(|gpu| gpu.ask(wanted)).collect();
        let mut events = Vec::new();
        let mut gpus = Vec::new();
        for (((index, asked), late), sent) in (0..).zip(&mut self.0).zip(late).zip(sent) {
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
            let mut gpu = Gpu { index, ..gpu.unwrap_or_else(|| asked.slow()) };
            if !answered || !asked.marked {
                // It belongs to an earlier ask, or to an earlier mark.
                gpu.activity = None;
            }
            gpus.push(gpu);
        }
        let listening = self.0.iter().any(|gpu| gpu.listening);
        // A GPU that hangs from the start does not make the others' slow readings new.
        let slow_fresh = wanted.slow || unread(&self.0) < unread_before;
        Answers { gpus, slow_fresh, events: listening.then_some(events) }
    }
}

impl Asked {
    fn start(mut device: impl Device) -> Result<Self, GpuFault> {
        let (asks, wanted) = mpsc::sync_channel(1);
        let (sender, readings) = mpsc::sync_channel(1);
        let identity = device.identity();
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
        Ok(Self { asks, readings, since: None, identity, has_answered: false, listening: false, marked: false })
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
        self.identity = reading.gpu.identity();
        self.has_answered = true;
        self.listening = reading.listening;
        Some(reading)
    }

    /// What is known while it does not answer.
    fn slow(&self) -> Gpu {
        let read_us = self.since.map(micros);
        let error = Some(GpuError { kind: GpuErrorKind::Slow, message: "has not answered yet".into() });
        Gpu { error, read_us, ..self.identity.clone() }
    }
}
