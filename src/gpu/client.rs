//! A helper's client: finds and starts `agent-net-nvml`, asks it with a deadline, kills it when it does not answer.
//! A driver may hang, crash or return nonsense; all of that becomes a `GpuFault` here.

mod process;
mod reads;
mod release;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use super::sample::{FIRST_ANSWER, FaultKind, Gpu, GpuError, GpuErrorKind, GpuFault, GpuSample};
use super::wire::{self, ActivityAsk, Answer, Ask, Hello, Question, Wanted};
use crate::gpu::state::GpuState;
use crate::gpu::vendor::Vendor;
use crate::sys::backoff::Backoff;
pub(crate) use reads::Reads;

use process::{End, HELPER, Process, START_QUIET, cannot_start, find, wait};

/// A sample that takes longer means that the driver hangs: a slow GPU delays only its own readings.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(5);
/// A helper starts no faster where tests pass time faster: on a busy machine, each would be ended before it answers.
const SHORTEST_START: Duration = SAMPLE_DEADLINE;
/// A slower start is logged.
const SLOW_START: Duration = Duration::from_secs(5);
/// A GPU that has not answered for this long is tried with a new helper.
const RENEW_SILENT: Duration = Duration::from_secs(30);
/// A helper that cannot be killed is stuck in the driver; more than this many are useless.
const MAX_ABANDONED: usize = 3;
/// How long a killed helper is waited for before it is abandoned.
const REAP_TIMEOUT: Duration = Duration::from_millis(200);
/// A driver that hangs in the calls of a probe would be slow at each of them.
const ACTIVITY_REST: Duration = Duration::from_secs(3600);
/// First and longest wait before a helper is started again.
const RESPAWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The GPUs of one driver, read through a helper.
#[derive(Debug)]
pub(crate) struct Gpus {
    /// NVML_HELPER.
    helper: Option<String>,
    reads: Reads,
    process: Option<Process>,
    /// A second helper, which replaces the first once it has answered. The first is used until then.
    successor: Option<Process>,
    abandoned: Vec<Child>,
    backoff: Backoff,
    retry_at: Instant,
    /// Waits between restarts of a library that answers and must be restarted nevertheless: a GPU of its list is lost.
    renewal: Backoff,
    renew_at: Instant,
    /// How long a helper's first answer may take.
    first_deadline: Duration,
    /// After how long a GPU that does not answer is tried with a new helper.
    renew_silent: Duration,
    /// SLOW_SAMPLE_INTERVAL, and when the slow readings were last read.
    slow_interval: Duration,
    slow_at: Option<Instant>,
    /// Until then no GPU is asked what it did during a probe.
    activity_at: Instant,
    starts: u64,
    /// The next start follows a release, and is not counted.
    released: bool,
    next_id: u64,
    /// The current fault, and the start of the series of faults.
    fault: Option<(Instant, GpuFault)>,
    /// The start of the first helper of those that have not answered.
    unanswered: Option<Instant>,
    /// The last start failed, and took as long as a successful one may.
    fails_slowly: bool,
    /// GPUs of the last good sample.
    known: Vec<Gpu>,
    /// A card of AMD was among them once.
    had_card: bool,
    /// Since when a GPU has not answered, by index: a new helper does not know it.
    silent: BTreeMap<u32, Instant>,
}

/// The result of waiting for an answer.
#[derive(Debug)]
enum Wait {
    Answer(Result<GpuSample, GpuFault>),
    /// The helper is starting, and its time is not over.
    Starting,
    Ended(End),
}

impl Gpus {
    /// `time_scale`: divides the timeouts of a helper's start and of a GPU that does not answer.
    pub(crate) fn new(reads: Reads, helper: Option<String>, slow_interval: Duration, time_scale: u32) -> Self {
        let backoff = Backoff::new(RESPAWN.0, RESPAWN.1);
        Self {
            helper,
            reads,
            process: None,
            successor: None,
            abandoned: Vec::new(),
            renewal: backoff.clone(),
            backoff,
            retry_at: Instant::now(),
            renew_at: Instant::now(),
            first_deadline: (FIRST_ANSWER / time_scale).max(SHORTEST_START),
            renew_silent: RENEW_SILENT / time_scale,
            slow_interval,
            slow_at: None,
            activity_at: Instant::now(),
            starts: 0,
            released: false,
            next_id: 1,
            fault: None,
            unanswered: None,
            fails_slowly: false,
            known: Vec::new(),
            had_card: false,
            silent: BTreeMap::new(),
        }
    }

    /// Asks for one sample; returns within [`SAMPLE_DEADLINE`] whatever driver and helper do.
    /// `events`: XID events as well. `activity`: for a probe.
    pub(crate) fn sample(&mut self, events: bool, activity: Option<ActivityAsk>) -> GpuState {
        let resting = self.process.is_none() && Instant::now() < self.retry_at;
        if let Some((_, fault)) = self.fault.as_ref().filter(|_| resting) {
            return self.failed(fault.clone());
        }
        // Slow readings are counted with the ordinary samples.
        let slow = activity.is_none() && self.slow_at.is_none_or(|at| at.elapsed() >= self.slow_interval);
        let activity = activity.filter(|_| Instant::now() >= self.activity_at);
        let result = match self.succeed(Wanted { slow, events, activity: None }) {
            Some(answer) => answer,
            None => match self.ask(Wanted { slow, events, activity }) {
                Ok(Some(answer)) => answer,
                Ok(None) => return self.starting(),
                Err(fault) => Err(fault),
            },
        };
        let hangs = |sample: &GpuSample| sample.gpus.iter().any(Gpu::is_slow);
        if activity.is_some() && result.as_ref().map_or_else(|fault| fault.kind == FaultKind::Stuck, hangs) {
            log::warn!(
                "The driver does not respond while a model is probed: for an hour it is not asked what its GPUs did"
            );
            self.activity_at = Instant::now() + ACTIVITY_REST;
        }
        match result {
            Ok(sample) => GpuState::Sample(self.good(sample)),
            Err(fault) => {
                self.retry_at = Instant::now() + self.backoff.after_failure(0.0);
                self.failed(fault)
            }
        }
    }

    fn good(&mut self, mut sample: GpuSample) -> GpuSample {
        sample.tell_apart();
        sample.remember(&self.known);
        self.time_the_silent(&mut sample);
        self.backoff.success();
        self.fault = None;
        self.known.clone_from(&sample.gpus);
        self.had_card |= sample.gpus.iter().any(|gpu| gpu.vendor.is_amd() && !gpu.unified_memory);
        self.renew_if_stale(&sample);
        sample
    }

    fn failed(&mut self, fault: GpuFault) -> GpuState {
        let since = self.fault.as_ref().map(|(since, _)| *since).or(self.unanswered).unwrap_or_else(Instant::now);
        let gpus = self.known.iter().map(|gpu| gpu.silent_for(since.elapsed(), &fault.detail)).collect();
        self.fault = Some((since, fault.clone()));
        GpuState::Fault { vendor: self.reads.vendor(), fault, lasting_s: since.elapsed().as_secs_f64(), gpus }
    }

    /// The helper has not answered yet. A fault of the driver or the helper stays until one does, and so does an error
    /// that took long before.
    fn starting(&mut self) -> GpuState {
        let lasting = self.process.as_ref().map_or(Duration::ZERO, |process| process.started.elapsed());
        let lasts = |kind: FaultKind| kind == FaultKind::Stuck || kind.without_helper() || kind.of_helper();
        if let Some((_, fault)) = self.fault.as_ref().filter(|(_, fault)| self.fails_slowly || lasts(fault.kind)) {
            return self.failed(fault.clone());
        }
        let gpus = self.known.iter().map(|gpu| gpu.silent_for(lasting, "the driver is starting")).collect();
        GpuState::Starting { vendor: self.reads.vendor(), lasting_s: lasting.as_secs_f64(), gpus }
    }

    /// Sets how long each GPU that does not answer has been silent.
    fn time_the_silent(&mut self, sample: &mut GpuSample) {
        let now = Instant::now();
        self.silent.retain(|index, _| sample.gpus.iter().any(|gpu| gpu.index == *index && gpu.is_slow()));
        for gpu in sample.gpus.iter_mut().filter(|gpu| gpu.is_slow()) {
            let waited = Duration::from_micros(gpu.read_us.unwrap_or(0));
            let begun = now.checked_sub(waited).unwrap_or(now);
            let silent = now.duration_since(*self.silent.entry(gpu.index).or_insert(begun));
            gpu.read_us = u64::try_from(silent.as_micros()).ok();
            let message = format!("has not answered for {} s", silent.as_secs());
            gpu.error = Some(GpuError { kind: GpuErrorKind::Slow, message });
        }
    }

    /// A lost GPU returns only to a restarted library, and a new process is the cleanest restart.
    fn renew_if_stale(&mut self, sample: &GpuSample) {
        let stale = |gpu: &Gpu| match gpu.error.as_ref().map(|error| error.kind) {
            Some(GpuErrorKind::Lost | GpuErrorKind::Stale) => true,
            Some(GpuErrorKind::Slow) => gpu.read_us.is_some_and(|us| Duration::from_micros(us) >= self.renew_silent),
            _ => false,
        };
        if !sample.gpus.iter().any(stale) {
            return self.renewal.success();
        }
        if self.successor.is_none() && Instant::now() >= self.renew_at {
            self.renew_at = Instant::now() + self.renewal.after_failure(0.0);
            match self.spawn() {
                Ok(successor) => self.successor = Some(successor),
                Err(why) => log::debug!("cannot start a second helper: {why}"),
            }
        }
    }

    /// The second helper's answer, if it counts: then it replaces the first one.
    fn succeed(&mut self, wanted: Wanted) -> Option<Result<GpuSample, GpuFault>> {
        let mut successor = self.successor.take()?;
        match self.wait(&mut successor, wanted, Duration::ZERO) {
            Wait::Starting => {
                self.successor = Some(successor);
                None
            }
            Wait::Answer(Ok(sample)) => {
                self.retire();
                self.process = Some(successor);
                Some(Ok(sample))
            }
            // The loaded library may still read some GPUs. If it reads none, the newer answer is better.
            Wait::Answer(Err(fault)) => {
                self.end(successor, End::Bad("not needed".into()));
                let none = !self.known.iter().any(Gpu::usable);
                none.then(|| {
                    self.retire();
                    Err(fault)
                })
            }
            Wait::Ended(end) => {
                let fault = self.end(successor, end);
                log::debug!("a second helper failed: {fault}");
                None
            }
        }
    }

    /// Ends the helper, if there is one.
    fn retire(&mut self) {
        if let Some(process) = self.process.take() {
            self.end(process, End::Bad("replaced".into()));
        }
    }

    /// An answer of the helper, which is started if there is none; None while it starts.
    fn ask(&mut self, wanted: Wanted) -> Result<Option<Result<GpuSample, GpuFault>>, GpuFault> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => {
                let process = self.spawn()?;
                self.unanswered.get_or_insert(process.started);
                process
            }
        };
        let timeout = if process.answered { SAMPLE_DEADLINE } else { process.quiet() };
        match self.wait(&mut process, wanted, timeout) {
            Wait::Answer(answer) => {
                self.process = Some(process);
                if answer.is_err() {
                    // A loaded library stays loaded: only another process sees another driver.
                    self.retire();
                }
                Ok(Some(answer))
            }
            Wait::Starting => {
                self.process = Some(process);
                Ok(None)
            }
            Wait::Ended(end) => Err(self.end(process, end)),
        }
    }

    /// Waits for an answer of `process`, which is asked unless it has been already. A process that has answered before
    /// has until its deadline; one that is starting is left alone after `timeout`.
    fn wait(&mut self, process: &mut Process, wanted: Wanted, timeout: Duration) -> Wait {
        let (id, at) = *process.asked.get_or_insert_with(|| {
            let ask = Ask { id: self.next_id, ask: Question::Sample(wanted) };
            self.next_id += 1;
            // After a write error the helper's stdout says more about its end.
            let _ = process.stdin.write_all(wire::line(&ask).as_bytes());
            (ask.id, Instant::now())
        });
        let deadline = if process.answered { at + SAMPLE_DEADLINE } else { process.started + self.first_deadline };
        let until = deadline.min(Instant::now() + timeout);
        loop {
            let ended = if process.greeted {
                match process.next::<Answer>(until) {
                    Ok(answer) if answer.id == id => {
                        process.asked = None;
                        return Wait::Answer(self.answered(process, answer.answer));
                    }
                    // The answer to an earlier ask.
                    Ok(_) => continue,
                    Err(end) => end,
                }
            } else {
                match process.next::<Hello>(until) {
                    Ok(hello) if hello.protocol == wire::PROTOCOL => {
                        process.greeted = true;
                        continue;
                    }
                    Ok(hello) => End::OtherBuild(format!(
                        "its version is {} with protocol {}, but the worker has protocol {}",
                        hello.version,
                        hello.protocol,
                        wire::PROTOCOL
                    )),
                    Err(end) => end,
                }
            };
            return match ended {
                End::Late if Instant::now() < deadline => Wait::Starting,
                // It greets before it calls NVML: silence is the helper's own fault.
                End::Late if !process.greeted => {
                    Wait::Ended(End::Bad(format!("no output for {} s", self.first_deadline.as_secs())))
                }
                end => Wait::Ended(end),
            };
        }
    }

    fn answered(&mut self, process: &mut Process, answer: Result<GpuSample, GpuFault>) -> Result<GpuSample, GpuFault> {
        let took = process.started.elapsed();
        let first = !std::mem::replace(&mut process.answered, true);
        self.unanswered = None;
        self.fails_slowly = first && answer.is_err() && took >= START_QUIET;
        let sample = answer?;
        if first && took >= SLOW_START && self.reads.vendor() == Vendor::Nvidia {
            let seconds = took.as_secs();
            log::warn!(
                "The NVIDIA driver took {seconds} s to start: it starts again for each program unless nvidia-persistenced runs on the host"
            );
        }
        if sample.slow_fresh {
            self.slow_at = Some(Instant::now());
        }
        Ok(sample)
    }

    fn spawn(&mut self) -> Result<Process, GpuFault> {
        self.abandoned.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if self.abandoned.len() >= MAX_ABANDONED {
            let detail = format!("{} helpers hang in the driver and cannot be killed", self.abandoned.len());
            return Err(GpuFault { kind: FaultKind::Stuck, detail });
        }
        let missing = |detail| GpuFault { kind: FaultKind::HelperMissing, detail };
        let path = find(self.helper.as_deref()).ok_or_else(|| {
            missing(match &self.helper {
                Some(path) => format!("NVML_HELPER={path} is not a file"),
                None => format!("{HELPER} is neither in the directory of agent-net nor in PATH"),
            })
        })?;
        let process = Process::start(&path, &self.reads, self.had_card).map_err(|why| cannot_start(&path, &why))?;
        self.starts += u64::from(!std::mem::take(&mut self.released));
        Ok(process)
    }

    /// Kills the process and reports what happened to it.
    fn end(&mut self, process: Process, end: End) -> GpuFault {
        let Process { mut child, answered, .. } = process;
        // A helper that ended by itself: its exit status says most.
        let ended = match end {
            End::Closed(_) => wait(&mut child, REAP_TIMEOUT),
            _ => None,
        };
        let _ = child.kill();
        let reaped = ended.is_some() || wait(&mut child, REAP_TIMEOUT).is_some();
        if !reaped {
            self.abandoned.push(child);
        }
        match (end, ended) {
            (End::Late, _) => {
                let deadline = if answered { SAMPLE_DEADLINE } else { self.first_deadline };
                let driver = self.reads.vendor().driver();
                let detail = format!("{driver} did not answer within {} s; its helper was killed", deadline.as_secs());
                GpuFault { kind: FaultKind::Stuck, detail }
            }
            (End::Closed(_), Some(status)) => {
                GpuFault { kind: FaultKind::HelperFailed, detail: format!("{HELPER} ended: {status}") }
            }
            (End::OtherBuild(why), _) => {
                GpuFault { kind: FaultKind::HelperOfOtherBuild, detail: format!("{HELPER} was stopped: {why}") }
            }
            (End::Closed(why) | End::Bad(why), _) => {
                GpuFault { kind: FaultKind::HelperFailed, detail: format!("{HELPER} was stopped: {why}") }
            }
        }
    }
}
