//! STATE_DIR/control.sock, through which `agent-net ack` reaches the worker. Only the worker's user and root can open it,
//! and no client on the network can. A header or a loopback address would prove nothing behind a proxy.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::threads;
use crate::sys::unix_socket;

const NAME: &str = "control.sock";
/// A request is a word and the end of its line.
const MAX_REQUEST: usize = 64;
const MAX_ANSWER: u64 = 1 << 20;
/// For a whole request, and for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a command waits: other commands may be first.
const CLIENT_DEADLINE: Duration = Duration::from_secs(10);
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
        let listener = open(&path);
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
fn open(path: &Path) -> UnixListener {
    let mut failing = false;
    loop {
        match unix_socket::listen_at(path) {
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
    let mut peer = unix_socket::connect_to(path, CLIENT_DEADLINE)?;
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
