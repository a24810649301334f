//! STATE_DIR/uptime.bin: a ring of small records of fixed size, written in place by a thread of its own, so that a
//! disk that hangs, is full or cannot be written delays nothing else. What could not be written is kept and tried again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::uptime::{MINUTES, RECORD};
use crate::sys::files::{is_regular, open_alone, sync_folder_of};
use crate::sys::{threads, version_file};

const NAME: &str = "uptime.bin";
/// The first bytes of the file: what it is and how it is written.
const MAGIC: &[u8; RECORD] = b"AGNTUP1\n";
const SIZE: u64 = RECORD as u64 * (MINUTES as u64 + 1);
/// A disk that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);

/// What to do with the version of the last start.
pub(crate) type OtherVersion = Box<dyn FnOnce(&str) + Send>;

/// Whether the file can be written.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct WriteStatus {
    pub(crate) errors: u64,
    /// The last write that succeeded.
    pub(crate) last_success: Option<Instant>,
}

/// The file, as seen by those who have something to write.
#[derive(Debug)]
pub(crate) struct UptimeFile {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<u32, [u8; RECORD]>,
    /// They must reach the disk, not only the kernel.
    sync: bool,
    writing: bool,
    /// The file was recreated while the worker ran: everything known has to be written again.
    recreated: bool,
    health: WriteStatus,
}

impl UptimeFile {
    /// Opens the file below `dir` in a thread of its own; its records come on the channel, if it can be read.
    /// `other_version`: called with the version of the last start, if it was another one.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: &str, other_version: OtherVersion) -> io::Result<(Self, Receiver<Vec<u8>>)> {
        let shared = Arc::new(Shared::default());
        let (sender, records) = mpsc::sync_channel(1);
        let path = Path::new(dir).join(NAME);
        let work = Arc::clone(&shared);
        let (mut sender, mut other_version) = (Some(sender), Some(other_version));
        threads::service("uptime-file", move || {
            let dir = path.parent().unwrap_or(Path::new("."));
            let is_new = other_version.take().is_some_and(|report| version_file::compare(dir, &path, report));
            let mut file = open(&path);
            // A restart leaves the records as they were loaded.
            let sender = sender.take();
            match (&mut file, &sender) {
                (Ok(file), Some(sender)) => send_records(file, &path, sender),
                (Ok(_), None) => {}
                // It may be readable all the same: then the past is known, and only the future is lost.
                (Err(why), sender) => {
                    work.failed(&path, why);
                    if let (Ok(mut file), Some(sender)) = (is_regular(&path).and_then(|()| File::open(&path)), sender) {
                        send_records(&mut file, &path, sender);
                    }
                }
            }
            drop(sender);
            if is_new {
                version_file::keep(dir);
            }
            work.write_forever(&path, file);
        })?;
        Ok((Self { shared }, records))
    }

    /// Takes records to write; returns at once. `sync`: as soon as possible onto the disk itself.
    pub(crate) fn write(&self, records: Vec<(u32, [u8; RECORD])>, sync: bool) {
        let mut state = self.shared.lock();
        state.pending.extend(records);
        state.sync |= sync;
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, for at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let waiting = |state: &mut State| !state.pending.is_empty() || state.writing;
        let _ = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, waiting);
    }

    /// True once after the file was recreated because it had been removed.
    pub(crate) fn take_recreated(&self) -> bool {
        std::mem::take(&mut self.shared.lock().recreated)
    }

    pub(crate) fn write_status(&self) -> WriteStatus {
        self.shared.lock().health
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, path: &Path, why: &io::Error) {
        let path = path.display();
        log::warn!("cannot write {path}: {why}; the uptime stays in memory until it can be written");
        self.lock().health.errors += 1;
    }

    fn write_forever(&self, path: &Path, mut file: io::Result<File>) {
        let mut failing = file.is_err();
        // A panic may have left it set.
        self.lock().writing = false;
        loop {
            let (records, sync) = {
                let idle = |state: &mut State| state.pending.is_empty();
                let waited = self.changed.wait_while(self.lock(), idle);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                state.writing = true;
                (std::mem::take(&mut state.pending), std::mem::take(&mut state.sync))
            };
            if file.is_err() {
                let missing = fs::metadata(path).is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
                file = open(path);
                self.lock().recreated |= missing && file.is_ok();
            }
            let written = match &file {
                Ok(file) => write(file, &records, sync),
                Err(why) => Err(io::Error::new(why.kind(), why.to_string())),
            };
            let mut state = self.lock();
            state.writing = false;
            match written {
                Ok(()) => {
                    state.health.last_success = Some(Instant::now());
                    self.changed.notify_all();
                    drop(state);
                    if std::mem::take(&mut failing) {
                        log::info!("{} can be written again", path.display());
                    }
                }
                Err(why) => {
                    drop(state);
                    if std::mem::replace(&mut failing, true) {
                        self.lock().health.errors += 1;
                    } else {
                        self.failed(path, &why);
                    }
                    let mut state = self.lock();
                    // Newer ones win.
                    for (place, record) in records {
                        state.pending.entry(place).or_insert(record);
                    }
                    state.sync |= sync;
                    self.changed.notify_all();
                    drop(state);
                    // A file that was removed or replaced is recreated.
                    file = Err(why);
                    thread::sleep(RETRY);
                }
            }
        }
    }
}

fn write(file: &File, records: &BTreeMap<u32, [u8; RECORD]>, sync: bool) -> io::Result<()> {
    if file.metadata()?.nlink() == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it was removed"));
    }
    for (place, record) in records {
        file.write_all_at(record, RECORD as u64 * (u64::from(*place) + 1))?;
    }
    if sync { file.sync_data() } else { Ok(()) }
}

/// Writes and removes a small file in `dir`, as the worker would, and opens those that are there; the bytes that are free.
///
/// # Errors
/// Why it, or a file in it, cannot be written.
pub(crate) fn try_out(dir: &str) -> Result<u64, String> {
    let dir = Path::new(dir);
    let path = dir.join(format!(".try-{}", std::process::id()));
    let tried = fs::create_dir_all(dir).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(&[b'x'; 4096])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&path);
    tried.map_err(|why| why.to_string())?;
    // A worker that ran as another user may have left them.
    for entry in fs::read_dir(dir).map_err(|why| why.to_string())?.flatten().take(100) {
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Err(why) = OpenOptions::new().write(true).open(entry.path())
        {
            return Err(format!("{}: {why}", entry.file_name().display()));
        }
    }
    let room = rustix::fs::statvfs(dir).map_err(|why| why.to_string())?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Opens the uptime file, alone, in its full size.
fn open(path: &Path) -> io::Result<File> {
    let file = open_alone(path, 0o666)?;
    let length = file.metadata()?.len();
    if length != SIZE {
        if length > 0 {
            log::warn!("{} has {length} bytes instead of {SIZE}; what can be read of it is kept", path.display());
        }
        // The room is taken now: a disk that fills up later does no harm. A file that could not get it keeps another
        // length, so that the next attempt comes by here again.
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SIZE) {
            Err(why) if why != rustix::io::Errno::OPNOTSUPP => return Err(why.into()),
            _ => file.set_len(SIZE)?,
        }
    }
    let mut magic = [0; RECORD];
    file.read_exact_at(&mut magic, 0)?;
    if magic != *MAGIC {
        if magic != [0; RECORD] {
            log::warn!("{} does not begin as an uptime file; its intact records are kept", path.display());
        }
        file.write_all_at(MAGIC, 0)?;
        file.sync_all()?;
        sync_folder_of(path)?;
    }
    Ok(file)
}

fn send_records(file: &mut File, path: &Path, sender: &mpsc::SyncSender<Vec<u8>>) {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(RECORD as u64)).and_then(|_| file.take(SIZE).read_to_end(&mut bytes));
    if let Err(why) = read {
        log::warn!("cannot read all of {}: {why}", path.display());
    }
    let _ = sender.send(bytes);
}
