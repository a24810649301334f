//! Files with one secret, as Docker and Kubernetes mount them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::text::io_words;

/// A larger file means a mistaken path.
const MAX_BYTES: u64 = 4096;

/// The text of a secret file, trimmed.
///
/// # Errors
/// What is wrong with the file, never its content.
pub(crate) fn read(path: &str) -> Result<String, String> {
    text(path, File::open(path))
}

/// Reads a secret file again while the worker runs. A pipe, such as a shell's `<(...)`, has no writer by then: it reads as
/// empty instead of blocking the thread.
///
/// # Errors
/// As those of [`read`].
pub(crate) fn read_again(path: &str) -> Result<String, String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    text(path, OpenOptions::new().read(true).custom_flags(nonblocking).open(path))
}

fn text(path: &str, file: io::Result<File>) -> Result<String, String> {
    let mut text = String::new();
    let file = file.map_err(|why| format!("cannot open the file{} as {}: {}", mode(path), who(), io_words(&why)))?;
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|why| format!("cannot read the file: {}", io_words(&why)))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("the file is larger than {MAX_BYTES} bytes: check the path"));
    }
    match text.trim() {
        "" => Err("the file is empty".into()),
        secret => Ok(secret.to_owned()),
    }
}

fn mode(path: &str) -> String {
    let meta = std::fs::metadata(path);
    meta.map_or_else(|_| String::new(), |m| format!(" (owner {}:{}, mode {:o})", m.uid(), m.gid(), m.mode() & 0o7777))
}

/// Mounted secrets keep the host's owner and mode: the usual cause.
fn who() -> String {
    format!("user {}, group {}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}
