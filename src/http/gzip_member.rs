//! A member of gzip (RFC 1952): a deflate stream with head and check. build.rs contains this file, too.

use crc::{CRC_32_ISO_HDLC, Crc};
use miniz_oxide::deflate::compress_to_vec;

pub(crate) const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Magic, deflate, no flags, no time, unknown system.
pub(crate) const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// `body` as one member. `level`: 1 to 10, of which more takes longer.
pub(crate) fn member(body: &[u8], level: u8) -> Vec<u8> {
    let mut out = HEAD.to_vec();
    out.extend_from_slice(&compress_to_vec(body, level));
    out.extend_from_slice(&CRC.checksum(body).to_le_bytes());
    // Modulo 2^32, as the format wants it.
    #[expect(clippy::cast_possible_truncation, reason = "the format keeps the lower 32 bits")]
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out
}
