//! The other side of a connection: its stream, and what was read of it but not used yet.

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use super::budget::Loan;
use super::connections::{ConnectionTable, Entry, LONG_GRACE};
use super::gate::Gate;
use super::head::MAX_HEAD;

/// A client that does not read its answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// A job's request fits in; idle connections keep that much.
const BUFFER: usize = 4 * 1024;
const MAX_BUFFER: usize = MAX_HEAD + BUFFER;
/// Room for a read.
const ROOM: usize = 1024;
const LINGER_BYTES: u64 = 1 << 30;
/// For memory that connections of no use hold: twice their grace. A job may have waited 1.5 s for its turn, and has 2 s.
const MEMORY_TIMEOUT: Duration = Duration::from_millis(500);
const MEMORY_INTERVAL: Duration = Duration::from_millis(25);

pub(super) struct Peer<'a> {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been used.
    used: usize,
    /// For its buffer and a body, and for an answer.
    requests: Loan<'a>,
    answers: Loan<'a>,
    wait: Wait<'a>,
    pub(super) deadline: Instant,
    /// The kernel's, as it was last set.
    read_timeout: Duration,
    /// A read has found that the other side refused what was sent. The kernel says so once.
    was_reset: bool,
}

impl<'a> Peer<'a> {
    /// `entry`: its place in the table; None: it is turned away. None is returned where it has gone already.
    pub(super) fn new(stream: Arc<TcpStream>, gate: &'a Gate, entry: Option<&'a Entry>) -> Option<Self> {
        let timeouts = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_DEADLINE)));
        timeouts.ok()?;
        let (deadline, read_timeout) = (Instant::now(), Duration::ZERO);
        let (requests, answers) = (gate.requests.loan(), gate.answers.loan());
        let wait = Wait { table: &gate.table, entry };
        Some(Self {
            stream,
            buffer: Vec::new(),
            used: 0,
            requests,
            answers,
            wait,
            deadline,
            read_timeout,
            was_reset: false,
        })
    }

    /// Reads more into the buffer; the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `OutOfMemory` when the budget is spent, else the kernel's.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let (length, capacity) = (self.buffer.len(), self.buffer.capacity());
        if capacity - length < ROOM {
            let larger = (capacity * 2).clamp(BUFFER, MAX_BUFFER).max(length + ROOM);
            if !self.wait.hold(&mut self.requests, larger) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.buffer.reserve_exact(larger - length);
        }
        loop {
            self.limit_read()?;
            match rustix::net::recv(&*self.stream, spare_capacity(&mut self.buffer), RecvFlags::empty()) {
                Ok((read, _)) => return Ok(read),
                Err(why) => {
                    let why = io::Error::from(why);
                    if !matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) {
                        self.was_reset |= why.kind() == io::ErrorKind::ConnectionReset;
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Sets how long a read may take.
    fn limit_read(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // In whole seconds it is mostly what the kernel knows already; what is left then is waited for in a second read.
        let timeout = if left.as_secs() > 0 { Duration::from_secs(left.as_secs()) } else { left };
        if timeout != self.read_timeout {
            self.stream.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// It holds `more` beside its buffer. False: the budget is spent.
    #[must_use]
    pub(super) fn hold(&mut self, more: usize) -> bool {
        self.wait.hold(&mut self.requests, self.buffer.capacity() + more)
    }

    /// It holds an answer of that many bytes. False: the budget is spent.
    #[must_use]
    pub(super) fn hold_answer(&mut self, bytes: usize) -> bool {
        self.wait.hold(&mut self.answers, bytes)
    }

    /// Between two requests: gives back what a large one has taken.
    pub(super) fn release(&mut self) {
        if self.rest().is_empty() && self.buffer.capacity() > BUFFER {
            (self.buffer, self.used) = (Vec::new(), 0);
        }
        // It holds less than before.
        let _ = self.hold(0) && self.hold_answer(0);
    }

    /// It has closed at least its side of the connection.
    pub(super) fn is_closed(&self) -> bool {
        let looking = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(&*self.stream, &mut [0; 1], looking), Ok((_, 0)))
    }

    /// It has closed its side without taking the last answer.
    pub(super) fn has_refused(&self) -> bool {
        self.was_reset || !matches!(self.stream.take_error(), Ok(None))
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// `count` bytes of the rest are done with.
    pub(super) fn use_up(&mut self, count: usize) {
        self.used += count;
    }

    /// The next bytes, at least one and at most `max`.
    pub(super) fn some(&mut self, max: usize) -> io::Result<&[u8]> {
        if self.rest().is_empty() && self.fill()? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = self.used;
        self.used += self.rest().len().min(max);
        Ok(&self.buffer[start..self.used])
    }

    /// The next line with its end, or as much of it as `max` bytes hold.
    pub(super) fn line(&mut self, max: usize) -> io::Result<&[u8]> {
        loop {
            let rest = self.rest();
            let end = rest.iter().take(max).position(|b| *b == b'\n').map(|at| at + 1);
            if let Some(length) = end.or((rest.len() >= max).then_some(max)) {
                let start = self.used;
                self.used += length;
                return Ok(&self.buffer[start..self.used]);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }

    /// Reads on until the other side closes, within bounds: closing with unread bytes would be a reset.
    pub(super) fn linger(&mut self, timeout: Duration) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.deadline = Instant::now() + timeout;
        let mut seen = 0;
        while seen < LINGER_BYTES {
            self.used = self.buffer.len();
            match self.fill() {
                Ok(0) | Err(_) => break,
                Ok(read) => seen += read as u64,
            }
        }
    }
}

/// A connection's wait for memory.
struct Wait<'a> {
    table: &'a ConnectionTable,
    entry: Option<&'a Entry>,
}

impl Wait<'_> {
    /// Holds `bytes` of a budget. Where that is not left, connections that are slow to send or do not read are closed, and
    /// what they held is waited for: strangers must not cost an honest client its answer. False: the budget is spent.
    fn hold(&self, loan: &mut Loan<'_>, bytes: usize) -> bool {
        let until = Instant::now() + MEMORY_TIMEOUT;
        while !loan.hold(bytes) {
            // Also before the refusal, which is to be read.
            if let Some(entry) = self.entry {
                entry.delay();
            }
            if Instant::now() >= until {
                return false;
            }
            self.table.close_useless(LONG_GRACE);
            thread::sleep(MEMORY_INTERVAL);
        }
        true
    }
}
