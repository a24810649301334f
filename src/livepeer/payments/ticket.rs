//! One ticket: its hash, who signed it, whether it wins (`pm/ticket.go`, `crypto/verify.go`, `pm/validator.go`).

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use sha3::{Digest, Keccak256};

use super::amount::max_uint256;
use super::odds;

/// Bytes of a signature: r, s and v.
const SIGNATURE: usize = 65;

pub(crate) type Hash = [u8; 32];

/// An Ethereum address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) [u8; 20]);

impl std::fmt::Display for Address {
    /// With the upper-case letters of EIP-55, which reveal typing errors.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lower = hex(&self.0);
        let check = keccak(&[&lower.as_bytes()[2..]]);
        let upper = |at: usize| (check[at / 2] >> (if at.is_multiple_of(2) { 4 } else { 0 })) & 0xf >= 8;
        f.write_str("0x")?;
        for (at, letter) in lower[2..].chars().enumerate() {
            write!(f, "{}", if upper(at) { letter.to_ascii_uppercase() } else { letter })?;
        }
        Ok(())
    }
}

/// The fields of a ticket; all tickets of a payment share everything but the nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) recipient: Address,
    pub(crate) sender: Address,
    /// Wei.
    pub(crate) face_value: BigInt,
    pub(crate) win_prob: BigInt,
    pub(crate) nonce: u32,
    pub(crate) recipient_rand_hash: Hash,
    pub(crate) creation_round: i64,
    pub(crate) creation_round_block_hash: Hash,
}

impl Ticket {
    pub(crate) fn ev(&self) -> BigRational {
        odds::expected_value(&self.face_value, &self.win_prob)
    }

    /// keccak-256 of its fields, tightly packed.
    pub(crate) fn hash(&self) -> Hash {
        let nonce = uint256(&self.nonce.into());
        let round = uint256(&self.creation_round.into());
        let dated = self.creation_round != 0 || self.creation_round_block_hash != [0; 32];
        let date: &[&[u8]] = if dated { &[&round, &self.creation_round_block_hash] } else { &[] };
        let (face_value, win_prob) = (uint256(&self.face_value), uint256(&self.win_prob));
        let fields: [&[u8]; 6] =
            [&self.recipient.0, &self.sender.0, &face_value, &win_prob, &nonce, &self.recipient_rand_hash];
        keccak(&[&fields[..], date].concat())
    }

    /// Who signed this hash of a ticket, and whether go-livepeer takes the signature as its sender's.
    pub(crate) fn signer(&self, hash: &Hash, signature: &[u8]) -> Signer {
        let address = recover(hash, signature);
        let fault = form_fault(signature).or(match address {
            None => Some("not a signature of any key"),
            Some(address) if address != self.sender => Some("not the sender's signature"),
            Some(_) => None,
        });
        Signer { address, fault }
    }

    /// Whether it wins: the draw is made of the signature and of a number that only the recipient knows.
    pub(crate) fn wins(&self, signature: &[u8], recipient_rand: &BigInt) -> bool {
        let draw = keccak(&[signature, &uint256(recipient_rand)]);
        BigInt::from_bytes_be(Sign::Plus, &draw) < self.win_prob
    }
}

/// The signer of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signer {
    /// None: not a signature of any key.
    pub(crate) address: Option<Address>,
    /// Why go-livepeer refuses it; None: it is valid and the sender's.
    pub(crate) fault: Option<&'static str>,
}

/// What is wrong with a signature, whoever made it.
pub(crate) fn form_fault(signature: &[u8]) -> Option<&'static str> {
    let [.., v] = signature else { return Some("empty") };
    if signature.len() != SIGNATURE {
        return Some("not 65 bytes long");
    }
    if !matches!(v, 27 | 28) {
        return Some("its last byte is neither 27 nor 28");
    }
    match Signature::from_slice(&signature[..64]) {
        Err(_) => Some("its numbers are outside the curve's order"),
        // The signature with n - s is valid for the same key, too: only one of them is accepted.
        Ok(signature) if signature.normalize_s() != signature => Some("its s is in the upper half of the order"),
        Ok(_) => None,
    }
}

/// The key behind a signature over "\x19Ethereum Signed Message:\n32" and the hash; v of 0 and 1 is understood.
fn recover(hash: &Hash, signature: &[u8]) -> Option<Address> {
    let (numbers, v) = signature.split_at_checked(SIGNATURE - 1)?;
    let &[v] = v else { return None };
    let id = RecoveryId::from_byte(if v >= 27 { v - 27 } else { v }).filter(|id| !id.is_x_reduced())?;
    let signed = keccak(&[b"\x19Ethereum Signed Message:\n32", hash]);
    let key = VerifyingKey::recover_from_prehash(&signed, &Signature::from_slice(numbers).ok()?, id).ok()?;
    let point = key.to_sec1_point(false);
    let digest = keccak(&[&point.as_bytes()[1..]]);
    Some(Address(digest[12..].try_into().ok()?))
}

/// keccak-256 of all parts, one after the other.
pub(crate) fn keccak(parts: &[&[u8]]) -> Hash {
    let mut hasher = Keccak256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// 32 bytes, big-endian; of a larger number the last 32 bytes.
pub(crate) fn uint256(number: &BigInt) -> Hash {
    let bytes = BigUint::to_bytes_be(number.magnitude());
    right_aligned(&bytes)
}

/// As Go's `BytesToAddress` and `BytesToHash`: what is too long keeps its end, what is too short is padded in front.
pub(crate) fn right_aligned<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let kept = &bytes[bytes.len().saturating_sub(N)..];
    out[N - kept.len()..].copy_from_slice(kept);
    out
}

/// `0x` and two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("0x");
    bytes.iter().for_each(|byte| out.push_str(&format!("{byte:02x}")));
    out
}

/// Parses a number of at most 256 bits, decimal or with `0x`.
pub(crate) fn number(text: &str) -> Option<BigInt> {
    let (digits, base) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let sane = (1..=78).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = BigInt::parse_bytes(digits.as_bytes(), base).filter(|_| sane)?;
    Some(number).filter(|number| *number <= max_uint256())
}
