//! STATE_DIR/control.sock, through which `agent-net ack` reaches the worker. Only the worker's user and root can open it,
//! and no client on the network can. A header or a loopback address would prove nothing behind a proxy.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::sys::files::lock;
use crate::sys::threads;

const NAME: &str = "control.sock";
const MODE: u32 = 0o600;
/// A request is a word and the end of its line.
const MAX_REQUEST: usize = 64;
const MAX_ANSWER: u64 = 1 << 20;
/// For a whole request, and for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a command waits: other commands may be first.
const CLIENT_DEADLINE: Duration = Duration::from_secs(10);
/// Commands that wait while one is answered.
const QUEUE: i32 = 8;
/// A socket that cannot be made is retried after this long.
const RETRY: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Why a command got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// No worker listens there.
    NoWorker(String),
    Other(String),
}

/// Answers requests to the socket in `dir` in a thread of its own, one after the other. A disk that hangs stops nothing else.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(dir: &str, answer: impl Fn(&str) -> String + Send + 'static) -> io::Result<()> {
    let path = Path::new(dir).join(NAME);
    let work = move || {
        let (listener, _folder) = open(&path);
        loop {
            match listener.accept() {
                // A panic, or a silent peer, ends one request only.
                Ok((peer, _)) => drop(panic::catch_unwind(AssertUnwindSafe(|| exchange(peer, &answer)))),
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    };
    threads::service("control", work)
}

/// Makes the socket; retries until that succeeds.
fn open(path: &Path) -> (UnixListener, Option<File>) {
    let mut failing = false;
    loop {
        match make(path) {
            Ok(made) => return made,
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    let (path, pid) = (path.display(), std::process::id());
                    log::warn!("cannot listen on {path}: {why}; agent-net ack --pid {pid} works without it");
                }
                thread::sleep(RETRY);
            }
        }
    }
}

/// The socket, and its folder, which stays locked while it is open: otherwise two workers that start at the same time could
/// both remove a socket as left behind, the new one of the other included.
fn make(path: &Path) -> io::Result<(UnixListener, Option<File>)> {
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
    Ok((socket.into(), folder))
}

/// A socket outlives a worker that was killed.
fn remove_if_left_behind(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(found) if !found.file_type().is_socket() => return Err(io::Error::other("not a socket; remove it")),
        Ok(_) => {}
    }
    match connect(unconnected(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Ok(()) | Err(Errno::AGAIN) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another worker listens there")),
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

/// Reads one request and answers it.
fn exchange(mut peer: UnixStream, answer: &impl Fn(&str) -> String) -> io::Result<()> {
    let end = Instant::now() + DEADLINE;
    let mut request = Vec::new();
    while !request.ends_with(b"\n") && request.len() < MAX_REQUEST {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        peer.set_read_timeout(Some(left))?;
        let mut some = [0; MAX_REQUEST];
        match peer.read(&mut some)? {
            0 => break,
            read => request.extend_from_slice(&some[..read]),
        }
    }
    peer.set_write_timeout(Some(DEADLINE))?;
    peer.write_all(answer(String::from_utf8_lossy(&request).trim_end()).as_bytes())
}

/// The answer of the worker that uses `dir` to a request of one word.
///
/// # Errors
/// Why there is no answer, and what to do.
pub(crate) fn ask(dir: &str, request: &str) -> Result<String, NoAnswer> {
    let path = Path::new(dir).join(NAME);
    exchange_with(&path, request).map_err(|why| no_answer(&path, &why))
}

fn exchange_with(path: &Path, request: &str) -> io::Result<String> {
    let socket = unconnected(SocketFlags::CLOEXEC)?;
    // It holds for connect as well.
    set_socket_timeout(&socket, Timeout::Send, Some(CLIENT_DEADLINE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(CLIENT_DEADLINE))?;
    connect(&socket, &address(path)?)?;
    let mut peer = UnixStream::from(socket);
    peer.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    peer.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

fn no_answer(path: &Path, why: &io::Error) -> NoAnswer {
    let path = path.display();
    match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidFilename => {
            NoAnswer::NoWorker(format!("no worker listens on {path} ({why})"))
        }
        io::ErrorKind::PermissionDenied => {
            NoAnswer::Other(format!("{path}: {why}; run this as the user of the worker, or as root"))
        }
        _ => NoAnswer::Other(format!("the worker does not respond on {path}: {why}; check its log, or restart it")),
    }
}
