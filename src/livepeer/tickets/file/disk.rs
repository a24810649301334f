//! The ledger's file on the disk: opened exclusively, and appended to.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::sys::files::{new_path, open_alone, sync_folder_of};

pub(crate) const NAME: &str = "tickets.jsonl";
/// Anyone who can read tickets can spend them.
pub(super) const MODE: u32 = 0o600;

/// Appends and syncs; an incomplete write is removed again. Returns where the text begins.
pub(super) fn append(file: &File, text: &str) -> io::Result<u64> {
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    // An unfinished line must not run into the next one.
    let end = if last == [b'\n'] { "" } else { "\n" };
    let written = file.write_all_at([end, text].concat().as_bytes(), before).and_then(|()| file.sync_data());
    if written.is_err() {
        file.set_len(before)?;
    }
    written.map(|()| before + end.len() as u64)
}

/// Opens the file exclusively; only its owner can read it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = open_alone(path, MODE)?;
    // A new file that never replaced the old one.
    let _ = fs::remove_file(new_path(path));
    sync_folder_of(path)?;
    Ok(file)
}

/// This open file is the one at `path`.
pub(super) fn is_at(file: &Metadata, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok((file.dev(), file.ino()) == (found.dev(), found.ino())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

/// Copies a part of a file to another.
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
