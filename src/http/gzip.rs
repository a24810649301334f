//! gzip (RFC 1952) with the fixed codes of RFC 1951: enough for metrics and markup, which repeat themselves, in 32 KiB of
//! memory that is freed with the answer. And whether a client takes it.

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Magic, deflate, no flags, no time, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

const HASH_BITS: u32 = 13;
/// A shorter repetition is not found.
const LEAST: usize = 4;
const LONGEST: usize = 258;
const WINDOW: usize = 32 * 1024;

/// `body` as one member.
pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD.len() + body.len() / 3);
    out.extend_from_slice(&HEAD);
    let mut bits = Bits { out, held: 0, count: 0 };
    deflate(body, &mut bits);
    let mut out = bits.finish();
    out.extend_from_slice(&CRC.checksum(body).to_le_bytes());
    // Modulo 2^32, as the format wants it.
    #[expect(clippy::cast_possible_truncation, reason = "the format keeps the lower 32 bits")]
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out
}

/// One block that is the last: literals, and repetitions of what the last 32 KiB hold.
fn deflate(body: &[u8], bits: &mut Bits) {
    bits.put(0b011, 3);
    // Where four bytes of this hash stood last, plus one.
    let mut last = vec![0_u32; 1 << HASH_BITS];
    let mut at = 0;
    while at < body.len() {
        let found = see(body, at, &mut last).filter(|(length, _)| *length >= LEAST);
        let Some((length, distance)) = found else {
            bits.literal(body[at]);
            at += 1;
            continue;
        };
        bits.repetition(length, distance);
        for inside in at + 1..at + length {
            see_hash(body, inside, &mut last);
        }
        at += length;
    }
    bits.symbol(256);
}

/// Length and distance of the repetition at `at`, if there may be one.
fn see(body: &[u8], at: usize, last: &mut [u32]) -> Option<(usize, usize)> {
    let before = see_hash(body, at, last)?;
    let distance = at - before;
    let same = body[before..].iter().zip(&body[at..]).take(LONGEST).take_while(|(a, b)| a == b).count();
    (distance <= WINDOW).then_some((same, distance))
}

/// Remembers `at`; where the same hash stood before.
fn see_hash(body: &[u8], at: usize, last: &mut [u32]) -> Option<usize> {
    let four: [u8; 4] = body.get(at..at + LEAST)?.try_into().ok()?;
    let hash = u32::from_le_bytes(four).wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS);
    let next = u32::try_from(at + 1).ok()?;
    let before = std::mem::replace(&mut last[hash as usize], next);
    (before > 0).then(|| before as usize - 1)
}

/// Bits in the order of deflate: the lowest of each byte first.
struct Bits {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// A code of Huffman's: its highest bit comes first.
    fn code(&mut self, code: u32, count: u32) {
        self.put(code.reverse_bits() >> (32 - count), count);
    }

    fn literal(&mut self, byte: u8) {
        self.symbol(u32::from(byte));
    }

    /// A literal, the end of the block (256) or a length, by the fixed table.
    fn symbol(&mut self, symbol: u32) {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// `length` of 3 to 258, `distance` of 1 to 32,768.
    #[expect(clippy::cast_possible_truncation, reason = "both are small")]
    fn repetition(&mut self, length: usize, distance: usize) {
        let (length, distance) = (length as u32 - 3, distance as u32 - 1);
        if length == 255 {
            self.symbol(285);
        } else {
            let extra = length.checked_ilog2().unwrap_or_default().saturating_sub(2);
            let group = if length < 4 { length } else { 4 * (extra + 1) + (length >> extra & 3) };
            self.symbol(257 + group);
            self.put(length & ((1 << extra) - 1), extra);
        }
        let extra = distance.checked_ilog2().unwrap_or_default().saturating_sub(1);
        let group = if distance < 2 { distance } else { 2 * (extra + 1) + (distance >> extra & 1) };
        self.code(group, 5);
        self.put(distance & ((1 << extra) - 1), extra);
    }

    fn finish(mut self) -> Vec<u8> {
        self.put(0, 7);
        self.out
    }
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
