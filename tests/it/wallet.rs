//! A gateway's account: makes payments with real signatures, encoded by hand and not by the code under test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k256::ecdsa::SigningKey;
use sha3::{Digest, Keccak256};

/// A payer whose tickets are for one recipient.
pub struct Wallet {
    key: SigningKey,
    /// Tickets with the same parameters, of which only the nonce differs.
    pub rand_hash: [u8; 32],
}

const RECIPIENT: [u8; 20] = [0x79; 20];
/// 0.001 ETH, 29000 gwei on average.
const FACE_VALUE: u64 = 1_000_000_000_000_000;
const WIN_PROB: &str = "3357970587882169667283558565251949327744829555303576357144269965000000000000";

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn word(bytes: &[u8]) -> Vec<u8> {
    [vec![0; 32 - bytes.len()], bytes.to_vec()].concat()
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number > 127 {
        out.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A field of protobuf that holds bytes.
pub fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn scalar(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

impl Wallet {
    /// `seed` makes the account and its tickets.
    pub fn new(seed: u64) -> Self {
        let key = SigningKey::from_slice(&keccak(&seed.to_be_bytes())).unwrap();
        Self { key, rand_hash: keccak(&[b"rand".as_slice(), &seed.to_be_bytes()].concat()) }
    }

    pub fn address(&self) -> [u8; 20] {
        let point = self.key.verifying_key().to_sec1_point(false);
        keccak(&point.as_bytes()[1..])[12..].try_into().unwrap()
    }

    fn win_prob() -> Vec<u8> {
        let number: num_bigint::BigUint = WIN_PROB.parse().unwrap();
        number.to_bytes_be()
    }

    /// The hash of a ticket.
    pub fn hash(&self, nonce: u32) -> [u8; 32] {
        let parts = [
            RECIPIENT.to_vec(),
            self.address().to_vec(),
            word(&FACE_VALUE.to_be_bytes()),
            word(&Self::win_prob()),
            word(&nonce.to_be_bytes()),
            self.rand_hash.to_vec(),
            word(&7_u64.to_be_bytes()),
            vec![0xab; 32],
        ];
        keccak(&parts.concat())
    }

    /// r, s and v.
    pub fn sign(&self, hash: &[u8; 32]) -> Vec<u8> {
        let message = keccak(&[b"\x19Ethereum Signed Message:\n32".as_slice(), hash].concat());
        let (signature, id) = self.key.sign_prehash_recoverable(&message);
        [signature.to_bytes().to_vec(), vec![27 + id.to_byte()]].concat()
    }

    /// The value of `Livepeer-Payment` with tickets of these nonces.
    pub fn payment(&self, nonces: impl IntoIterator<Item = u32>) -> String {
        let signed = nonces.into_iter().map(|nonce| (nonce, self.sign(&self.hash(nonce))));
        self.payment_of(&signed.collect::<Vec<_>>())
    }

    /// The same with given signatures.
    pub fn payment_of(&self, tickets: &[(u32, Vec<u8>)]) -> String {
        let expiration = [scalar(1, 7), field(2, &[0xab; 32])].concat();
        let params = [
            field(1, &RECIPIENT),
            field(2, &trimmed(&FACE_VALUE.to_be_bytes())),
            field(3, &Self::win_prob()),
            field(4, &self.rand_hash),
            field(5, &[1; 32]),
            field(6, &[1, 2, 3]),
            field(7, &expiration),
        ];
        let mut out = [field(1, &params.concat()), field(2, &self.address()), field(3, &expiration)].concat();
        for (nonce, signature) in tickets {
            let nonce = if *nonce == 0 { Vec::new() } else { scalar(1, u64::from(*nonce)) };
            out.extend(field(4, &[nonce, field(2, signature)].concat()));
        }
        out.extend(field(5, &[scalar(1, 483_333_333_333), scalar(2, 1)].concat()));
        STANDARD.encode(out)
    }
}
