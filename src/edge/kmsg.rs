//! The kernel's log, where it may be read: one record a read, from the start of the ring on, never waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::pure::xid::{KernelEvent, KernelLog};

/// Larger than any record.
const BUFFER: usize = 16 * 1024;
/// Records that are read in one go; the others come at the next look.
const MAX_RECORDS: usize = 200_000;

/// The open log.
#[derive(Debug)]
pub(crate) struct Kmsg {
    file: File,
    /// The beginning of a record whose end has not come. The kernel gives whole ones, a file may not.
    rest: Vec<u8>,
    log: KernelLog,
}

impl Kmsg {
    /// # Errors
    /// The system's: containers mostly may not read it, and that is no fault.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(root.join("dev/kmsg"))?;
        let mut kmsg = Self { file, rest: Vec::new(), log: KernelLog::default() };
        // Some may be opened and not be read.
        match kmsg.file.read(&mut []) {
            Err(why) if why.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => Err(why),
            _ => Ok(kmsg),
        }
    }

    /// What has been logged since the last time, each with its Unix time in seconds. `now`: the same.
    pub(crate) fn read(&mut self, now: f64) -> Vec<(KernelEvent, f64)> {
        let uptime = monotonic_seconds();
        let mut events = Vec::new();
        let mut buffer = vec![0; BUFFER];
        for _ in 0..MAX_RECORDS {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.rest.extend_from_slice(&buffer[..read]),
                // Records were overwritten before they could be read: go on with the oldest there is.
                Err(why) if why.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => continue,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Some((event, micros)) = self.log.read(String::from_utf8_lossy(&line).trim_end()) {
                    let ago = (uptime - micros as f64 / 1e6).max(0.0);
                    events.push((event, now - ago));
                }
            }
            if self.rest.len() > BUFFER {
                self.rest.clear();
            }
        }
        events
    }
}

/// The clock of the log's times.
fn monotonic_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
