//! How a listening socket passes from `agent-net hold-port` to a worker: as SCM_RIGHTS beside one byte, over a Unix socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::listen::is_listening;
use crate::sys::unix_socket;

/// The holder answers from memory.
const DEADLINE: Duration = Duration::from_secs(2);
const SPACE: usize = rustix::cmsg_space!(ScmRights(1));

/// The address that the holder behind `path` holds.
///
/// # Errors
/// As those of [`take`].
pub(crate) fn held_address(path: &Path) -> io::Result<SocketAddr> {
    take(path)?.0.local_addr()
}

/// A timeout of a socket reads "resource temporarily unavailable".
fn late(why: Errno) -> io::Error {
    match why {
        Errno::AGAIN => io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", DEADLINE.as_secs())),
        why => why.into(),
    }
}

/// Gives the socket to a worker. A peer that does not read is not waited for.
///
/// # Errors
/// The kernel's.
pub(crate) fn give(peer: &UnixStream, listener: &TcpListener) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(peer, &[IoSlice::new(b"1")], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The socket of the holder behind `path`, and the connection to it, which ends with the holder.
///
/// # Errors
/// No holder answers there, or not with a listening socket.
pub(super) fn take(path: &Path) -> io::Result<(TcpListener, UnixStream)> {
    let holder = unix_socket::connect_to(path, DEADLINE)?;
    let (mut byte, mut space) = ([0], [MaybeUninit::uninit(); SPACE]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&holder, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).map_err(late)?;
    let passed = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    let listening = passed.filter(is_listening).ok_or_else(|| io::Error::other("it gives no listening TCP socket"))?;
    Ok((listening.into(), holder))
}
