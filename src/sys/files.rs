//! Files that one process owns alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// To open a pipe may take for ever, and a device is no place for minutes.
pub(crate) fn is_regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

/// Opens a file, alone; it and its folder are made where they are missing.
pub(crate) fn open_alone(path: &Path, mode: u32) -> io::Result<File> {
    if let Some(dir) = path.parent().filter(|dir| !dir.is_dir()) {
        fs::create_dir_all(dir)?;
    }
    match is_regular(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path)?;
    lock(&file)?;
    // Whoever had it may have put another one in its place before the lock was ours.
    if file.metadata()?.nlink() == 0 {
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "another worker replaces it at this moment"));
    }
    Ok(file)
}

pub(crate) fn lock(file: &File) -> io::Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|why| io::Error::new(io::ErrorKind::WouldBlock, format!("another worker uses it ({why})")))
}

/// What is in a folder is on the disk itself only when the folder is.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
