//! The kernel's log, where it may be read: one record a read, from the start of the ring on, never waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::legacy::Legacy;
use super::xid::{KernelEvent, KernelLog};

/// Larger than any record, which the kernel limits to 8 KiB: it loses one that a read has no room for.
const BUFFER: usize = 16 * 1024;
/// Records that are read in one go; the others come at the next look.
const MAX_RECORDS: usize = 200_000;

/// The open log.
#[derive(Debug)]
pub(crate) struct Kmsg {
    file: File,
    /// Room for one read.
    buffer: Box<[u8]>,
    /// What has been read and not been looked at, and the beginning of a record whose end has not come. The kernel
    /// gives whole ones, a file may not.
    rest: Vec<u8>,
    /// The record that is being read is too long: the rest of it is left out as well.
    skipping: bool,
    log: KernelLog,
}

impl Kmsg {
    /// # Errors
    /// The system's: containers mostly may not read it, and that is no fault.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(root.join("dev/kmsg"))?;
        let is_device = file.metadata()?.file_type().is_char_device();
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let mut kmsg = Self { file, buffer, rest: Vec::new(), skipping: false, log: KernelLog::default() };
        // Some may be opened and not be read, which only a read shows. It must have room for a whole record and keep
        // it: the kernel gives each one once, and for a read without room it is lost.
        match kmsg.fill() {
            // A device that is given in its place, mostly /dev/null; the kernel's has no end.
            Ok(0) if is_device => Err(io::Error::new(ErrorKind::Unsupported, "it is another device")),
            Ok(_) => Ok(kmsg),
            Err(why) if why.kind() == ErrorKind::WouldBlock || was_overtaken(&why) => Ok(kmsg),
            Err(why) => Err(why),
        }
    }

    /// Cards that the driver ignores, by what was read so far.
    pub(crate) fn legacy(&self) -> &Legacy {
        self.log.legacy()
    }

    /// What has been logged since the last time, each with its time in monotonic seconds.
    pub(crate) fn read(&mut self) -> Vec<(KernelEvent, f64)> {
        let now = monotonic_seconds();
        let mut events = Vec::new();
        self.take_records(now, &mut events);
        for _ in 0..MAX_RECORDS {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => self.take_records(now, &mut events),
                // Go on with the oldest that there is.
                Err(why) if was_overtaken(&why) => self.log.interrupted(),
                Err(_) => break,
            }
        }
        events
    }

    /// One read.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.file.read(&mut self.buffer) {
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                read => {
                    self.rest.extend_from_slice(&self.buffer[..read.as_ref().copied().unwrap_or_default()]);
                    return read;
                }
            }
        }
    }

    /// Looks at what has been read.
    fn take_records(&mut self, now: f64, events: &mut Vec<(KernelEvent, f64)>) {
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let said = self.log.read(String::from_utf8_lossy(&line).trim_end());
            // The log's clock may be a little fast.
            events.extend(said.into_iter().map(|(event, micros)| (event, (micros as f64 / 1e6).min(now))));
        }
        if self.rest.len() > BUFFER {
            self.rest.clear();
            self.skipping = true;
        }
    }
}

/// Records were overwritten before they could be read.
fn was_overtaken(why: &io::Error) -> bool {
    why.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error())
}

/// The clock of the log's times: it cannot be set, and it stops while the machine is suspended.
pub(crate) fn monotonic_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
