//! A small file that one worker replaces as a whole. Of two workers with one STATE_DIR the first one writes it; the other one
//! can read it, and writes it when the first one has ended.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{open_alone, replace};
use super::text::io_words;

#[derive(Debug)]
pub(crate) struct OwnFile {
    path: PathBuf,
    mode: u32,
    /// It is locked.
    locked: Option<File>,
    /// That it cannot be written was logged.
    failing: bool,
}

impl OwnFile {
    /// `mode`: of a file that is created.
    pub(crate) fn new(path: &Path, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, locked: None, failing: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file where it is missing, and locks it.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        if self.locked.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.nlink() > 0)) {
            return Ok(());
        }
        self.locked = None;
        match is_own(&self.path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => self.locked = Some(open_alone(&self.path, self.mode)?),
        }
        Ok(())
    }

    /// For reading: one that cannot be written, or that another worker uses, may be readable all the same.
    pub(crate) fn readable(&self) -> io::Result<File> {
        is_own(&self.path).and_then(|()| File::open(&self.path))
    }

    /// Replaces it by one with these bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open()?;
        self.locked = Some(replace(&self.path, self.mode, bytes)?);
        Ok(())
    }

    /// Logs the first of several failures to open or write it, and their end. `so`: what a failure means.
    pub(crate) fn log(&mut self, done: io::Result<()>, so: &str) {
        let path = self.path.display();
        match done {
            Ok(()) if std::mem::take(&mut self.failing) => log::info!("{path} can be written again"),
            Err(why) if !std::mem::replace(&mut self.failing, true) => {
                log::warn!("cannot write {path}: {}; {so}", io_words(&why));
            }
            _ => {}
        }
    }
}

/// A link in its place could lead anywhere.
fn is_own(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}
