//! One connection from its first byte to its close: requests are read, answered and their answers written by one thread.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::answer::{self, Framed};
use super::body::{self, Body};
use super::connections::Entry;
use super::gate::{Gate, Work};
use super::head::{self, Head};
use super::peer::Peer;
use super::refusal::Refusal;
use super::rouille::{HttpAnswer, Marks, WholeRequest};
use crate::sys::counters::Permit;
use crate::sys::error_codes::ErrorCode;
use crate::sys::header_names;

/// From the first byte, or from the connect, to the end of the head.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that has served a request stays open this long at least: go-livepeer drops a capability when a
/// connection that it wants to use again has been closed. Its own limits are 60 and 90 s.
const IDLE: Duration = Duration::from_secs(150);
/// For a whole body.
const BODY_DEADLINE: Duration = Duration::from_secs(60);
/// After an answer with a request still coming: read on, else the close becomes a reset that destroys the answer.
const LINGER: Duration = Duration::from_secs(30);
/// How long to read on after an answer where a slot is held that others wait for, or everything was read already.
const LINGER_SHORT: Duration = Duration::from_secs(5);
/// For the head of a connection that comes when there are many.
const HEAD_DEADLINE_CROWDED: Duration = Duration::from_secs(1);
/// For other requests to end, where as many as may be are in progress. A job may still wait for a slot and the disk after
/// that, all within 2 s.
const WORK_TIMEOUT: Duration = Duration::from_millis(1500);
/// A job that takes longer has waited for the first sample, for the disk or for a busy machine.
const QUICK: Duration = Duration::from_millis(2);

/// Serves requests until one side closes. `crowded`: others wait for its place.
/// The permit lasts to the end of the first request.
pub(super) fn serve(
    stream: Arc<TcpStream>,
    from: SocketAddr,
    gate: &Gate,
    (entry, mut fresh): (&Entry, Option<Permit>),
    crowded: bool,
) {
    let Some(mut peer) = Peer::new(stream, gate, Some(entry)) else { return };
    let mut wait = if crowded { HEAD_DEADLINE_CROWDED } else { HEAD_DEADLINE };
    let mut answered_job = false;
    loop {
        peer.deadline = Instant::now() + wait;
        peer.release();
        let returned = peer.rest().is_empty();
        if !begins(&mut peer) {
            if answered_job && peer.has_refused() {
                gate.pulse.vanished();
            }
            return;
        }
        let next = exchange(&mut peer, from, gate, entry, returned);
        drop(fresh.take());
        match next {
            Next::Request { job } => (wait, answered_job) = (IDLE, job),
            Next::Linger(timeout) => {
                let _ended = gate.ended.enter(usize::MAX);
                return peer.linger(timeout);
            }
            Next::Close => return,
        }
    }
}

/// Says that there is no room.
pub(super) fn turn_away(stream: Arc<TcpStream>, gate: &Gate) {
    let Some(mut peer) = Peer::new(stream, gate, None) else { return };
    peer.deadline = Instant::now() + HEAD_DEADLINE_CROWDED;
    if !begins(&mut peer) {
        return;
    }
    let why = match read_head(&mut peer) {
        Ok(Some(_)) => Refusal::new(ErrorCode::AtCapacity, "too many connections are open; try again"),
        Ok(None) => return,
        Err(why) => why,
    };
    if let Next::Linger(timeout) = refuse(&mut peer, why, LINGER_SHORT) {
        peer.linger(timeout);
    }
}

/// What comes after an exchange.
enum Next {
    Request {
        /// The one before was a job.
        job: bool,
    },
    /// The answer is sent; the peer may still be writing.
    Linger(Duration),
    Close,
}

/// `returned`: the request was waited for, and had not come along with an earlier one.
fn exchange(peer: &mut Peer<'_>, from: SocketAddr, gate: &Gate, entry: &Entry, returned: bool) -> Next {
    // What came along with a request that was answered before SIGTERM has begun before it as well.
    let late = returned && gate.refusing();
    let Some(_active) = gate.active.enter(usize::MAX) else { return Next::Close };
    let head = match read_head(peer) {
        Ok(Some(head)) => head,
        Ok(None) => return Next::Close,
        Err(why) => return refuse(peer, or_cut_off(why, gate), LINGER),
    };
    let job = head.method == "POST";
    let _job = job.then(|| gate.pulse.job());
    let vanished = || {
        if job {
            gate.pulse.vanished();
        }
    };
    peer.deadline = Instant::now() + BODY_DEADLINE;
    let body = match read_body(peer, &head, gate.limits.body) {
        Ok(body) => body,
        Err(body::Error::Refused(why)) => {
            if matches!(why.code, ErrorCode::IncompleteBody | ErrorCode::Timeout) {
                vanished();
            }
            return refuse(peer, or_cut_off(why, gate), LINGER);
        }
        Err(body::Error::Gone) => {
            vanished();
            return Next::Close;
        }
    };
    let coming = body == Body::Coming;
    if !entry.begin() {
        vanished();
        return Next::Close;
    }
    let (keep_alive, old, head_only) = (head.keep_alive, head.old, head.method == "HEAD");
    let start = Instant::now();
    let answer = answer(peer, from, gate, head, (body, late, start));
    let stays = keep_alive && !coming && !gate.draining();
    // Asking whether the client has closed costs a system call. On a kept connection a quick job saves it: a client that
    // has closed without its answer is noticed while the next request is awaited.
    let closed = job && (!stays || start.elapsed() > QUICK) && peer.is_closed();
    entry.send();
    let written = answer::send(peer, answer, Framed { head_only, stays, old });
    let in_time = entry.end(returned);
    if closed || written.is_err() {
        vanished();
    }
    if written.is_err() || !in_time {
        return Next::Close;
    }
    match (stays, coming) {
        (true, _) => Next::Request { job: job && !closed },
        (false, true) => Next::Linger(LINGER),
        (false, false) => Next::Linger(LINGER_SHORT),
    }
}

/// The answer to a request that was read whole at `start`. `late`: it began after SIGTERM.
fn answer(
    peer: &mut Peer<'_>,
    from: SocketAddr,
    gate: &Gate,
    head: Head,
    (body, late, start): (Body, bool, Instant),
) -> HttpAnswer {
    let job = head.method == "POST";
    let work = match job {
        true => Work::Job,
        false if gate.service.is_probe(&head.target) => Work::Probe,
        false => Work::Read,
    };
    let permit = gate.work(work, WORK_TIMEOUT);
    let has_token = head.passed.iter().any(|(name, _)| name == header_names::AUTHORIZATION);
    let Head { method, target, passed: headers, proxied, gzip, .. } = head;
    let (body, surplus) = (body.whole(), permit.is_none());
    let marks = Marks { proxied, gzip, late, waited: start.elapsed(), surplus };
    let answer = gate.service.answer(WholeRequest { from, method, target, headers, body, marks });
    if job && answer.status == 401 {
        gate.pulse.denied(has_token);
    }
    if !peer.hold_answer(answer::cost(&answer)) {
        return HttpAnswer::refused(head::out_of_memory());
    }
    answer
}

/// Waits for the first byte of a request, which starts its clock. False: the peer has nothing more to say.
fn begins(peer: &mut Peer<'_>) -> bool {
    loop {
        // Empty lines before a request are allowed, and some clients send one after a body.
        while peer.rest().starts_with(b"\r\n") {
            peer.use_up(2);
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
fn read_head(peer: &mut Peer<'_>) -> Result<Option<Head>, Refusal> {
    let mut seen = 0;
    loop {
        if let Some(end) = head::end(peer.rest(), seen)? {
            let head = head::parse(&peer.rest()[..end])?;
            peer.use_up(end);
            return Ok(Some(head));
        }
        // The last byte may be a CR whose LF is still to come.
        seen = peer.rest().len().saturating_sub(1);
        match peer.fill() {
            Ok(0) => return Err(Refusal::new(ErrorCode::BadRequest, "the request ends within its head")),
            Ok(_) => {}
            Err(why) => match why.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    return Err(Refusal::new(ErrorCode::Timeout, "the request's head did not come in time"));
                }
                io::ErrorKind::OutOfMemory => return Err(head::out_of_memory()),
                _ => return Ok(None),
            },
        }
    }
}

fn read_body(peer: &mut Peer<'_>, head: &Head, max: usize) -> Result<Body, body::Error> {
    if head.expects_continue && peer.rest().is_empty() {
        if body::announced_too_large(head.framing, max) {
            // Without a 100 the peer keeps its body, or sends it after a second all the same.
            return Ok(Body::Coming);
        }
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| body::Error::Gone)?;
    }
    body::read(peer, head.framing, max)
}

/// Why there is no whole request: `why`, or that the worker leaves and does not wait for the rest. An orchestrator's gateway
/// sends a job that gets a 503 to another worker.
fn or_cut_off(why: Refusal, gate: &Gate) -> Refusal {
    if gate.deaf.load(Ordering::Acquire) {
        Refusal::new(
            ErrorCode::Draining,
            "this worker is shutting down and the request has not come whole; send it again",
        )
    } else {
        why
    }
}

/// An error after which the start of the next request is unknown.
fn refuse(peer: &mut Peer<'_>, why: Refusal, timeout: Duration) -> Next {
    match answer::send(peer, HttpAnswer::refused(why), Framed::default()) {
        Ok(()) => Next::Linger(timeout),
        Err(_) => Next::Close,
    }
}
