//! Hashes that stay the same over releases and machines.

use sha3::{Digest, Keccak256};

/// The first 64 bits of keccak-256 of the parts, each with its length in front.
pub(crate) fn hash64(parts: &[&str]) -> u64 {
    let mut hash = Keccak256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let whole: [u8; 32] = hash.finalize().into();
    let (first, _) = whole.split_first_chunk().unwrap_or_else(|| unreachable!("32 bytes have eight"));
    u64::from_be_bytes(*first)
}

#[test]
fn parts_do_not_run_together() {
    assert_eq!(hash64(&["a", "bc"]), hash64(&["a", "bc"]));
    assert_ne!(hash64(&["a", "bc"]), hash64(&["ab", "c"]));
    assert_ne!(hash64(&[]), hash64(&[""]));
}
