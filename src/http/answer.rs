//! Writes answers: head and body in one piece, where they are not very large.

use std::io::{self, Read, Write as _};

use super::peer::Peer;
use super::rouille::HttpAnswer;

/// Bytes of an answer that are copied at a time.
const PIECE: usize = 64 * 1024;

/// How an answer is framed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Framed {
    /// The request was HEAD: nothing follows the head.
    pub(super) head_only: bool,
    /// The connection stays open.
    pub(super) stays: bool,
    /// HTTP/1.0: that the connection stays open is announced.
    pub(super) old: bool,
}

/// What an answer takes of memory while the other side does not read it, in bytes.
pub(super) fn cost(answer: &HttpAnswer) -> usize {
    // One that fits in a piece has been copied whole by then.
    if answer.length > PIECE { answer.length + PIECE } else { answer.length }
}

/// Writes an answer to its end.
///
/// # Errors
/// The kernel's when the other side does not take it.
pub(super) fn send(peer: &mut Peer<'_>, answer: HttpAnswer, framed: Framed) -> io::Result<()> {
    let HttpAnswer { status, headers, mut body, length } = answer;
    let mut left = if framed.head_only || status == 304 { 0 } else { length };
    let mut bytes = Vec::with_capacity(512 + left.min(PIECE));
    write!(bytes, "HTTP/1.1 {status} {}\r\n", reason(status))?;
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    headers.iter().for_each(|(name, value)| put(&[name, ": ", value, "\r\n"]));
    // With 304 it would be that of what the other side has already.
    if status != 304 {
        write!(bytes, "Content-Length: {length}\r\n")?;
    }
    bytes.extend_from_slice(match (framed.stays, framed.old) {
        (false, _) => b"Connection: close\r\n\r\n",
        (true, true) => b"Connection: keep-alive\r\n\r\n",
        (true, false) => b"\r\n",
    });
    loop {
        let piece = left.min(PIECE);
        let before = bytes.len();
        if piece == length {
            body.read_to_end(&mut bytes)?;
        } else {
            body.by_ref().take(piece as u64).read_to_end(&mut bytes)?;
        }
        if bytes.len() - before != piece {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece;
        peer.write(&bytes)?;
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
