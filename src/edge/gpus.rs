//! The helper's client: finds and starts `agent-net-nvml`, asks it with a deadline, kills it when it does not answer.
//! NVML may hang, crash or lie; all of that ends here, as a `GpuFault`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::pure::config::SETTINGS;
use crate::pure::gpu::{FaultKind, Gpu, GpuErrorKind, GpuFault, GpuSample};
use crate::pure::schedule::Backoff;
use crate::pure::snapshot::GpuState;
use crate::pure::wire::{self, Answer, Ask, Hello, Question, Wanted};

/// An ask that takes longer means that the driver hangs. A cold NVML init takes seconds on machines with many GPUs.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// A helper that cannot be killed sits in the driver; more than this many of them help nobody.
const MAX_ABANDONED: usize = 3;
/// How long a killed helper is waited for before it is abandoned.
const REAP_PATIENCE: Duration = Duration::from_millis(200);
/// First and longest wait before a helper is started again.
const RESPAWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

const HELPER: &str = "agent-net-nvml";

/// Lines of one helper's stderr that are logged, and how much of each.
const MAX_CHATTER: usize = 20;
const MAX_CHATTER_LINE: u64 = 512;

/// The GPUs of this machine, read through the helper.
#[derive(Debug)]
pub(crate) struct Gpus {
    /// NVML_HELPER.
    helper: Option<String>,
    /// NVML_LIB.
    library: Option<String>,
    process: Option<Process>,
    abandoned: Vec<Child>,
    backoff: Backoff,
    retry_at: Instant,
    /// The same for a library that must be started anew although it answers: a GPU of its list is lost.
    renewal: Backoff,
    renew_at: Instant,
    /// SLOW_SAMPLE_INTERVAL, and when the slow readings were last new.
    slow_interval: Duration,
    slow_at: Option<Instant>,
    starts: u64,
    next_id: u64,
    /// The fault that lasts, and since when faults follow each other.
    fault: Option<(Instant, GpuFault)>,
    /// GPUs of the last good sample.
    known: Vec<Gpu>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    /// Lines of its stdout; an error says why there will be no more.
    lines: Receiver<Result<String, End>>,
}

impl Gpus {
    pub(crate) fn new(helper: Option<String>, library: Option<String>, slow_interval: Duration) -> Self {
        let backoff = Backoff::new(RESPAWN.0, RESPAWN.1);
        Self {
            helper,
            library,
            process: None,
            abandoned: Vec::new(),
            renewal: backoff.clone(),
            backoff,
            retry_at: Instant::now(),
            renew_at: Instant::now(),
            slow_interval,
            slow_at: None,
            starts: 0,
            next_id: 1,
            fault: None,
            known: Vec::new(),
        }
    }

    /// Asks for one sample; returns within the deadline of one ask whatever driver and helper do.
    /// `events`: also for what the driver reports.
    pub(crate) fn sample(&mut self, events: bool) -> GpuState {
        let now = Instant::now();
        let retrying = now < self.retry_at;
        let fault = match self.fault.as_ref().filter(|_| retrying) {
            Some((_, fault)) => fault.clone(),
            None => match self.ask(events) {
                Ok(mut sample) => {
                    sample.remember(&self.known);
                    self.backoff.success();
                    self.fault = None;
                    self.known.clone_from(&sample.gpus);
                    self.renew_if_stale(&sample);
                    return GpuState::Sample(sample);
                }
                Err(fault) => {
                    self.retry_at = Instant::now() + self.backoff.after_failure(0.0);
                    fault
                }
            },
        };
        let since = self.fault.as_ref().map_or(now, |(since, _)| *since);
        let last_known = self.known.iter().map(|gpu| gpu.silent(&fault.detail)).collect();
        self.fault = Some((since, fault.clone()));
        GpuState::Fault { fault, lasting_s: since.elapsed().as_secs_f64(), last_known }
    }

    /// Times that NVML was started anew.
    pub(crate) fn reinits(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// A lost GPU comes back only to a library that is started anew, and a new process is the cleanest start.
    fn renew_if_stale(&mut self, sample: &GpuSample) {
        let stale = |kind| matches!(kind, GpuErrorKind::Lost | GpuErrorKind::Stale);
        if !sample.gpus.iter().filter_map(|gpu| gpu.error.as_ref()).any(|error| stale(error.kind)) {
            return self.renewal.success();
        }
        if Instant::now() >= self.renew_at {
            self.renew_at = Instant::now() + self.renewal.after_failure(0.0);
            self.retire();
        }
    }

    /// Ends the helper, if there is one.
    fn retire(&mut self) {
        if let Some(process) = self.process.take() {
            self.end(process, End::Bad("it is replaced".into()));
        }
    }

    fn ask(&mut self, events: bool) -> Result<GpuSample, GpuFault> {
        let deadline = Instant::now() + ASK_DEADLINE;
        let mut process = match self.process.take() {
            Some(process) => process,
            None => self.spawn(deadline)?,
        };
        let id = self.next_id;
        self.next_id += 1;
        let slow = self.slow_at.is_none_or(|at| at.elapsed() >= self.slow_interval);
        let ask = Ask { id, ask: Question::Sample(Wanted { slow, events }) };
        // A write error is the end of the helper: its stdout says more about it.
        let _ = process.stdin.write_all(wire::line(&ask).as_bytes());
        loop {
            match process.next::<Answer>(deadline) {
                Ok(answer) if answer.id == id => {
                    self.process = Some(process);
                    match &answer.answer {
                        Ok(sample) if sample.slow_fresh => self.slow_at = Some(Instant::now()),
                        Ok(_) => {}
                        // What is loaded stays loaded: only another process sees another driver.
                        Err(_) => self.retire(),
                    }
                    return answer.answer;
                }
                // The answer to an earlier ask.
                Ok(_) => {}
                Err(end) => return Err(self.end(process, end)),
            }
        }
    }

    fn spawn(&mut self, deadline: Instant) -> Result<Process, GpuFault> {
        self.abandoned.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if self.abandoned.len() >= MAX_ABANDONED {
            let detail = format!("{} helpers hang in the driver and cannot be killed", self.abandoned.len());
            return Err(GpuFault { kind: FaultKind::Stuck, detail });
        }
        let missing = |detail| GpuFault { kind: FaultKind::HelperMissing, detail };
        let path = find(self.helper.as_deref()).ok_or_else(|| {
            missing(match &self.helper {
                Some(path) => format!("NVML_HELPER={path} is no file"),
                None => format!("{HELPER} is neither beside agent-net nor in PATH"),
            })
        })?;
        let mut process = Process::start(&path, self.library.as_deref())
            .map_err(|why| missing(format!("{} cannot be started: {why}", path.display())))?;
        self.starts += 1;
        match process.next::<Hello>(deadline) {
            Ok(hello) if hello.protocol == wire::PROTOCOL => Ok(process),
            Ok(hello) => {
                let why = format!(
                    "{} is version {} and speaks protocol {}, this worker {}: install both from one build",
                    path.display(),
                    hello.version,
                    hello.protocol,
                    wire::PROTOCOL
                );
                Err(self.end(process, End::Bad(why)))
            }
            // It greets before it touches NVML: silence is its own.
            Err(End::Late) => {
                Err(self.end(process, End::Bad(format!("it said nothing for {} s", ASK_DEADLINE.as_secs()))))
            }
            Err(end) => Err(self.end(process, end)),
        }
    }

    /// Kills the process and says what happened to it.
    fn end(&mut self, process: Process, end: End) -> GpuFault {
        let Process { mut child, .. } = process;
        // A helper that ended by itself: how it did is the best that can be said.
        let ended = match end {
            End::Closed(_) => wait(&mut child, REAP_PATIENCE),
            _ => None,
        };
        let _ = child.kill();
        let reaped = ended.is_some() || wait(&mut child, REAP_PATIENCE).is_some();
        if !reaped {
            self.abandoned.push(child);
        }
        match (end, ended) {
            (End::Late, _) => {
                let detail = format!("NVML did not answer within {} s; its reader was killed", ASK_DEADLINE.as_secs());
                GpuFault { kind: FaultKind::Stuck, detail }
            }
            (End::Closed(_), Some(status)) => {
                GpuFault { kind: FaultKind::HelperFailed, detail: format!("{HELPER} ended: {status}") }
            }
            (End::Closed(why) | End::Bad(why), _) => {
                GpuFault { kind: FaultKind::HelperFailed, detail: format!("{HELPER} was stopped: {why}") }
            }
        }
    }
}

/// Why a helper is given up.
#[derive(Debug)]
enum End {
    Late,
    /// It closed its stdout.
    Closed(String),
    /// It said what nobody understands.
    Bad(String),
}

impl Process {
    fn start(path: &Path, library: Option<&str>) -> io::Result<Self> {
        let mut command = Command::new(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(library) = library {
            command.env("NVML_LIB", library);
        }
        // It loads a foreign library and has no use for them.
        for setting in SETTINGS.iter().filter(|s| s.secret) {
            command.env_remove(setting.name);
        }
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("no pipe to it"));
        };
        // Bounded: a helper that floods is blocked by its own pipe.
        let (sender, lines) = mpsc::sync_channel(4);
        let answers = thread::Builder::new().name("nvml-reader".into()).spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let line = read_line(&mut stdout);
                let last = line.is_err();
                if sender.send(line).is_err() || last {
                    return;
                }
            }
        });
        let chatter = thread::Builder::new().name("nvml-chatter".into()).spawn(move || log_chatter(stderr));
        if let Err(why) = answers.and(chatter) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
        Ok(Self { child, stdin, lines })
    }

    fn next<T: for<'a> serde::Deserialize<'a>>(&mut self, deadline: Instant) -> Result<T, End> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(line)) => wire::parse(&line).map_err(End::Bad),
            Ok(Err(end)) => Err(end),
            Err(RecvTimeoutError::Timeout) => Err(End::Late),
            Err(RecvTimeoutError::Disconnected) => Err(End::Closed("its output has ended".into())),
        }
    }
}

/// One line of at most `MAX_LINE` bytes.
fn read_line(from: &mut impl BufRead) -> Result<String, End> {
    let mut line = Vec::new();
    let read = from.by_ref().take(wire::MAX_LINE as u64).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Err(End::Closed("its output has ended".into())),
        Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).into_owned()),
        Ok(n) if n < wire::MAX_LINE => Err(End::Closed("its output ended within a line".into())),
        Ok(_) => Err(End::Bad(format!("it wrote a line longer than {} bytes", wire::MAX_LINE))),
        Err(why) => Err(End::Closed(format!("its output cannot be read: {why}"))),
    }
}

/// Passes on what the helper, or the library in it, prints: a few lines of bounded length, through our own logger.
fn log_chatter(stderr: impl Read) {
    let mut stderr = BufReader::new(stderr);
    for number in 0..=MAX_CHATTER {
        let mut line = Vec::new();
        match stderr.by_ref().take(MAX_CHATTER_LINE).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        if number < MAX_CHATTER {
            log::warn!("{HELPER} says: {}", String::from_utf8_lossy(&line).trim_end());
        }
    }
    log::warn!("{HELPER} says more, which is not shown");
    // Read on: a full pipe would stop it within the driver.
    let _ = io::copy(&mut stderr, &mut io::sink());
}

/// The exit status, if it comes within `patience`.
fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

/// The helper's path: as set, else beside this program, else in PATH.
fn find(set: Option<&str>) -> Option<PathBuf> {
    if let Some(path) = set {
        return Some(PathBuf::from(path)).filter(|p| p.is_file());
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(HELPER)));
    let in_path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&in_path).map(|dir| dir.join(HELPER))).find(|path| path.is_file())
}
