//! Compressed answers: members of gzip, and whether a client takes them.

use std::thread;

use miniz_oxide::inflate::decompress_to_vec;

use super::gzip_member::{self, HEAD};

/// More takes longer and saves little of what we send.
const LEVEL: u8 = 3;
/// The compressor's state begins on the stack, and a connection's is too small for it.
const STACK: usize = 1 << 20;
/// Check and length.
const TAIL: usize = 8;

/// `body` as one member; None: the machine gives no thread for it. The 400 KiB that this takes are freed with the answer.
pub(super) fn gzip(body: Vec<u8>) -> Option<Vec<u8>> {
    let compress = move || gzip_member::member(&body, LEVEL);
    thread::Builder::new().name("gzip".into()).stack_size(STACK).spawn(compress).ok()?.join().ok()
}

/// The body of a member of ours.
pub(super) fn unpacked(member: &[u8]) -> Vec<u8> {
    let deflated = member.get(HEAD.len()..member.len().saturating_sub(TAIL)).unwrap_or_default();
    decompress_to_vec(deflated).unwrap_or_default()
}

/// What the lines of Accept-Encoding say of gzip so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Accepted {
    gzip: Option<bool>,
    /// `*`: any coding that is not named.
    any: Option<bool>,
}

impl Accepted {
    /// One element of the list: `gzip`, `gzip;q=0.5`, `*`.
    pub(super) fn see(&mut self, element: &[u8]) {
        let mut parts = element.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let is_zero = |part: &[u8]| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.starts_with(b"0") && weight.iter().all(|b| matches!(b, b'0' | b'.')))
        };
        let wanted = !parts.any(is_zero);
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            self.gzip = Some(wanted);
        } else if coding == b"*" {
            self.any = Some(wanted);
        }
    }

    pub(super) fn takes_gzip(self) -> bool {
        self.gzip.or(self.any).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
