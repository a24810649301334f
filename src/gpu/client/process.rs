//! One helper process: started, read line by line, and what it prints passed on to the log.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::io::Errno;

use super::reads::Reads;
use crate::config::SETTINGS;
use crate::gpu::sample::{FaultKind, GpuFault};
use crate::gpu::wire;
use crate::sys::systemd;
use crate::sys::text::io_words;
use crate::sys::threads;

pub(super) const HELPER: &str = "agent-net-nvml";

/// A start that takes longer is reported as such, and from then on this often.
pub(super) const START_QUIET: Duration = Duration::from_secs(2);
const START_REPORT: Duration = Duration::from_secs(1);

/// Lines of one helper's stderr that are logged, and how much of each.
const MAX_CHATTER: usize = 20;
const MAX_CHATTER_LINE: u64 = 512;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) stdin: ChildStdin,
    /// Lines of its stdout; an error says why there will be no more.
    lines: Receiver<Result<String, End>>,
    pub(super) started: Instant,
    pub(super) greeted: bool,
    pub(super) answered: bool,
    /// The id of the unanswered ask, and when it was sent.
    pub(super) asked: Option<(u64, Instant)>,
}

/// What a file that is there did not start for.
pub(super) fn cannot_start(path: &Path, why: &io::Error) -> GpuFault {
    // "Not found" is its loader: it is for another architecture, or for another libc than this machine's.
    let not_a_program = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&why.kind())
        || why.raw_os_error() == Some(Errno::NOEXEC.raw_os_error());
    let kind = if not_a_program { FaultKind::HelperNotExecutable } else { FaultKind::HelperMissing };
    GpuFault { kind, detail: format!("{} cannot be started: {}", path.display(), io_words(why)) }
}

/// Why a helper is ended.
#[derive(Debug)]
pub(super) enum End {
    Late,
    /// It closed its stdout.
    Closed(String),
    /// Its output is not of the protocol.
    Bad(String),
    /// It has another protocol.
    OtherBuild(String),
}

impl Process {
    /// `had_card`: see [`Reads::put_into`].
    pub(super) fn start(path: &Path, reads: &Reads, had_card: bool) -> io::Result<Self> {
        let mut command = Command::new(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        reads.put_into(&mut command, had_card);
        // It has a thread for each GPU, and glibc would give each an arena of its own.
        command.env("MALLOC_ARENA_MAX", "1");
        // It loads a foreign library and does not need the secrets.
        for setting in SETTINGS.iter().filter(|s| s.secret) {
            command.env_remove(setting.name);
        }
        for name in systemd::VARIABLES {
            command.env_remove(name);
        }
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("no pipe to it"));
        };
        // Bounded: a helper that floods is blocked by its own pipe.
        let (sender, lines) = mpsc::sync_channel(4);
        let answers = threads::spawn("nvml-reader", move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let line = read_line(&mut stdout);
                let last = line.is_err();
                if sender.send(line).is_err() || last {
                    return;
                }
            }
        });
        let chatter = threads::spawn("nvml-chatter", move || log_chatter(stderr));
        if let Err(why) = answers.and(chatter) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
        Ok(Self { child, stdin, lines, started: Instant::now(), greeted: false, answered: false, asked: None })
    }

    /// How long its start may take before it is reported again.
    pub(super) fn quiet(&self) -> Duration {
        START_QUIET.saturating_sub(self.started.elapsed()).max(START_REPORT)
    }

    pub(super) fn next<T: for<'a> serde::Deserialize<'a>>(&mut self, deadline: Instant) -> Result<T, End> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(line)) => wire::parse(&line).map_err(End::Bad),
            Ok(Err(end)) => Err(end),
            Err(RecvTimeoutError::Timeout) => Err(End::Late),
            Err(RecvTimeoutError::Disconnected) => Err(End::Closed("its output ended".into())),
        }
    }
}

/// One line of at most `MAX_LINE` bytes.
fn read_line(from: &mut impl BufRead) -> Result<String, End> {
    let mut line = Vec::new();
    let read = from.by_ref().take(wire::MAX_LINE as u64).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Err(End::Closed("its output ended".into())),
        Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).into_owned()),
        Ok(n) if n < wire::MAX_LINE => Err(End::Closed("its output ended within a line".into())),
        Ok(_) => Err(End::Bad(format!("it wrote a line longer than {} bytes", wire::MAX_LINE))),
        Err(why) => Err(End::Closed(format!("its output cannot be read: {why}"))),
    }
}

/// Logs what the helper, or the library in it, prints: a few lines of bounded length.
fn log_chatter(stderr: impl Read) {
    let mut stderr = BufReader::new(stderr);
    for number in 0..=MAX_CHATTER {
        let mut line = Vec::new();
        match stderr.by_ref().take(MAX_CHATTER_LINE).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        if number < MAX_CHATTER {
            log::warn!("{HELPER} printed: {}", String::from_utf8_lossy(&line).trim_end());
        }
    }
    log::warn!("{HELPER} prints more, which is not logged");
    // Keep reading: a full pipe would block it within the driver.
    let _ = io::copy(&mut stderr, &mut io::sink());
}

/// The exit status, if it comes within `timeout`.
pub(super) fn wait(child: &mut Child, timeout: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

/// The helper's path: as set, else beside this program, else in PATH.
pub(super) fn find(set: Option<&str>) -> Option<PathBuf> {
    if let Some(path) = set {
        return Some(PathBuf::from(path)).filter(|p| p.is_file());
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(HELPER)));
    let in_path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&in_path).map(|dir| dir.join(HELPER))).find(|path| path.is_file())
}
