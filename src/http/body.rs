//! A request's body: read whole up to the limit; what is larger is thrown away while it comes, so that the peer can
//! finish writing and read the answer. A reset in between makes go-livepeer drop the capability.

use std::io;

use super::head::{Framing, out_of_memory};
use super::peer::Peer;
use super::refusal::Refusal;
use crate::sys::error_codes::ErrorCode;

/// A larger body is not read to its end before the answer.
const MAX_DRAIN: u64 = 8 << 20;
/// Most bytes of all trailers.
const MAX_TRAILERS: usize = 8 * 1024;
/// Most bytes of one chunk's size line, extensions included.
const MAX_SIZE_LINE: usize = 1024;

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Whole(Vec<u8>),
    /// Larger than the limit, read to its end and thrown away.
    Drained,
    /// Larger than that: the rest is still coming.
    Coming,
}

impl Body {
    /// None: it was too large.
    pub(super) fn whole(self) -> Option<Vec<u8>> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Drained | Self::Coming => None,
        }
    }
}

/// Why there is no body.
#[derive(Debug)]
pub(super) enum Error {
    Refused(Refusal),
    /// The client is gone.
    Gone,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::UnexpectedEof => {
                Refusal::new(ErrorCode::IncompleteBody, "the body is shorter than announced; send it whole").into()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Refusal::new(ErrorCode::Timeout, "the body did not come in time; send it in one go").into()
            }
            io::ErrorKind::OutOfMemory => out_of_memory().into(),
            _ => Self::Gone,
        }
    }
}

/// Known to be too large before a byte of it was read.
pub(super) fn announced_too_large(framing: Framing, max: usize) -> bool {
    matches!(framing, Framing::Length(length) if length > max as u64)
}

/// Reads the body from `peer`, at most `max` bytes of it into memory.
///
/// # Errors
/// 400 for a broken or incomplete body, 408 for one that does not come.
pub(super) fn read(peer: &mut Peer<'_>, framing: Framing, max: usize) -> Result<Body, Error> {
    let mut sink = Sink { kept: Vec::new(), max, seen: 0 };
    match framing {
        Framing::Length(length) if length > MAX_DRAIN => return Ok(Body::Coming),
        Framing::Length(length) => sink.take(peer, length)?,
        Framing::Chunked => loop {
            let size = chunk_size(peer)?;
            if size == 0 {
                trailers(peer)?;
                break;
            }
            if size > MAX_DRAIN || sink.seen + size > MAX_DRAIN {
                return Ok(Body::Coming);
            }
            sink.take(peer, size)?;
            if peer.line(2)? != b"\r\n" {
                return Err(broken("a chunk is longer than its size").into());
            }
        },
    }
    Ok(if sink.seen > max as u64 { Body::Drained } else { Body::Whole(sink.kept) })
}

fn broken(what: &str) -> Refusal {
    Refusal::new(ErrorCode::BadFraming, format!("the chunked body is broken: {what}"))
}

struct Sink {
    kept: Vec<u8>,
    max: usize,
    seen: u64,
}

impl Sink {
    fn take(&mut self, peer: &mut Peer<'_>, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let piece = peer.some(usize::try_from(left).unwrap_or(usize::MAX))?;
            left -= piece.len() as u64;
            self.seen += piece.len() as u64;
            if self.seen <= self.max as u64 {
                self.kept.extend_from_slice(piece);
                // Twice: for the handler, which reads it.
                if !peer.hold(2 * self.kept.capacity()) {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
            } else {
                self.kept = Vec::new();
            }
        }
        Ok(())
    }
}

fn chunk_size(peer: &mut Peer<'_>) -> Result<u64, Error> {
    let line = peer.line(MAX_SIZE_LINE)?;
    // httparse takes white space where none is allowed, and a bare LF.
    let honest = line.ends_with(b"\r\n") && line.first().is_some_and(u8::is_ascii_hexdigit);
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((_, size))) if honest => Ok(size),
        _ => Err(broken("a chunk's size is not a hexadecimal number").into()),
    }
}

fn trailers(peer: &mut Peer<'_>) -> Result<(), Error> {
    let mut left = MAX_TRAILERS;
    loop {
        let line = peer.line(left)?;
        if line == b"\r\n" {
            return Ok(());
        }
        left = left.saturating_sub(line.len());
        if !line.ends_with(b"\r\n") || left == 0 {
            return Err(broken("its trailers are too large or not ended by CR LF").into());
        }
    }
}
