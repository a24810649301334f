//! Reads the kernel's log, where that is allowed: one record a read, from the start of the ring, without blocking.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::legacy::Legacy;
use super::xid::{KernelEvent, KernelLog};

/// Larger than any record (at most 8 KiB): the kernel drops a record that does not fit the read.
const BUFFER: usize = 16 * 1024;
/// Records that are read at once; the next read takes the others.
const MAX_RECORDS: usize = 200_000;

/// The open log.
#[derive(Debug)]
pub(crate) struct Kmsg {
    file: File,
    /// Room for one read.
    buffer: Box<[u8]>,
    /// Bytes that were read and not parsed yet, with the start of an incomplete record. The kernel returns whole records,
    /// a file may not.
    rest: Vec<u8>,
    /// The current record is too long: the rest of it is skipped.
    skipping: bool,
    /// The number of the last record.
    last_record: Option<u64>,
    /// The operator has acknowledged all records up to this one, and the next one was not read yet.
    acknowledged: Option<u64>,
    log: KernelLog,
}

impl Kmsg {
    /// # Errors
    /// The system's: containers usually may not read it, which is not a fault.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(root.join("dev/kmsg"))?;
        let is_device = file.metadata()?.file_type().is_char_device();
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let mut kmsg = Self {
            file,
            buffer,
            rest: Vec::new(),
            skipping: false,
            last_record: None,
            acknowledged: None,
            log: KernelLog::default(),
        };
        // Some can be opened but not read, which only a read shows. It must have room for a whole record and keep it:
        // the kernel returns each one once.
        match kmsg.fill() {
            // Another device in its place, usually /dev/null; the kernel's has no end.
            Ok(0) if is_device => Err(io::Error::new(ErrorKind::Unsupported, "another device is in its place")),
            Ok(_) => Ok(kmsg),
            Err(why) if why.kind() == ErrorKind::WouldBlock || was_overtaken(&why) => Ok(kmsg),
            Err(why) => Err(why),
        }
    }

    /// Cards that the driver ignores, as read so far.
    pub(crate) fn legacy(&self) -> &Legacy {
        self.log.legacy()
    }

    /// The number of the last record that was read.
    pub(crate) fn last_record(&self) -> Option<u64> {
        self.last_record
    }

    /// The next events say where this record is.
    pub(crate) fn acknowledge(&mut self, record: u64) {
        self.acknowledged = Some(record);
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
                // Continue with the oldest record.
                Err(why) if was_overtaken(&why) => self.log.interrupted(),
                Err(_) => break,
            }
        }
        if self.acknowledged.take().is_some() {
            events.push((KernelEvent::Acknowledged, now));
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

    /// Parses what has been read.
    fn take_records(&mut self, now: f64, events: &mut Vec<(KernelEvent, f64)>) {
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            let line = String::from_utf8_lossy(&line);
            if let Some(number) = number_of(&line) {
                if self.acknowledged.take_if(|last| *last < number).is_some() {
                    events.push((KernelEvent::Acknowledged, now));
                }
                self.last_record = self.last_record.max(Some(number));
            }
            let found = self.log.read(line.trim_end());
            // The log's clock may be a little fast.
            events.extend(found.into_iter().map(|(event, micros)| (event, (micros as f64 / 1e6).min(now))));
        }
        if self.rest.len() > BUFFER {
            self.rest.clear();
            self.skipping = true;
        }
    }
}

/// The number of a record, `priority,number,microseconds,flags;text`; None: the line continues one.
fn number_of(line: &str) -> Option<u64> {
    line.split_once(';')?.0.split(',').nth(1)?.parse().ok()
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
