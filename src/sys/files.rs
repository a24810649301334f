//! Files that one process uses exclusively, and replaces as a whole; device nodes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// This device node is there, and the kernel denies it: a container has it without having been given its device, or
/// systemd's DeviceAllow leaves it out. Opening it instead of asking would wake the device.
pub(crate) fn is_denied(node: &Path) -> bool {
    let to_use = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access(node, to_use) == Err(rustix::io::Errno::PERM)
}

/// Opening a pipe may block indefinitely, and a device cannot store a file.
pub(crate) fn is_regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
}

/// Opens a file exclusively; creates it and its directory where they are missing.
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
    // Its last user may have replaced it before we got the lock.
    if file.metadata()?.nlink() == 0 {
        return Err(io::Error::new(io::ErrorKind::WouldBlock, "another worker is replacing it"));
    }
    Ok(file)
}

pub(crate) fn lock(file: &File) -> io::Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "another worker is using it"))
}

/// The name of the file that is to replace the one at `path`.
pub(crate) fn new_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Creates and locks the file that is to replace the one at `path`. What has its name is removed: it never got there.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = new_path(path);
    let _ = fs::remove_file(&new);
    // What cannot be removed, such as a folder, would be reported as the file that it is not.
    let named = |why: io::Error| match why.kind() {
        io::ErrorKind::AlreadyExists => io::Error::new(why.kind(), format!("{} cannot be removed", new.display())),
        _ => why,
    };
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&new).map_err(named)?;
    lock(&file)?;
    Ok(file)
}

/// Syncs the new file and puts it in the place of the old one.
pub(crate) fn put_in_place(new: &File, path: &Path) -> io::Result<()> {
    new.sync_all()?;
    fs::rename(new_path(path), path)?;
    sync_folder_of(path)
}

/// Replaces the file at `path` by one with these bytes; the new file, locked. A part of it does not stay.
pub(crate) fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<File> {
    let mut new = create_new(path, mode)?;
    let written = new.write_all(bytes).and_then(|()| put_in_place(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(new_path(path));
    }
    written.map(|()| new)
}

/// A new name in a directory survives a power loss only once the directory is synced.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[test]
fn what_was_left_half_written_is_replaced_and_a_failure_leaves_nothing() {
    let dir = std::env::temp_dir().join(format!("agent-net-files-{}", std::process::id()));
    let (path, taken) = (dir.join("file"), dir.join("taken"));
    fs::create_dir_all(taken.join("full")).unwrap();
    // A worker was killed while it wrote.
    fs::write(new_path(&path), "ha").unwrap();
    replace(&path, 0o600, b"whole").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    // No file can take the place of a folder with something in it.
    replace(&taken, 0o600, b"whole").unwrap_err();
    assert!(!new_path(&path).exists() && !new_path(&taken).exists());
    fs::remove_dir_all(dir).unwrap();
}
