//! Makes a smaller file that takes the old one's place: in steps, between which lines are appended to the old one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::livepeer::tickets::ledger::{Lines, Sieve};

use super::lines::{Pages, Scan};
use super::{Books, new_path};

/// Bytes of the old file that are looked at, and put onto the disk, before lines that wait are written.
const STEP: u64 = 1 << 20;

/// A new file that is being written. Dropped before its end, it leaves nothing.
pub(super) struct Compaction {
    path: PathBuf,
    old: Arc<File>,
    new: Arc<File>,
    scan: Scan,
    /// None: it is done.
    sieve: Option<Sieve>,
    /// Bytes of the new file.
    written: u64,
    /// Where lines begin that are taken over as they are, and the next of these in the old file.
    rest: Option<(u64, u64)>,
}

impl Compaction {
    /// None: there is no ledger.
    pub(super) fn start(path: &Path, file: &Arc<File>, books: &dyn Books) -> io::Result<Option<Self>> {
        let until = file.metadata()?.len();
        let scan = Scan::new(file, until)?;
        let Some(sieve) = books.sieve(until) else { return Ok(None) };
        let new = Arc::new(super::make(path)?);
        let (path, old) = (path.to_owned(), Arc::clone(file));
        Ok(Some(Self { path, old, new, scan, sieve: Some(sieve), written: 0, rest: None }))
    }

    /// One step; the new file, once it is in its place.
    pub(super) fn step(&mut self, books: &dyn Books) -> io::Result<Option<Arc<File>>> {
        match self.rest {
            None => self.sift(books)?,
            Some((base, at)) => {
                let length = self.old.metadata()?.len();
                let upto = length.min(at.saturating_add(STEP));
                let count = upto.checked_sub(at).ok_or(io::ErrorKind::UnexpectedEof)?;
                self.copy(at, count)?;
                self.rest = Some((base, upto));
                if upto == length {
                    self.finish(base, books)?;
                    return Ok(Some(Arc::clone(&self.new)));
                }
            }
        }
        self.new.sync_data()?;
        Ok(None)
    }

    fn sift(&mut self, books: &dyn Books) -> io::Result<()> {
        let mut out = Vec::new();
        let mut looked_at = 0;
        while looked_at < STEP {
            let (Some(piece), Some(sieve)) = (self.scan.next().map_err(io::Error::other)?, &mut self.sieve) else {
                let Some(sieve) = &self.sieve else { break };
                out.extend(sieve.summary().as_bytes());
                self.rest = Some((self.written + out.len() as u64, sieve.until()));
                break;
            };
            looked_at += piece.place.length;
            let (mut sifted, to) = (Default::default(), self.written + out.len() as u64);
            books.with(&mut |ledger, _| sifted = ledger.sift(sieve, &piece, to));
            if sifted.kept {
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
            out.extend(sifted.more.as_bytes());
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

    fn finish(&mut self, base: u64, books: &dyn Books) -> io::Result<()> {
        super::put_in_place(&self.new, &self.path)?;
        if let Some(sieve) = self.sieve.take() {
            let (mut sieve, new) = (Some(sieve), Pages(Arc::clone(&self.new)));
            books.with(&mut |ledger, pages| {
                if let Some(sieve) = sieve.take() {
                    ledger.compacted(sieve, base);
                }
                *pages = new.clone();
            });
        }
        Ok(())
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        if self.sieve.is_some() {
            let _ = fs::remove_file(new_path(&self.path));
        }
    }
}

/// Copies a part of a file into another.
pub(super) fn copy(old: &File, mut from: u64, length: u64, new: &File, mut to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let end = from + length;
    while from < end {
        let most = usize::try_from(end - from).unwrap_or(usize::MAX).min(buffer.len());
        let count = old.read_at(&mut buffer[..most], from)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        new.write_all_at(&buffer[..count], to)?;
        from += count as u64;
        to += count as u64;
    }
    Ok(())
}
