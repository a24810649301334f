//! The keys by which payments and tickets are known in memory.

use crate::livepeer::payments::ticket::Hash;

/// A hash folded to 64 bits, enough to tell a million tickets apart. A client that finds a collision only gets its own
/// second ticket rejected.
pub(crate) type Key = u64;

pub(crate) fn key_of(hash: &Hash) -> Key {
    let (words, _) = hash.as_chunks::<8>();
    words.iter().fold(0, |key, word| key ^ u64::from_be_bytes(*word))
}

/// 32 bytes from `0x` and 64 digits.
pub(crate) fn hash_of(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 64)?.as_bytes();
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(hash)
}
