//! STATE_DIR/tickets.jsonl: lines are only ever appended, by a thread of its own, several with one fsync. A disk that
//! hangs, is full or cannot be written makes a line fail in time; nothing half-written stays.

mod compaction;
mod lines;
mod receipt;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::{Findings, Ledger, Mark, Place, Sieve, Tail, replay, void_of};
use crate::sys::threads;

use crate::sys::files::{is_regular, lock, open_alone, sync_folder_of};
use compaction::Compaction;
pub(crate) use lines::{Pages, Scan};
pub(crate) use receipt::Receipt;
use receipt::State;

pub(crate) const NAME: &str = "tickets.jsonl";
/// Whoever can read tickets can spend them.
const MODE: u32 = 0o600;
/// A file that cannot be opened is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);
/// A file that could not be made smaller is tried again after this long.
const COMPACTION_RETRY: Duration = Duration::from_secs(600);
/// A file is made smaller when it is larger than this, and twice as large as after the last time.
const LARGE_FILE: u64 = 16 << 20;
/// By so much it has grown at least since then, whatever else asks for it.
const GROWN: u64 = LARGE_FILE / 4;
/// Bytes of lines that may wait for a disk that does not keep up; each counts for some more than it has.
const MAX_QUEUE: usize = 4 << 20;
const LINE_COST: usize = MAX_QUEUE / 256;
/// Lines that share one fsync.
const MAX_BATCH: usize = 256;

/// Who knows what the file says.
pub(crate) trait Books: Send + 'static {
    /// The file has been read, or cannot be: why.
    fn opened(&self, read: Result<(Ledger, Findings, Pages), String>);

    /// Begins a compaction of a file that ends there. None: it has not been read.
    fn sieve(&self, until: u64) -> Option<Sieve>;

    /// What is known, with the file that its places are in.
    fn with(&self, work: &mut dyn FnMut(&mut Ledger, &mut Pages));

    /// Payments may have become due.
    fn wake(&self);
}

/// The file, as seen by those who have something to write.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    orders: Sender<Order>,
    queued: Arc<AtomicUsize>,
    errors: Arc<AtomicU64>,
}

/// A line to append.
#[derive(Debug)]
struct Order {
    line: String,
    mark: Mark,
    receipt: Arc<Receipt>,
}

impl Order {
    fn cost(&self) -> usize {
        self.line.len() + LINE_COST
    }
}

impl LedgerFile {
    /// Opens the file below `dir` in a thread of its own, which tells `books` what it reads, each time that it tries.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: &str, books: impl Books) -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel();
        let file = Self { orders, queued: Arc::default(), errors: Arc::default() };
        let writer = Writer {
            path: Path::new(dir).join(NAME),
            books: Box::new(books),
            queued: Arc::clone(&file.queued),
            errors: Arc::clone(&file.errors),
            failing: Cell::new(false),
            compacted: Cell::new(0),
            cannot_compact: Cell::new(None),
        };
        let mut restarted = false;
        threads::service("ledger", move || {
            if std::mem::replace(&mut restarted, true) {
                // It lets go of the file that it has locked.
                writer.books.opened(Err("its thread panicked and starts again".into()));
            }
            writer.run(&waiting);
        })?;
        Ok(file)
    }

    /// Takes a line to write; the receipt says when it is on the disk, and the books hear of it by its mark.
    ///
    /// # Errors
    /// When too many lines wait already.
    pub(crate) fn append(&self, line: String, mark: Mark) -> Result<Arc<Receipt>, String> {
        let receipt = Arc::new(Receipt::default());
        let order = Order { line, mark, receipt: Arc::clone(&receipt) };
        let cost = order.cost();
        if self.queued.fetch_add(cost, Ordering::AcqRel) + cost > MAX_QUEUE {
            self.queued.fetch_sub(cost, Ordering::AcqRel);
            return Err("the disk does not keep up".into());
        }
        self.orders.send(order).map_err(|_| "the ledger's thread has ended".to_owned())?;
        Ok(receipt)
    }

    /// Writes that failed.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }
}

struct Writer {
    path: PathBuf,
    books: Box<dyn Books>,
    queued: Arc<AtomicUsize>,
    errors: Arc<AtomicU64>,
    /// The last write failed.
    failing: Cell<bool>,
    /// The file's length after it was made smaller.
    compacted: Cell<u64>,
    /// When that failed, since it last succeeded.
    cannot_compact: Cell<Option<Instant>>,
}

impl Writer {
    fn run(&self, orders: &Receiver<Order>) {
        let mut file = loop {
            match self.open() {
                Ok(file) => break file,
                Err(why) => {
                    self.errors.fetch_add(1, Ordering::AcqRel);
                    self.books.opened(Err(why));
                    thread::sleep(RETRY);
                }
            }
        };
        let mut compaction = None;
        loop {
            if compaction.is_none() && self.is_due(&file) {
                compaction = Compaction::start(&self.path, &file, &*self.books).unwrap_or_else(|why| {
                    self.cannot_compact(&why);
                    None
                });
            }
            let first = match compaction {
                None => orders.recv().map_err(|_| TryRecvError::Disconnected),
                Some(_) => orders.try_recv(),
            };
            match first {
                Ok(first) => {
                    let mut batch = vec![first];
                    batch.extend(orders.try_iter().take(MAX_BATCH - 1));
                    self.queued.fetch_sub(batch.iter().map(Order::cost).sum(), Ordering::AcqRel);
                    self.append(&mut file, &mut compaction, batch);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            if let Some(running) = &mut compaction {
                let step = running.step(&*self.books);
                if !matches!(step, Ok(None)) {
                    self.end_compaction(step, &mut file);
                    compaction = None;
                }
            }
        }
    }

    /// Opens and reads the file, and takes off what was never confirmed.
    fn open(&self) -> Result<Arc<File>, String> {
        let open = || -> Result<_, String> {
            let file = Arc::new(open(&self.path).map_err(|why| why.to_string())?);
            let length = file.metadata().map_err(|why| why.to_string())?.len();
            let mut scan = Scan::new(&file, length).map_err(|why| why.to_string())?;
            let (ledger, findings) = replay(&mut scan, true)?;
            Ok((file, ledger, findings))
        };
        let (file, ledger, findings) = open()?;
        let path = self.path.display();
        let repaired = match findings.tail {
            Tail::Fine => Ok(()),
            Tail::Torn(at) => {
                log::info!("{path} ends with a write that was cut short and never confirmed; that end is removed");
                file.set_len(at).and_then(|()| file.sync_all())
            }
            Tail::Unfinished(at) => file.set_len(at).and_then(|()| append(&file, "").map(drop)),
        };
        // Whatever stays of it gets a newline before the next line.
        repaired.unwrap_or_else(|why| self.warn(&why));
        self.books.opened(Ok((ledger, findings, Pages(Arc::clone(&file)))));
        Ok(file)
    }

    fn append(&self, file: &mut Arc<File>, compaction: &mut Option<Compaction>, mut batch: Vec<Order>) {
        batch.retain(|order| order.receipt.advance(State::Writing));
        let text: String = batch.iter().map(|order| order.line.as_str()).collect();
        let written = self.restore_if_gone(file, compaction).and_then(|()| append(file, &text));
        match &written {
            Ok(_) => self.failing.set(false),
            Err(why) => self.warn(why),
        }
        let mut offset = written.as_ref().copied().unwrap_or(0);
        let mut placed = Vec::new();
        for Order { line, mark, receipt } in batch {
            let place = Place { offset, length: line.len() as u64 };
            offset += place.length;
            let state = written.as_ref().map_or_else(|why| State::Failed(why.to_string()), |_| State::Written);
            let late = !receipt.advance(state);
            if written.is_err() {
                continue;
            }
            // Its job was refused meanwhile.
            match void_of(&line).filter(|_| late) {
                None => placed.push((mark, place)),
                Some(void) => {
                    if let Err(why) = append(file, &void) {
                        self.warn(&why);
                    }
                }
            }
        }
        self.books.with(&mut |ledger, _| placed.iter().for_each(|(mark, place)| ledger.placed(*mark, *place)));
        self.books.wake();
    }

    /// Somebody may have removed the file. What it held is still there for those who have it open, and becomes a file
    /// once more.
    fn restore_if_gone(&self, file: &mut Arc<File>, compaction: &mut Option<Compaction>) -> io::Result<()> {
        let meta = file.metadata()?;
        if meta.nlink() > 0 {
            return Ok(());
        }
        // It would take the place of this one.
        *compaction = None;
        // Another worker may have made one of its own.
        match is_regular(&self.path) {
            Ok(()) => drop(open(&self.path)?),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
        let new = make(&self.path)?;
        compaction::copy(file, 0, meta.len(), &new, 0).and_then(|()| put_in_place(&new, &self.path)).inspect_err(
            |_| {
                let _ = fs::remove_file(new_path(&self.path));
            },
        )?;
        *file = Arc::new(new);
        let mut other = Pages(Arc::clone(file));
        // The old file is closed, and its blocks are freed, after the lock.
        self.books.with(&mut |_, pages| std::mem::swap(pages, &mut other));
        log::warn!("{} was removed while this worker uses it: it is written again", self.path.display());
        Ok(())
    }

    fn is_due(&self, file: &File) -> bool {
        let Ok(length) = file.metadata().map(|meta| meta.len()) else { return false };
        let (compacted, mut over) = (self.compacted.get(), false);
        if length < compacted.saturating_add(GROWN) {
            return false;
        }
        self.books.with(&mut |ledger, _| over = ledger.is_over());
        let due = over || length > LARGE_FILE.max(compacted.saturating_mul(2));
        due && self.cannot_compact.get().is_none_or(|since| since.elapsed() > COMPACTION_RETRY)
    }

    fn end_compaction(&self, ended: io::Result<Option<Arc<File>>>, file: &mut Arc<File>) {
        match ended {
            Ok(new) => {
                let length = |file: &File| file.metadata().map_or(0, |meta| meta.len());
                let Some(new) = new else { return };
                let (old, path) = (std::mem::replace(file, new), self.path.display());
                self.compacted.set(length(file));
                self.cannot_compact.set(None);
                log::info!("{path} was compacted: it had {} bytes and has {}", length(&old), length(file));
            }
            Err(why) => self.cannot_compact(&why),
        }
    }

    fn cannot_compact(&self, why: &io::Error) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        if self.cannot_compact.replace(Some(Instant::now())).is_none() {
            let path = self.path.display();
            log::warn!("cannot compact {path}: {why}; it stays as it is, and this is tried again in ten minutes");
        }
    }

    fn warn(&self, why: &io::Error) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        // The first of a row of failures is enough: whoever sends tickets must not fill the log.
        if !self.failing.replace(true) {
            log::warn!("cannot write {}: {why}", self.path.display());
        }
    }
}

/// Appends and has it on the disk itself; what could not be written whole is taken off again. Where it begins.
fn append(file: &File, text: &str) -> io::Result<u64> {
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    // A line without its end must not spoil the next one.
    let end = if last == [b'\n'] { "" } else { "\n" };
    let written = file.write_all_at([end, text].concat().as_bytes(), before).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before)?;
    }
    written.map(|()| before + end.len() as u64)
}

/// Opens the file, alone; only the owner can read it.
fn open(path: &Path) -> io::Result<File> {
    let file = open_alone(path, MODE)?;
    // A new file that did not get into its place.
    let _ = fs::remove_file(new_path(path));
    sync_folder_of(path)?;
    Ok(file)
}

fn new_path(path: &Path) -> PathBuf {
    path.with_extension("jsonl.new")
}

/// Makes a file that is to take the place of the one at `path`.
fn make(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(MODE).open(new_path(path))?;
    lock(&file)?;
    Ok(file)
}

/// Has the new file on the disk itself, in the place of the old one.
fn put_in_place(new: &File, path: &Path) -> io::Result<()> {
    new.sync_all()?;
    fs::rename(new_path(path), path)?;
    sync_folder_of(path)
}
