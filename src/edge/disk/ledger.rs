//! STATE_DIR/tickets.jsonl: lines are only ever appended, by a thread of its own, several with one fsync. A disk that
//! hangs, is full or cannot be written makes a line fail in time; nothing half-written stays.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::threads;

use super::{lock, open_alone, sync_folder_of};

pub(crate) const NAME: &str = "tickets.jsonl";
/// Whoever can read tickets can spend them.
const MODE: u32 = 0o600;
/// A file that cannot be opened is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);
/// Lines that may wait for a disk that does not keep up.
const MAX_QUEUE: usize = 256;
/// Lines that share one fsync.
const MAX_BATCH: usize = 256;

/// The file, as seen by those who have something to write.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    orders: Sender<Order>,
    queued: Arc<AtomicUsize>,
    length: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    anew: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Order {
    Append {
        line: String,
        receipt: Arc<Receipt>,
    },
    /// All lines anew.
    Replace(Vec<String>),
}

/// What became of one line.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Writing,
    Written,
    Failed(String),
    /// Nobody waits for it any more.
    GivenUp,
}

impl Receipt {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the line is on the disk itself; given up after `patience`, it is not written, or voided.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn wait(&self, patience: Duration) -> Result<(), String> {
        let busy = |state: &mut State| matches!(state, State::Waiting | State::Writing);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Written => Ok(()),
            State::Failed(why) => Err(why.clone()),
            State::Waiting | State::Writing | State::GivenUp => {
                *state = State::GivenUp;
                Err("the disk does not answer in time".into())
            }
        }
    }

    /// Moves on, unless it was given up; whether it was not.
    fn advance(&self, to: State) -> bool {
        let mut state = self.lock();
        if *state == State::GivenUp {
            return false;
        }
        *state = to;
        self.changed.notify_all();
        true
    }
}

impl LedgerFile {
    /// Opens the file below `dir` in a thread of its own. `load` is given its text, or why there is none, each time
    /// that it is tried; `void` makes the line that takes a written one back.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(
        dir: &str,
        load: impl Fn(Result<String, String>) + Send + 'static,
        void: fn(&str) -> Option<String>,
    ) -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel();
        let file = Self {
            orders,
            queued: Arc::default(),
            length: Arc::default(),
            errors: Arc::default(),
            anew: Arc::default(),
        };
        let writer = Writer {
            path: Path::new(dir).join(NAME),
            queued: Arc::clone(&file.queued),
            length: Arc::clone(&file.length),
            errors: Arc::clone(&file.errors),
            anew: Arc::clone(&file.anew),
            void,
            failing: Cell::new(false),
        };
        threads::essential("ledger", move || writer.run(&waiting, &load))?;
        Ok(file)
    }

    /// Takes a line to write; the receipt says when it is on the disk.
    ///
    /// # Errors
    /// When too many lines wait already.
    pub(crate) fn append(&self, line: String) -> Result<Arc<Receipt>, String> {
        if self.queued.fetch_add(1, Ordering::AcqRel) >= MAX_QUEUE {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            return Err("the disk does not keep up".into());
        }
        let receipt = Arc::new(Receipt::default());
        let order = Order::Append { line, receipt: Arc::clone(&receipt) };
        self.orders.send(order).map_err(|_| "the ledger's thread has ended".to_owned())?;
        Ok(receipt)
    }

    /// Takes all lines anew, in place of everything that was taken so far.
    pub(crate) fn replace(&self, lines: Vec<String>) {
        // Without the thread there is nothing to replace.
        let _ = self.orders.send(Order::Replace(lines));
    }

    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// True once after the file was made anew, because somebody removed it: it lacks all earlier lines.
    pub(crate) fn take_anew(&self) -> bool {
        self.anew.swap(false, Ordering::AcqRel)
    }

    /// Writes that failed.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }
}

struct Writer {
    path: PathBuf,
    queued: Arc<AtomicUsize>,
    length: Arc<AtomicU64>,
    errors: Arc<AtomicU64>,
    anew: Arc<AtomicBool>,
    void: fn(&str) -> Option<String>,
    /// The last write failed.
    failing: Cell<bool>,
}

impl Writer {
    fn run(&self, orders: &Receiver<Order>, load: &dyn Fn(Result<String, String>)) {
        let mut file = loop {
            match open(&self.path).and_then(|mut file| read(&mut file).map(|text| (file, text))) {
                Ok((file, text)) => {
                    load(Ok(text));
                    break file;
                }
                Err(why) => {
                    self.errors.fetch_add(1, Ordering::AcqRel);
                    load(Err(why.to_string()));
                    thread::sleep(RETRY);
                }
            }
        };
        let mut put_back = None;
        while let Some(order) = put_back.take().or_else(|| orders.recv().ok()) {
            match order {
                Order::Append { line, receipt } => {
                    let mut batch = vec![(line, receipt)];
                    while batch.len() < MAX_BATCH {
                        match orders.try_recv() {
                            Ok(Order::Append { line, receipt }) => batch.push((line, receipt)),
                            Ok(other) => {
                                put_back = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.queued.fetch_sub(batch.len(), Ordering::AcqRel);
                    self.append(&mut file, batch);
                }
                Order::Replace(lines) => match replace(&self.path, &lines) {
                    Ok(new) => file = new,
                    Err(why) => self.warn(&why),
                },
            }
            self.length.store(file.metadata().map_or(0, |meta| meta.len()), Ordering::Release);
        }
    }

    fn append(&self, file: &mut File, mut batch: Vec<(String, Arc<Receipt>)>) {
        batch.retain(|(_, receipt)| receipt.advance(State::Writing));
        let text: String = batch.iter().map(|(line, _)| line.as_str()).collect();
        let written = self.reopen_if_gone(file).and_then(|()| append(file, &text));
        match &written {
            Ok(()) => self.failing.set(false),
            Err(why) => self.warn(why),
        }
        for (line, receipt) in batch {
            let state = written.as_ref().map_or_else(|why| State::Failed(why.to_string()), |()| State::Written);
            let late = !receipt.advance(state);
            // Its job was refused meanwhile.
            if let Some(void) = (self.void)(&line).filter(|_| late && written.is_ok())
                && let Err(why) = append(file, &void)
            {
                self.warn(&why);
            }
        }
    }

    /// Somebody may have removed or replaced it.
    fn reopen_if_gone(&self, file: &mut File) -> io::Result<()> {
        if file.metadata()?.nlink() == 0 {
            *file = open(&self.path)?;
            self.anew.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn warn(&self, why: &io::Error) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        // The first of a row of failures is enough: whoever sends tickets must not fill the log.
        if !self.failing.replace(true) {
            log::warn!("cannot write {}: {why}", self.path.display());
        }
    }
}

/// Appends and has it on the disk itself; what could not be written whole is taken off again.
fn append(file: &mut File, text: &str) -> io::Result<()> {
    let before = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    // A line without its end was never confirmed; it must not spoil the next one.
    let end = if last == [b'\n'] { "" } else { "\n" };
    let written = file.write_all([end, text].concat().as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before)?;
    }
    written
}

/// Opens the file, alone; only the owner can read it.
fn open(path: &Path) -> io::Result<File> {
    let file = open_alone(path, MODE)?;
    sync_folder_of(path)?;
    Ok(file)
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes all lines into a new file that takes the place of the old one at once.
fn replace(path: &Path, lines: &[String]) -> io::Result<File> {
    let new = path.with_extension("jsonl.new");
    let mut options = OpenOptions::new();
    let made = options.read(true).write(true).create(true).truncate(true).mode(MODE).open(&new).and_then(|mut file| {
        lock(&file)?;
        lines.iter().try_for_each(|line| file.write_all(line.as_bytes()))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(file)
    });
    if made.is_err() {
        let _ = fs::remove_file(&new);
    }
    sync_folder_of(path)?;
    made
}

/// The file's text without taking it from the worker that writes it. None: there is no file.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn peek(dir: &str) -> io::Result<Option<String>> {
    match fs::read(Path::new(dir).join(NAME)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}
