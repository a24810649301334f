//! Unix sockets with a name in a folder, for programs of the same user.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::files::lock;

/// Only the same user and root can open it.
const MODE: u32 = 0o600;
/// Clients that wait while one is served.
const QUEUE: i32 = 8;

/// The socket at `path`. Its folder is locked meanwhile: otherwise two programs that start at the same time could both remove
/// a socket as left behind, the new one of the other included.
///
/// # Errors
/// The kernel's; that another program listens there, or (`WouldBlock`) makes a socket in this folder at this moment.
pub(crate) fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let address = address(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    // Some folders cannot be read, and some network file systems have no locks.
    let folder = File::open(dir).ok();
    match folder.as_ref().map(lock) {
        Some(Err(why)) if why.kind() == io::ErrorKind::WouldBlock => return Err(why),
        _ => {}
    }
    remove_if_left_behind(path, &address)?;
    let socket = unconnected(SocketFlags::CLOEXEC)?;
    bind(&socket, &address)?;
    // A client cannot connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&socket, QUEUE)?;
    Ok(socket.into())
}

/// A connection to the socket at `path`; `timeout` holds for the connect and for each read and write after it.
///
/// # Errors
/// The kernel's.
pub(crate) fn connect_to(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = unconnected(SocketFlags::CLOEXEC)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    connect(&socket, &address(path)?)?;
    Ok(socket.into())
}

/// A socket outlives a program that was killed.
fn remove_if_left_behind(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(found) if !found.file_type().is_socket() => return Err(io::Error::other("not a socket; remove it")),
        Ok(_) => {}
    }
    match connect(unconnected(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Ok(()) | Err(Errno::AGAIN) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process is using it")),
        Err(why) => Err(why.into()),
    }
}

fn unconnected(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|why| match why {
        Errno::NAMETOOLONG => io::Error::new(io::ErrorKind::InvalidFilename, "the path is too long for a socket"),
        why => why.into(),
    })
}
