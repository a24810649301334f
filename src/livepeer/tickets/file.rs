//! STATE_DIR/tickets.jsonl: a thread appends lines, several with one fsync. When the disk hangs, is full or read-only, a
//! line fails within its timeout, and nothing half-written stays.

pub(crate) mod access;
mod compaction;
pub(crate) mod disk;
pub(crate) mod lines;
pub(crate) mod receipt;

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::Mark;
use super::ledger::entry::void_of;
use super::ledger::lines::Place;
use super::ledger::replay::{Tail, replay};
use crate::sys::files::{create_new, is_regular, new_path, put_in_place};
use crate::sys::text::{counted, io_words};
use crate::sys::threads;
use access::LedgerAccess;
use compaction::Compaction;
use disk::{MODE, NAME, append, copy, is_at, open};
use lines::{LineReader, Scan};
use receipt::{Receipt, ReceiptState};

/// Before a file that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Before a failed compaction is tried again.
const COMPACTION_RETRY: Duration = Duration::from_secs(600);
/// A file is compacted when it is larger than this and has doubled since the last time.
const LARGE_FILE: u64 = 16 << 20;
/// The least growth between two compactions.
const GROWN: u64 = LARGE_FILE / 4;
/// Bytes of lines that may wait for the disk; each line counts extra.
const MAX_QUEUE: usize = 4 << 20;
const LINE_COST: usize = MAX_QUEUE / 256;
/// Lines that share one fsync.
const MAX_BATCH: usize = 256;
const RESTARTED: &str = "its thread panicked and starts again";

/// The file, for those who write lines.
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
    /// Opens the file in `dir` in its own thread, which reports to `access` each time that it tries.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(dir: &str, access: impl LedgerAccess) -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel();
        let file = Self { orders, queued: Arc::default(), errors: Arc::default() };
        let writer = Writer {
            path: Path::new(dir).join(NAME),
            access: Box::new(access),
            queued: Arc::clone(&file.queued),
            errors: Arc::clone(&file.errors),
            failing: Cell::new(false),
            has_identity: Cell::new(false),
            length: Cell::new(0),
            compacted: Cell::new(0),
            cannot_compact: Cell::new(None),
        };
        let mut restarted = false;
        threads::service("ledger", move || {
            let mut left = Vec::new();
            if std::mem::replace(&mut restarted, true) {
                // It lets go of the file that it has locked.
                writer.access.opened(Err(RESTARTED.into()));
                left = writer.take_left(&waiting);
            }
            writer.run(&waiting, left);
        })?;
        Ok(file)
    }

    /// Queues a line; the receipt shows when it is on the disk, and the ledger gets its place by its mark.
    ///
    /// # Errors
    /// When too many lines are waiting.
    pub(crate) fn append(&self, line: String, mark: Mark) -> Result<Arc<Receipt>, String> {
        let receipt = Arc::new(Receipt::default());
        let order = Order { line, mark, receipt: Arc::clone(&receipt) };
        let cost = order.cost();
        if self.queued.fetch_add(cost, Ordering::AcqRel) + cost > MAX_QUEUE {
            self.queued.fetch_sub(cost, Ordering::AcqRel);
            return Err("the disk is too slow".into());
        }
        self.orders.send(order).map_err(|_| "the ledger's thread has ended".to_owned())?;
        Ok(receipt)
    }

    /// Failed writes.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }
}

struct Writer {
    path: PathBuf,
    access: Box<dyn LedgerAccess>,
    queued: Arc<AtomicUsize>,
    errors: Arc<AtomicU64>,
    /// The last write failed.
    failing: Cell<bool>,
    /// The file can be recognised at its path.
    has_identity: Cell<bool>,
    /// The file's length after the last write.
    length: Cell<u64>,
    /// The file's length after the last compaction.
    compacted: Cell<u64>,
    /// When compaction first failed since it last succeeded.
    cannot_compact: Cell<Option<Instant>>,
}

impl Writer {
    /// The lines that still wait after a panic. Payments among them fail: they are numbered by the ledger that what the file
    /// holds is about to replace.
    fn take_left(&self, orders: &Receiver<Order>) -> Vec<Order> {
        let mut left: Vec<Order> = orders.try_iter().collect();
        self.queued.fetch_sub(left.iter().map(Order::cost).sum(), Ordering::AcqRel);
        left.retain(|order| {
            let stays = !matches!(order.mark, Mark::Payment(_));
            stays || !order.receipt.advance(ReceiptState::Failed(RESTARTED.into()))
        });
        left
    }

    /// `left`: lines to write first.
    fn run(&self, orders: &Receiver<Order>, left: Vec<Order>) {
        let mut file = loop {
            match self.open() {
                Ok(file) => break file,
                Err(why) => {
                    self.errors.fetch_add(1, Ordering::AcqRel);
                    self.access.opened(Err(why));
                    thread::sleep(RETRY);
                }
            }
        };
        let mut compaction = None;
        if !left.is_empty() {
            self.append(&mut file, &mut compaction, left);
        }
        loop {
            if compaction.is_none() && self.is_due(&file) {
                compaction = Compaction::start(&self.path, &file, &*self.access).unwrap_or_else(|why| {
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
                let step = running.step(&*self.access);
                if !matches!(step, Ok(None)) {
                    self.end_compaction(step, &mut file);
                    compaction = None;
                }
            }
        }
    }

    /// Opens and reads the file, and removes an unconfirmed end.
    fn open(&self) -> Result<Arc<File>, String> {
        let open = || -> Result<_, String> {
            let file = Arc::new(open(&self.path).map_err(|why| io_words(&why))?);
            let length = file.metadata().map_err(|why| io_words(&why))?.len();
            let mut scan = Scan::new(&file, length).map_err(|why| io_words(&why))?;
            let (ledger, findings) = replay(&mut scan, true)?;
            Ok((file, ledger, findings))
        };
        let (file, ledger, findings) = open()?;
        let path = self.path.display();
        let repaired = match findings.tail {
            Tail::Fine => Ok(()),
            Tail::Torn(at) => {
                log::info!("{path} ends with an unconfirmed write that was cut short; removing it");
                file.set_len(at).and_then(|()| file.sync_all())
            }
            Tail::Unfinished(at) => file.set_len(at).and_then(|()| append(&file, "").map(drop)),
        };
        // What cannot be removed gets a newline before the next line.
        repaired.unwrap_or_else(|why| self.warn(&why));
        self.note_identity(&file);
        self.note_length(&file);
        self.access.opened(Ok((ledger, findings, LineReader(Arc::clone(&file)))));
        Ok(file)
    }

    fn append(&self, file: &mut Arc<File>, compaction: &mut Option<Compaction>, mut batch: Vec<Order>) {
        batch.retain(|order| order.receipt.advance(ReceiptState::Writing));
        let text: String = batch.iter().map(|order| order.line.as_str()).collect();
        let written = self.put_right(file, compaction).and_then(|()| append(file, &text));
        match &written {
            Ok(_) => self.failing.set(false),
            Err(why) => self.warn(why),
        }
        let mut offset = written.as_ref().copied().unwrap_or(0);
        let mut placed = Vec::new();
        for Order { line, mark, receipt } in batch {
            let place = Place { offset, length: line.len() as u64 };
            offset += place.length;
            let state =
                written.as_ref().map_or_else(|why| ReceiptState::Failed(io_words(why)), |_| ReceiptState::Written);
            let late = !receipt.advance(state);
            if written.is_err() {
                continue;
            }
            match void_of(&line).filter(|_| late) {
                None => placed.push((mark, place)),
                Some(void) => {
                    if let Err(why) = append(file, &void) {
                        self.warn(&why);
                    }
                }
            }
        }
        self.note_length(file);
        self.access.with(&mut |ledger, _| placed.iter().for_each(|(mark, place)| ledger.placed(*mark, *place)));
        self.access.wake();
    }

    /// If another program has moved, removed or cut the file, as logrotate does. What was acknowledged is in the file that is
    /// open here, and the next start reads the one at the path.
    fn put_right(&self, file: &mut Arc<File>, compaction: &mut Option<Compaction>) -> io::Result<()> {
        let meta = file.metadata()?;
        if meta.nlink() == 0 || (self.has_identity.get() && !is_at(&meta, &self.path)?) {
            // Its result would replace the new file.
            *compaction = None;
            self.write_again(file, &meta)?;
        }
        if meta.len() < self.length.get() {
            *compaction = None;
            let mut lost = 0;
            self.access.with(&mut |ledger, _| lost = ledger.cut(meta.len()));
            self.errors.fetch_add(1, Ordering::AcqRel);
            let (path, lost) = (self.path.display(), counted(lost, "waiting payment"));
            log::warn!(
                "{path} was cut while in use: {lost} lost. If there is a copy, stop the worker and add the lines of the copy"
            );
        }
        Ok(())
    }

    fn write_again(&self, file: &mut Arc<File>, meta: &fs::Metadata) -> io::Result<()> {
        match is_regular(&self.path) {
            Ok(()) => drop(open(&self.path)?),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why),
        }
        let new = create_new(&self.path, MODE)?;
        copy(file, 0, meta.len(), &new, 0).and_then(|()| put_in_place(&new, &self.path)).inspect_err(|_| {
            let _ = fs::remove_file(new_path(&self.path));
        })?;
        *file = Arc::new(new);
        let mut other = LineReader(Arc::clone(file));
        // The old file is closed, and its blocks are freed, after the lock.
        self.access.with(&mut |_, reader| std::mem::swap(reader, &mut other));
        self.note_identity(file);
        log::warn!("{} was removed or replaced while in use; writing it again", self.path.display());
        Ok(())
    }

    /// On some network file systems an open file and its path have different numbers.
    fn note_identity(&self, file: &File) {
        let same = file.metadata().and_then(|meta| is_at(&meta, &self.path));
        self.has_identity.set(same.unwrap_or(false));
    }

    fn note_length(&self, file: &File) {
        self.length.set(file.metadata().map_or(0, |meta| meta.len()));
    }

    fn is_due(&self, file: &File) -> bool {
        let Ok(length) = file.metadata().map(|meta| meta.len()) else { return false };
        let (compacted, mut over) = (self.compacted.get(), false);
        if length < compacted.saturating_add(GROWN) {
            return false;
        }
        self.access.with(&mut |ledger, _| over = ledger.is_over());
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
                self.note_identity(file);
                self.note_length(file);
                self.cannot_compact.set(None);
                log::info!("compacted {path} from {} to {} bytes", length(&old), length(file));
            }
            Err(why) => self.cannot_compact(&why),
        }
    }

    fn cannot_compact(&self, why: &io::Error) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        if self.cannot_compact.replace(Some(Instant::now())).is_none() {
            let path = self.path.display();
            log::warn!("cannot compact {path}: {}; retrying in 10 minutes", io_words(why));
        }
    }

    fn warn(&self, why: &io::Error) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        // Only the first of several failures: clients must not fill the log.
        if !self.failing.replace(true) {
            log::warn!("cannot write {}: {}", self.path.display(), io_words(why));
        }
    }
}

#[cfg(test)]
mod tests;
