//! Connections to the server on loopback, opened at the start and kept: later there might be no descriptor for one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::TcpStreamExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::head::Head;
use super::trays::Trays;
use crate::pure::body::Body;
use crate::pure::inside;

/// The server answers in microseconds, or in 2 s before the first sample; past this it is broken.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a request waits for one of the connections.
const PATIENCE: Duration = Duration::from_secs(5);
/// No head of an answer is larger.
const MAX_HEAD: u64 = 16 << 10;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    addr: SocketAddr,
    /// Tells the server that it is we who ask.
    secret: String,
    trays: Trays,
    idle: Mutex<Idle>,
    returned: Condvar,
}

#[derive(Debug)]
struct Idle {
    connections: Vec<Connection>,
    /// Requests that wait for one.
    waiting: usize,
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<TcpStream>,
    tray: usize,
}

/// The server's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    /// Lines that are passed on, without those that concern one connection only.
    pub(super) headers: String,
    pub(super) body: Body,
}

impl Pool {
    /// Opens a connection for each of `trays` to the server at `addr`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(addr: SocketAddr, trays: Trays, secret: String) -> io::Result<Self> {
        let one = |tray| Ok(Connection { stream: connect(addr)?, tray });
        let connections = (0..trays.len()).map(one).collect::<io::Result<_>>()?;
        let idle = Mutex::new(Idle { connections, waiting: 0 });
        Ok(Self { addr, secret, trays, idle, returned: Condvar::new() })
    }

    /// Sends one request on and waits for its answer. `body`: None when it was too large. `local`: it is the operator's
    /// own, from this machine.
    ///
    /// # Errors
    /// `WouldBlock` when all connections are taken for too long, else what broke.
    pub(super) fn ask(&self, head: &Head, body: Option<&[u8]>, local: bool) -> io::Result<Answer> {
        let mut connection = self.take()?;
        let request = self.request(head, body, local, connection.tray);
        let answer = self.exchange(&mut connection, &request).or_else(|_| {
            // The server closed this one. Asking twice does no harm: it mostly reads, and a ticket pays once.
            connection.stream = connect(self.addr)?;
            self.exchange(&mut connection, &request)
        });
        if answer.is_err() {
            // The pool keeps its size: a connection that cannot be had now is opened by its next request.
            if let Ok(stream) = connect(self.addr) {
                connection.stream = stream;
            }
        }
        let mut idle = self.idle();
        idle.connections.push(connection);
        if idle.waiting > 0 {
            self.returned.notify_one();
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> io::Result<Connection> {
        let mut idle = self.idle();
        if idle.connections.is_empty() {
            idle.waiting += 1;
            let waited = self.returned.wait_timeout_while(idle, PATIENCE, |idle| idle.connections.is_empty());
            (idle, _) = waited.unwrap_or_else(PoisonError::into_inner);
            idle.waiting -= 1;
        }
        idle.connections.pop().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Only what is used is sent on.
    fn request(&self, head: &Head, body: Option<&[u8]>, local: bool, tray: usize) -> Vec<u8> {
        let method = if head.method == "HEAD" { "GET" } else { &head.method };
        let mut text = format!("{method} {} HTTP/1.1\r\n{}: {}/{tray}\r\n", head.target, inside::SECRET, self.secret);
        let mut put = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        head.passed.iter().for_each(|(name, value)| put(name, value));
        if head.proxied {
            put(inside::PROXIED, "1");
        }
        if local {
            put(inside::LOCAL, "1");
        }
        match body {
            None => put(inside::TOO_LARGE, "1"),
            Some([]) => {}
            Some(body) => put("Content-Length", &body.len().to_string()),
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    fn exchange(&self, connection: &mut Connection, request: &[u8]) -> io::Result<Answer> {
        // Of a request that failed.
        self.trays.take(connection.tray);
        let mut answer = exchange(&mut connection.stream, request)?;
        answer.body = self.trays.take(connection.tray).ok_or_else(unreadable)?;
        Ok(answer)
    }
}

/// A connection that has been answered once. tiny_http queues connections that come in a burst behind threads which
/// serve others, and theirs never end here: an answer proves that this one has a thread of its own.
fn connect(addr: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut stream = BufReader::with_capacity(1024, stream);
    exchange(&mut stream, b"GET / HTTP/1.1\r\n\r\n")?;
    Ok(stream)
}

/// An answer without its body.
fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<Answer> {
    stream.get_mut().write_all(request)?;
    let is_whole = loop {
        match stream.fill_buf().map(|head| head.ends_with(b"\r\n\r\n")) {
            // A helper has ended.
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            whole => break whole?,
        }
    };
    if !is_whole {
        // The server sends a long head in two pieces, of which the second waits 40 ms for a delayed acknowledgement.
        stream.get_ref().set_quickack(true)?;
    }
    let mut head = stream.by_ref().take(MAX_HEAD);
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        head.read_line(line)?;
        if line.ends_with("\r\n") { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
    };
    next(&mut line)?;
    let mut words = line.trim_end().splitn(3, ' ').skip(1);
    let status = words.next().and_then(|code| code.parse().ok()).ok_or_else(unreadable)?;
    let mut answer = Answer { status, reason: words.next().unwrap_or_default().to_owned(), ..Answer::default() };
    let mut length = None;
    loop {
        next(&mut line)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(unreadable)?;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("content-length") {
            length = Some(value.trim() == "0");
        } else if !(is("connection") || is("server")) {
            answer.headers.push_str(&line);
        }
    }
    // A body would be an answer of the server's own, to a request that it did not understand.
    if length == Some(true) { Ok(answer) } else { Err(unreadable()) }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server's answer cannot be read")
}
