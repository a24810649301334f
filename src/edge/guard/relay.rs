//! Connections to the server on loopback, opened at the start and kept: later there might be no descriptor for one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::TcpStreamExt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::head::Head;
use crate::pure::inside;

/// The server answers in microseconds, or in 2 s before the first sample; past this it is broken.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a request waits for one of the connections.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is larger: 10,000 models are about 2 MiB.
const MAX_ANSWER: u64 = 32 << 20;
const MAX_LINE: u64 = 16 << 10;

/// The connections.
#[derive(Debug)]
pub(crate) struct Pool {
    addr: SocketAddr,
    /// Tells the server that it is we who ask.
    secret: String,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
    returned: Condvar,
}

/// The server's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    /// Lines that are passed on, without those that concern one connection only.
    pub(super) headers: String,
    pub(super) body: Vec<u8>,
}

impl Pool {
    /// Opens `size` connections to the server at `addr`.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(addr: SocketAddr, size: usize, secret: String) -> io::Result<Self> {
        let idle = (0..size).map(|_| connect(addr)).collect::<io::Result<_>>()?;
        Ok(Self { addr, secret, idle: Mutex::new(idle), returned: Condvar::new() })
    }

    /// Sends one request on and waits for its answer. `body`: None when it was too large. `local`: it is the operator's
    /// own, from this machine.
    ///
    /// # Errors
    /// `WouldBlock` when all connections are taken for too long, else what broke.
    pub(super) fn ask(&self, head: &Head, body: Option<&[u8]>, local: bool) -> io::Result<Answer> {
        let mut connection = self.take()?;
        let request = self.request(head, body, local);
        let answer = exchange(&mut connection, &request).or_else(|_| {
            // The server closed this one. Asking twice does no harm: it mostly reads, and a ticket pays once.
            connection = connect(self.addr)?;
            exchange(&mut connection, &request)
        });
        let keep = match &answer {
            Ok(_) => Some(connection),
            // The pool keeps its size as long as the server can be reached.
            Err(_) => connect(self.addr).ok(),
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(keep);
        self.returned.notify_one();
        answer
    }

    fn take(&self) -> io::Result<BufReader<TcpStream>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.returned.wait_timeout_while(idle, PATIENCE, |idle| idle.is_empty());
        let (mut idle, _) = waited.unwrap_or_else(PoisonError::into_inner);
        idle.pop().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// HTTP/1.0, so that tiny_http answers with a length and never in chunks. Only what is used is sent on.
    fn request(&self, head: &Head, body: Option<&[u8]>, local: bool) -> Vec<u8> {
        let method = if head.method == "HEAD" { "GET" } else { &head.method };
        let mut text = format!(
            "{method} {} HTTP/1.0\r\nConnection: keep-alive\r\n{}: {}\r\n",
            head.target,
            inside::SECRET,
            self.secret
        );
        let mut put = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
        head.passed.iter().for_each(|(name, value)| put(name, value));
        if head.proxied {
            put(inside::PROXIED, "1");
        }
        if local {
            put(inside::LOCAL, "1");
        }
        if body.is_none() {
            put(inside::TOO_LARGE, "1");
        }
        put("Content-Length", &body.unwrap_or_default().len().to_string());
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }
}

/// A connection that has been answered once. tiny_http queues connections that come in a burst behind threads which
/// serve others, and theirs never end here: an answer proves that this one has a thread of its own.
fn connect(addr: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut connection = BufReader::new(stream);
    exchange(&mut connection, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")?;
    Ok(connection)
}

fn exchange(connection: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<Answer> {
    connection.get_mut().write_all(request)?;
    // The server writes head and body apart: with a delayed acknowledgement the body would come 40 ms later.
    connection.get_ref().set_quickack(true)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the server's answer cannot be read");
    let status_line = line(connection)?;
    let mut words = status_line.splitn(3, ' ').skip(1);
    let status = words.next().and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    let mut answer = Answer { status, reason: words.next().unwrap_or_default().to_owned(), ..Answer::default() };
    let mut length = None;
    loop {
        let header = line(connection)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok(),
            "connection" | "transfer-encoding" | "server" => {}
            _ => answer.headers.push_str(&format!("{header}\r\n")),
        }
    }
    let length: u64 = length.filter(|length| *length <= MAX_ANSWER).ok_or_else(bad)?;
    answer.body = vec![0; usize::try_from(length).map_err(|_| bad())?];
    let mut rest = answer.body.as_mut_slice();
    while !rest.is_empty() {
        if connection.buffer().is_empty() {
            // The kernel forgets it as a long body goes on, whose end would then come 40 ms late.
            connection.get_ref().set_quickack(true)?;
        }
        match connection.read(rest)? {
            0 => return Err(bad()),
            read => rest = &mut rest[read..],
        }
    }
    Ok(answer)
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    connection.by_ref().take(MAX_LINE).read_line(&mut line)?;
    let text = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(text.to_owned())
}
