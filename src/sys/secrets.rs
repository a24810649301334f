//! Files that hold one secret, as Docker and Kubernetes mount them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// Larger is no secret but a mistaken path.
const MAX_BYTES: u64 = 4096;

/// The text of a secret file without surrounding blanks.
///
/// # Errors
/// One sentence that says what is wrong with the file, never what is in it.
pub(crate) fn read(path: &str) -> Result<String, String> {
    text(path, File::open(path))
}

/// The same while the worker runs. A pipe, such as a shell's `<(...)`, has no writer then: it reads as empty, and does not
/// block the thread.
///
/// # Errors
/// As those of [`read`].
pub(crate) fn read_again(path: &str) -> Result<String, String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    text(path, OpenOptions::new().read(true).custom_flags(nonblocking).open(path))
}

fn text(path: &str, file: io::Result<File>) -> Result<String, String> {
    let mut text = String::new();
    let file = file.map_err(|why| format!("the file{} cannot be opened ({why}) by {}", mode(path), who()))?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|why| format!("the file cannot be read ({why})"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("the file is larger than {MAX_BYTES} bytes: it is no secret"));
    }
    match text.trim() {
        "" => Err("the file is empty".into()),
        secret => Ok(secret.to_owned()),
    }
}

fn mode(path: &str) -> String {
    let meta = std::fs::metadata(path);
    meta.map_or_else(|_| String::new(), |m| format!(" of owner {}:{}, mode {:o},", m.uid(), m.gid(), m.mode() & 0o7777))
}

/// Mounted secrets keep the owner and mode of the host, which is the usual mistake.
fn who() -> String {
    format!("user {} of group {}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}
