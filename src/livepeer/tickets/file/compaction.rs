//! Writes a smaller file that replaces the old one: in steps, between which lines are appended to the old one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::LedgerAccess;
use super::disk::{MODE, copy};
use super::lines::{LineReader, Scan};
use crate::livepeer::tickets::ledger::compaction::CompactionPlan;
use crate::livepeer::tickets::ledger::lines::Lines;
use crate::sys::files::{create_new, new_path, put_in_place};

/// Bytes of the old file that are read, and written to the disk, before waiting lines are written.
const STEP: u64 = 1 << 20;

/// A compaction under way. Dropped before its end, it leaves nothing.
pub(super) struct Compaction {
    path: PathBuf,
    old: Arc<File>,
    new: Arc<File>,
    scan: Scan,
    /// None: done.
    plan: Option<CompactionPlan>,
    /// Bytes of the new file.
    written: u64,
    /// Where the lines copied unchanged begin, and the next of them in the old file.
    rest: Option<(u64, u64)>,
}

impl Compaction {
    /// None: the ledger has not been read.
    pub(super) fn start(path: &Path, file: &Arc<File>, access: &dyn LedgerAccess) -> io::Result<Option<Self>> {
        let until = file.metadata()?.len();
        let scan = Scan::new(file, until)?;
        let Some(plan) = access.plan_compaction(until) else { return Ok(None) };
        let new = Arc::new(create_new(path, MODE)?);
        let (path, old) = (path.to_owned(), Arc::clone(file));
        Ok(Some(Self { path, old, new, scan, plan: Some(plan), written: 0, rest: None }))
    }

    /// One step; returns the new file once it has replaced the old one.
    pub(super) fn step(&mut self, access: &dyn LedgerAccess) -> io::Result<Option<Arc<File>>> {
        match self.rest {
            None => self.select(access)?,
            Some((base, at)) => {
                let length = self.old.metadata()?.len();
                let upto = length.min(at.saturating_add(STEP));
                let count = upto.checked_sub(at).ok_or(io::ErrorKind::UnexpectedEof)?;
                self.copy(at, count)?;
                self.rest = Some((base, upto));
                if upto == length {
                    self.finish(base, access)?;
                    return Ok(Some(Arc::clone(&self.new)));
                }
            }
        }
        self.new.sync_data()?;
        Ok(None)
    }

    fn select(&mut self, access: &dyn LedgerAccess) -> io::Result<()> {
        let mut out = Vec::new();
        let mut read = 0;
        while read < STEP {
            let (Some(piece), Some(plan)) = (self.scan.next().map_err(io::Error::other)?, &mut self.plan) else {
                let Some(plan) = &self.plan else { break };
                out.extend(plan.summary().as_bytes());
                self.rest = Some((self.written + out.len() as u64, plan.until()));
                break;
            };
            read += piece.place.length;
            let (mut compacted, to) = (Default::default(), self.written + out.len() as u64);
            access.with(&mut |ledger, _| compacted = ledger.compact_line(plan, &piece, to));
            if compacted.kept {
                match piece.bytes {
                    Some(bytes) => out.extend([bytes, b"\n"].concat()),
                    None => {
                        let (place, whole) = (piece.place, piece.whole);
                        self.put(&out)?;
                        self.copy(place.offset, place.length)?;
                        out.clear();
                        out.extend(if whole { "" } else { "\n" }.as_bytes());
                    }
                }
            }
            out.extend(compacted.more.as_bytes());
        }
        self.put(&out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.new.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn copy(&mut self, from: u64, length: u64) -> io::Result<()> {
        copy(&self.old, from, length, &self.new, self.written)?;
        self.written += length;
        Ok(())
    }

    fn finish(&mut self, base: u64, access: &dyn LedgerAccess) -> io::Result<()> {
        put_in_place(&self.new, &self.path)?;
        if let Some(plan) = self.plan.take() {
            let (mut plan, new) = (Some(plan), LineReader(Arc::clone(&self.new)));
            access.with(&mut |ledger, reader| {
                if let Some(plan) = plan.take() {
                    ledger.compacted(plan, base);
                }
                *reader = new.clone();
            });
        }
        Ok(())
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        if self.plan.is_some() {
            let _ = fs::remove_file(new_path(&self.path));
        }
    }
}
