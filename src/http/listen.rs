//! The public port, for IPv4 and IPv6 where the machine has both.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::fd::OwnedFd;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that the kernel holds until they are accepted.
const QUEUE: i32 = 1024;
/// Bytes that the kernel holds for each connection and direction; it takes twice that. Without a word it takes megabytes,
/// which count as the container's memory.
const SOCKET_BUFFER: usize = 64 * 1024;

/// Listens on `addr`; `::` takes IPv4 as well. `chosen`: the operator named the address. Otherwise `::` becomes 0.0.0.0
/// where there is no IPv6.
///
/// # Errors
/// The kernel's, e.g. when the port is taken.
pub(crate) fn bind(addr: SocketAddr, chosen: bool) -> io::Result<TcpListener> {
    let listener = if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        match both(addr) {
            Err(why) if is_off(why) && chosen => {
                return Err(io::Error::other(format!("{why}; SERVER_HOST=0.0.0.0 listens on IPv4 alone")));
            }
            Err(why) if is_off(why) => {
                log::info!("IPv6 is off here ({why}): listening on IPv4 alone");
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port()))?
            }
            bound => bound?,
        }
    } else {
        TcpListener::bind(addr)?
    };
    adjust(&listener)?;
    Ok(listener)
}

fn adjust(listener: &TcpListener) -> io::Result<()> {
    // Accepted connections inherit them.
    sockopt::set_socket_recv_buffer_size(listener, SOCKET_BUFFER)?;
    sockopt::set_socket_send_buffer_size(listener, SOCKET_BUFFER)?;
    // The standard library asks for 128, systemd for SOMAXCONN.
    Ok(rustix::net::listen(listener, QUEUE)?)
}

/// The listening TCP sockets that systemd passes on (sd_listen_fds), which outlive this process.
///
/// # Errors
/// They are not such sockets; this process must then end, since it may have taken files that are not its own.
pub(crate) fn inherited() -> io::Result<Vec<TcpListener>> {
    let passed = sd_listen_fds::get().map_err(|_| io::Error::other("LISTEN_PID and LISTEN_FDS are not numbers"))?;
    let mut passed = passed.into_iter();
    let mut listeners = Vec::new();
    while let Some((_, fd)) = passed.next() {
        let fd = fd.into_std();
        // The helper must not get it.
        if fcntl_setfd(&fd, FdFlags::CLOEXEC).is_err() {
            // What is not open cannot be closed.
            mem::forget((fd, passed));
            return Err(io::Error::other("LISTEN_FDS is larger than the number of sockets that were passed"));
        }
        if !is_listening(&fd) {
            mem::forget((fd, passed));
            return Err(io::Error::other("LISTEN_FDS: not a listening TCP socket; use ListenStream= with a port"));
        }
        let listener = TcpListener::from(fd);
        adjust(&listener)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

pub(super) fn is_listening(fd: &OwnedFd) -> bool {
    let of_ip = sockopt::socket_domain(fd).is_ok_and(|it| matches!(it, AddressFamily::INET | AddressFamily::INET6));
    of_ip && sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// A socket of both families. net.ipv6.bindv6only=1 would make it one of IPv6 alone, and the standard library cannot say
/// otherwise.
fn both(addr: SocketAddr) -> Result<TcpListener, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    // As the standard library does: a restart need not wait for the connections of the life before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    Ok(TcpListener::from(socket))
}

/// The kernel has no IPv6, or a sandbox keeps it away.
fn is_off(why: Errno) -> bool {
    matches!(why, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PERM | Errno::PROTONOSUPPORT)
}
