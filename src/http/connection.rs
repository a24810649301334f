//! One connection from its first byte to its close.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;
use tiny_http::{Answer, Header};

use super::Gate;
use super::body::{self, Body};
use super::connections::Seat;
use super::head::{self, Head, Refusal, refusal};
use super::inside;
use super::relay;

/// From the first byte, or from the connect, to the end of the head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that has served a request stays open this long at least: go-livepeer drops a capability when a
/// connection that it wants to use again has been closed. Its own limits are 60 and 90 s.
const IDLE: Duration = Duration::from_secs(150);
/// For a whole body.
const BODY_DEADLINE: Duration = Duration::from_secs(60);
/// A peer that does not read its answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// After an answer with a request still coming: read on, else the close becomes a reset that destroys the answer.
const LINGER: Duration = Duration::from_secs(30);
/// The same where a slot is held that others wait for, or everything was read already.
const LINGER_SHORT: Duration = Duration::from_secs(5);
/// For the head of a connection that comes when there are many.
const HEAD_DEADLINE_CROWDED: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 1 << 30;

const BUFFER: usize = 8 * 1024;
/// Bytes of an answer that are in memory at a time: a slow reader holds no more.
const PIECE: usize = 64 * 1024;

/// The other side: its stream and what was read of it but not used yet.
pub(super) struct Peer {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been used.
    used: usize,
    deadline: Instant,
    /// What the kernel was told last.
    read_timeout: Duration,
}

impl Peer {
    fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new(), used: 0, deadline: Instant::now(), read_timeout: Duration::ZERO }
    }

    /// Reads more into the buffer; the number of bytes, 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        let before = self.buffer.len();
        self.buffer.resize(before + BUFFER, 0);
        let read = loop {
            if let Err(why) = self.limit_read() {
                break Err(why);
            }
            match (&*self.stream).read(&mut self.buffer[before..]) {
                Err(why) if matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                read => break read,
            }
        };
        self.buffer.truncate(before + read.as_ref().map_or(0, |n| *n));
        read
    }

    /// Tells the kernel how long a read may take.
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

    /// It has closed at least its side: go-livepeer does so when its client gave up, others when they have nothing more
    /// to say. The answer is written all the same.
    fn has_left(&self) -> bool {
        let looking = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(&*self.stream, &mut [0; 1], looking), Ok((_, 0)))
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
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
}

/// Serves requests until one side closes. `crowded`: others wait for its place.
pub(super) fn serve(stream: Arc<TcpStream>, gate: &Gate, seat: &Seat, crowded: bool) {
    let Some(mut peer) = prepare(stream) else { return };
    let mut wait = if crowded { HEAD_DEADLINE_CROWDED } else { HEAD_DEADLINE };
    loop {
        peer.deadline = Instant::now() + wait;
        let returned = peer.rest().is_empty();
        if !begins(&mut peer) {
            return;
        }
        match exchange(&mut peer, gate, seat, returned) {
            Next::Request => wait = IDLE,
            Next::Linger(patience) => return linger(&mut peer, patience),
            Next::Close => return,
        }
    }
}

/// Says that there is no room.
pub(super) fn turn_away(stream: Arc<TcpStream>, gate: &Gate) {
    let Some(mut peer) = prepare(stream) else { return };
    peer.deadline = Instant::now() + HEAD_DEADLINE_CROWDED;
    if !begins(&mut peer) {
        return;
    }
    let why = match read_head(&mut peer) {
        Ok(Some(_)) => refusal(503, "at_capacity", "too many connections are open; try again"),
        Ok(None) => return,
        Err(why) => why,
    };
    if let Next::Linger(patience) = last_words(&mut peer, gate, &why, LINGER_SHORT) {
        linger(&mut peer, patience);
    }
}

/// None: it has gone already.
fn prepare(stream: Arc<TcpStream>) -> Option<Peer> {
    let timeouts = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_DEADLINE)));
    timeouts.is_ok().then(|| Peer::new(stream))
}

/// What comes after an exchange.
enum Next {
    Request,
    /// The answer is sent; the peer may still be writing.
    Linger(Duration),
    Close,
}

/// `returned`: the request was waited for, and had not come along with an earlier one.
fn exchange(peer: &mut Peer, gate: &Gate, seat: &Seat, returned: bool) -> Next {
    let late = gate.draining();
    let Some(_ticket) = gate.active.enter(usize::MAX) else { return Next::Close };
    let head = match read_head(peer) {
        Ok(Some(head)) => head,
        Ok(None) => return Next::Close,
        Err(why) => return last_words(peer, gate, &why, LINGER),
    };
    let job = head.method == "POST";
    let _job = job.then(|| gate.pulse.job());
    let vanished = || {
        if job {
            gate.pulse.vanished();
        }
    };
    peer.deadline = Instant::now() + BODY_DEADLINE;
    let body = match read_body(peer, &head, gate.max_body) {
        Ok(body) => body,
        Err(body::Error::Refused(why)) => {
            if matches!(why.code, "incomplete_body" | "timeout") {
                vanished();
            }
            return last_words(peer, gate, &why, LINGER);
        }
        Err(body::Error::Gone) => {
            vanished();
            return Next::Close;
        }
    };
    let coming = body == Body::Coming;
    if !seat.begin() {
        vanished();
        return Next::Close;
    }
    let answer = match relay::ask(gate, &head, body.whole(), late) {
        Ok(answer) => answer,
        Err(why) => return last_words(peer, gate, &no_answer(&why), LINGER),
    };
    if job && answer.status == 401 {
        gate.pulse.denied(head.passed.iter().any(|(name, _)| *name == inside::AUTHORIZATION));
    }
    let stays = head.keep_alive && !coming && !gate.draining();
    let left = peer.has_left();
    seat.send();
    let written = send(&peer.stream, answer, &head, stays);
    let in_time = seat.end(returned);
    if left || written.is_err() {
        vanished();
    }
    if written.is_err() || !in_time {
        return Next::Close;
    }
    match (stays, coming) {
        (true, _) => Next::Request,
        (false, true) => Next::Linger(LINGER),
        (false, false) => Next::Linger(LINGER_SHORT),
    }
}

/// What the peer is told when the server behind gave no answer.
fn no_answer(why: &io::Error) -> Refusal {
    if why.kind() == io::ErrorKind::WouldBlock {
        return refusal(503, "at_capacity", "too many requests are under way; try again");
    }
    log::error!("the server behind the public port does not answer: {why}");
    refusal(500, "internal", "the worker failed at this request; try again")
}

/// Waits for the first byte of a request, which starts its clock. False: the peer has nothing more to say.
fn begins(peer: &mut Peer) -> bool {
    loop {
        // Empty lines before a request are allowed, and some clients send one after a body.
        while peer.rest().starts_with(b"\r\n") {
            peer.used += 2;
        }
        if !peer.rest().is_empty() {
            peer.deadline = peer.deadline.min(Instant::now() + HEAD_DEADLINE);
            return true;
        }
        if !matches!(peer.fill(), Ok(1..)) {
            return false;
        }
    }
}

/// The head of a request that has begun; None when the peer is gone.
fn read_head(peer: &mut Peer) -> Result<Option<Head>, Refusal> {
    let mut seen = 0;
    loop {
        if let Some(end) = head::end(peer.rest(), seen)? {
            let head = head::parse(&peer.rest()[..end])?;
            peer.used += end;
            return Ok(Some(head));
        }
        // The last byte may be a CR whose LF is still to come.
        seen = peer.rest().len().saturating_sub(1);
        match peer.fill() {
            Ok(0) => return Err(refusal(400, "bad_request", "the request ends within its head")),
            Ok(_) => {}
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(refusal(408, "timeout", "the request's head did not come in time"));
            }
            Err(_) => return Ok(None),
        }
    }
}

fn read_body(peer: &mut Peer, head: &Head, max: usize) -> Result<Body, body::Error> {
    if head.expects_continue && peer.rest().is_empty() {
        if body::announced_too_large(head.framing, max) {
            // Without a 100 the peer keeps its body, or sends it after a second all the same.
            return Ok(Body::Coming);
        }
        (&*peer.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| body::Error::Gone)?;
    }
    body::read(peer, head.framing, max)
}

/// Head and body leave in one write, if the body is no larger than a piece.
fn send(mut stream: &TcpStream, answer: Answer, head: &Head, stays: bool) -> io::Result<()> {
    let Answer { status, headers, mut data, length } = answer;
    let Some(length) = length else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut left = if head.method == "HEAD" || status == 304 { 0 } else { length };
    let mut bytes = Vec::with_capacity(512 + left.min(PIECE));
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    put(&["HTTP/1.1 ", &status.to_string(), " ", reason(status), "\r\n"]);
    headers.iter().for_each(|Header { field, value }| put(&[field, ": ", value, "\r\n"]));
    // With 304 it would be that of what the other side has already.
    if status != 304 {
        put(&["Content-Length: ", &length.to_string(), "\r\n"]);
    }
    put(&[match (stays, head.old) {
        (false, _) => "Connection: close\r\n\r\n",
        (true, true) => "Connection: keep-alive\r\n\r\n",
        (true, false) => "\r\n",
    }]);
    loop {
        let piece = left.min(PIECE);
        if data.by_ref().take(piece as u64).read_to_end(&mut bytes)? < piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece;
        stream.write_all(&bytes)?;
        if left == 0 {
            return Ok(());
        }
        bytes.clear();
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// An error after which nobody knows where the next request would begin.
fn last_words(peer: &mut Peer, gate: &Gate, why: &Refusal, patience: Duration) -> Next {
    let retry = if why.status == 503 { "Retry-After: 1\r\n" } else { "" };
    let body = (gate.error_body)(why.code, &why.message);
    let text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\n{retry}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        why.status,
        reason(why.status),
        body.len()
    );
    if (&*peer.stream).write_all(text.as_bytes()).is_err() {
        return Next::Close;
    }
    Next::Linger(patience)
}

/// Reads on until the peer closes, within bounds: closing with unread bytes would be a reset.
fn linger(peer: &mut Peer, patience: Duration) {
    let _ = peer.stream.shutdown(Shutdown::Write);
    peer.deadline = Instant::now() + patience;
    let mut seen = 0;
    while seen < LINGER_BYTES {
        peer.used = peer.buffer.len();
        match peer.fill() {
            Ok(0) | Err(_) => break,
            Ok(read) => seen += read as u64,
        }
    }
}
