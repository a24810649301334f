//! Names of the processes on the GPUs, from the host's /proc. A process namespace has numbers of its own, and the driver
//! counts in those of the host (older ones) or of the caller. Where it is not proved that a number of the driver is one of
//! that /proc, there is no name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{Pid, test_kill_process};
use rustix::time::{ClockId, clock_gettime};

use super::sample::GpuSample;
use crate::sys::text;

/// The kernel writes less into these files.
const MAX_BYTES: u64 = 4096;
/// A kernel thread may have so long a name, a process 15 bytes.
const MAX_NAME: usize = 64;
/// PF_KTHREAD: no process can get this flag.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// In a second (USER_HZ), on every architecture with a driver.
const TICKS: f64 = 100.0;
/// Only the host's /proc has kernel threads, and this is the parent of all.
const KTHREADD: u32 = 2;

/// The names as they were read with the last slow readings.
#[derive(Debug)]
pub(crate) struct ProcessNames {
    proc: PathBuf,
    names: BTreeMap<u32, String>,
    /// It was logged that there are no names.
    logged: bool,
}

/// Whose numbers the host's /proc has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    /// This process runs in the host's namespace.
    Own,
    /// This process runs in a namespace below.
    Parent,
}

/// What /proc/PID/stat says. Unlike the command line, reading it never waits for the process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u64,
    flags: u64,
    /// In ticks since the machine started.
    started: u64,
}

impl ProcessNames {
    pub(crate) fn new(root: &Path) -> Self {
        Self { proc: root.join("proc"), names: BTreeMap::new(), logged: false }
    }

    /// Names the processes of a sample that was asked for at `asked`, in seconds since the machine started.
    pub(crate) fn put_into(&mut self, sample: &mut GpuSample, asked: f64) {
        let fresh = sample.slow_fresh;
        let mut processes = sample.gpus.iter_mut().flat_map(|gpu| gpu.processes.iter_mut().flatten()).peekable();
        if fresh {
            self.names.clear();
        }
        let namespace = if fresh && processes.peek().is_some() { self.namespace() } else { None };
        for process in processes {
            if let Some(namespace) = namespace
                && !self.names.contains_key(&process.pid)
                && let Some(name) = self.read(process.pid, namespace, asked)
            {
                self.names.insert(process.pid, name);
            }
            process.name = self.names.get(&process.pid).cloned();
        }
    }

    /// None: this is not the host's /proc, or it does not show this process.
    fn namespace(&mut self) -> Option<Namespace> {
        let kthreadd = self.stat(KTHREADD).filter(|stat| stat.parent == 0 && stat.flags & KERNEL_THREAD != 0);
        let status = kthreadd.and_then(|_| read(&self.proc.join("self/status")));
        let namespace = status.as_deref().and_then(namespace);
        if namespace.is_none() && !std::mem::replace(&mut self.logged, true) {
            log::debug!("processes have no names: {} is not the host's", self.proc.display());
        }
        namespace
    }

    fn read(&self, pid: u32, namespace: Namespace, asked: f64) -> Option<String> {
        // A driver that counts as the caller does would mean that process.
        let is_own = namespace == Namespace::Parent && exists_here(pid);
        let stat = self.stat(pid).filter(|_| !is_own)?;
        // A process that has started since has this number after another.
        let started_before = (stat.started + 1) as f64 / TICKS <= asked;
        (started_before && stat.flags & KERNEL_THREAD == 0 && !stat.name.trim().is_empty()).then_some(stat.name)
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        stat(pid, &read(&self.proc.join(format!("{pid}/stat")))?)
    }
}

/// Seconds since the machine started, by the clock of the processes' start times.
pub(crate) fn boot_seconds() -> f64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Whether a process of this number exists in this process's own namespace. Unlike its /proc, the kernel hides none.
fn exists_here(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// A regular file, without waiting for what is in its place.
fn read(path: &Path) -> Option<Vec<u8>> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    let mut bytes = Vec::new();
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// From /proc/self/status: this process's number in each namespace, from that of the /proc to its own.
fn namespace(status: &[u8]) -> Option<Namespace> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    match std::str::from_utf8(line).ok()?.split_ascii_whitespace().count() {
        0 => None,
        1 => Some(Namespace::Own),
        _ => Some(Namespace::Parent),
    }
}

/// `4242 (a name) S 1 …`: any byte may be in the name.
fn stat(pid: u32, bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = bytes.get(open + 1..close).filter(|name| name.len() <= MAX_NAME)?;
    if std::str::from_utf8(&bytes[..open]).ok()?.trim().parse() != Ok(pid) {
        return None;
    }
    let fields: Vec<&str> = std::str::from_utf8(&bytes[close + 1..]).ok()?.split_ascii_whitespace().collect();
    // From the third field on, as proc(5) counts.
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Stat {
        name: text::start(&String::from_utf8_lossy(name), MAX_NAME),
        parent: field(4)?,
        flags: field(9)?,
        started: field(22)?,
    })
}

#[cfg(test)]
mod tests;
