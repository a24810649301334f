//! A payment header: decoded and verified.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use prost::Message;
use serde::Serialize;

use super::amount::{decimal, floor, max_uint256, shown};
use super::odds;
use super::protobuf;
use super::rules::MAX_TICKETS;
use super::ticket::{self, Address, Hash, Signer, Ticket, hex, keccak, right_aligned, uint256};
use crate::sys::order;

/// Longest header, in characters: twice what 600 tickets take.
pub(crate) const MAX_HEADER: usize = 128 * 1024;

/// The tickets of one `Livepeer-Payment` header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Payment {
    /// The fields that all of its tickets share; its nonce is unused.
    shared: Ticket,
    seed: BigInt,
    expiration_block: BigInt,
    /// Wei for a unit, according to the client.
    price: Option<(i64, i64)>,
    /// Each ticket's nonce and signature.
    tickets: Vec<(u32, Vec<u8>)>,
}

/// A verified ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) nonce: u32,
    pub(crate) hash: Hash,
    pub(crate) signer: Signer,
    /// None: unknown without the recipient's random number.
    pub(crate) wins: Option<bool>,
}

impl Payment {
    /// Decodes the header's value: standard base64 of a `net.Payment`.
    ///
    /// # Errors
    /// Why it is not a payment, as a sentence.
    pub(crate) fn decode(header: &str) -> Result<Self, String> {
        let header = header.trim();
        if header.is_empty() {
            return Err("the payment is empty".into());
        }
        if header.len() > MAX_HEADER {
            return Err(format!("the payment is longer than {MAX_HEADER} characters"));
        }
        let bytes = STANDARD.decode(header).map_err(|why| format!("the payment is not valid base64: {why}"))?;
        let payment = protobuf::Payment::decode(bytes.as_slice())
            .map_err(|why| format!("the payment is not a net.Payment of go-livepeer: {why}"))?;
        Self::from_wire(payment)
    }

    fn from_wire(payment: protobuf::Payment) -> Result<Self, String> {
        let Some(params) = payment.ticket_params else {
            return Err("the payment has no ticket parameters: an earlier balance covers the job".into());
        };
        let uint = |bytes: &[u8], name: &str| {
            let number = BigInt::from_bytes_be(Sign::Plus, bytes);
            if number > max_uint256() { Err(format!("{name} is larger than 2^256 - 1")) } else { Ok(number) }
        };
        let expiration = payment.expiration_params.unwrap_or_default();
        Ok(Self {
            shared: Ticket {
                recipient: Address(right_aligned(&params.recipient)),
                sender: Address(right_aligned(&payment.sender)),
                face_value: uint(&params.face_value, "the face value")?,
                win_prob: uint(&params.win_prob, "the win probability")?,
                nonce: 0,
                recipient_rand_hash: right_aligned(&params.recipient_rand_hash),
                creation_round: expiration.creation_round,
                creation_round_block_hash: right_aligned(&expiration.creation_round_block_hash),
            },
            seed: uint(&params.seed, "the seed")?,
            expiration_block: uint(&params.expiration_block, "the expiration block")?,
            price: payment.expected_price.map(|price| (price.price_per_unit, price.pixels_per_unit)),
            tickets: payment.ticket_sender_params.into_iter().map(|one| (one.sender_nonce, one.sig)).collect(),
        })
    }

    /// Verifies every ticket. `recipient_rand` decides which of them win.
    pub(crate) fn verify(&self, recipient_rand: Option<&BigInt>) -> Vec<Verified> {
        let look = |(nonce, signature): &(u32, Vec<u8>)| {
            let ticket = self.ticket(*nonce);
            let hash = ticket.hash();
            let signer = ticket.signer(&hash, signature);
            let wins = recipient_rand.map(|rand| signer.fault.is_none() && ticket.wins(signature, rand));
            Verified { nonce: *nonce, hash, signer, wins }
        };
        self.tickets.iter().map(look).collect()
    }

    /// Whether this is the number behind the payment's `recipient_rand_hash`.
    pub(crate) fn is_rand(&self, recipient_rand: &BigInt) -> bool {
        keccak(&[&uint256(recipient_rand)]) == self.shared.recipient_rand_hash
    }

    /// The hash of every ticket.
    pub(crate) fn hashes(&self) -> Vec<Hash> {
        self.tickets.iter().map(|(nonce, _)| self.ticket(*nonce).hash()).collect()
    }

    fn ticket(&self, nonce: u32) -> Ticket {
        Ticket { nonce, ..self.shared.clone() }
    }

    /// Whether an orchestrator would take it, apart from its signatures.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub(crate) fn check_form(&self) -> Result<(), String> {
        if let Some(problem) = self.form_problems().into_iter().next() {
            return Err(problem);
        }
        let fault = |(nonce, signature): &(u32, Vec<u8>)| ticket::form_fault(signature).map(|fault| (*nonce, fault));
        self.tickets.iter().find_map(fault).map_or(Ok(()), |(nonce, fault)| Err(bad_signature(nonce, fault)))
    }

    /// Whether the sender has signed all tickets, given their hashes. The first wrong signature ends the check, since each takes
    /// time.
    ///
    /// # Errors
    /// The first wrong signature, as a sentence.
    pub(crate) fn check_signatures(&self, hashes: &[Hash]) -> Result<(), String> {
        let ticket = self.ticket(0);
        for ((nonce, signature), hash) in self.tickets.iter().zip(hashes) {
            if let Some(fault) = ticket.signer(hash, signature).fault {
                return Err(bad_signature(*nonce, fault));
            }
        }
        Ok(())
    }

    fn form_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let zero = Address([0; 20]);
        if self.shared.sender == zero {
            problems.push("the sender is the zero address".to_owned());
        }
        if self.shared.recipient == zero {
            problems.push("the recipient is the zero address".to_owned());
        }
        if self.tickets.is_empty() {
            problems.push("it holds no tickets".to_owned());
        }
        if self.tickets.len() > MAX_TICKETS as usize {
            problems.push(format!(
                "it holds {} tickets, at most {MAX_TICKETS} of one kind are accepted",
                self.tickets.len()
            ));
        }
        let mut nonces: Vec<u32> = self.tickets.iter().map(|(nonce, _)| *nonce).collect();
        order::sort(&mut nonces);
        if let Some(twice) = nonces.windows(2).find(|pair| pair[0] == pair[1]) {
            problems.push(format!("two tickets have the nonce {}", twice[0]));
        }
        problems
    }

    /// What every go-livepeer orchestrator refuses in these tickets; each as a sentence.
    pub(crate) fn problems(&self, verified: &[Verified]) -> Vec<String> {
        let mut problems = self.form_problems();
        if let Some((bad, fault)) = verified.iter().find_map(|one| Some((one, one.signer.fault?))) {
            let count = verified.iter().filter(|one| one.signer.fault.is_some()).count();
            problems.push(format!("{count} signatures are not valid; the one with nonce {}: {fault}", bad.nonce));
        }
        problems
    }

    /// The exact expected value of one ticket, in wei.
    pub(crate) fn ev(&self) -> BigRational {
        self.shared.ev()
    }

    pub(crate) fn sender(&self) -> Address {
        self.shared.sender
    }

    pub(crate) fn face_value(&self) -> &BigInt {
        &self.shared.face_value
    }

    pub(crate) fn creation_round(&self) -> i64 {
        self.shared.creation_round
    }

    /// Everything that is known about it.
    pub(crate) fn report(&self, recipient_rand: Option<&BigInt>) -> Report {
        let verified = self.verify(recipient_rand);
        let (ticket, ev) = (&self.shared, self.ev());
        let total = &ev * BigRational::from_integer(verified.len().into());
        Report {
            sender: ticket.sender.to_string(),
            recipient: ticket.recipient.to_string(),
            face_value: ticket.face_value.to_string(),
            win_prob: ticket.win_prob.to_string(),
            probability: decimal(&odds::probability(&ticket.win_prob), 6),
            ev: ev.to_string(),
            ev_floor: floor(&ev).to_string(),
            total_ev: total.to_string(),
            total_ev_floor: floor(&total).to_string(),
            recipient_rand_hash: hex(&ticket.recipient_rand_hash),
            seed: self.seed.to_string(),
            expiration_block: self.expiration_block.to_string(),
            creation_round: ticket.creation_round,
            creation_round_block_hash: hex(&ticket.creation_round_block_hash),
            price: self.price.map(|(units, per)| format!("{units}/{per}")),
            problems: self.problems(&verified),
            tickets: verified.iter().map(TicketReport::of).collect(),
        }
    }
}

fn bad_signature(nonce: u32, fault: &str) -> String {
    format!("the signature of the ticket with nonce {nonce} is not valid: {fault}")
}

/// What `pm ticket` prints. Large numbers are decimal strings, fractions `n/d`, bytes hexadecimal.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    sender: String,
    recipient: String,
    face_value: String,
    win_prob: String,
    probability: String,
    ev: String,
    ev_floor: String,
    total_ev: String,
    total_ev_floor: String,
    recipient_rand_hash: String,
    seed: String,
    expiration_block: String,
    creation_round: i64,
    creation_round_block_hash: String,
    price: Option<String>,
    problems: Vec<String>,
    tickets: Vec<TicketReport>,
}

#[derive(Debug, Serialize)]
struct TicketReport {
    nonce: u32,
    hash: String,
    signer: Option<String>,
    signature_valid: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    wins: Option<bool>,
}

impl TicketReport {
    fn of(ticket: &Verified) -> Self {
        Self {
            nonce: ticket.nonce,
            hash: hex(&ticket.hash),
            signer: ticket.signer.address.map(|address| address.to_string()),
            signature_valid: ticket.signer.fault.is_none(),
            fault: ticket.signer.fault,
            wins: ticket.wins,
        }
    }
}

impl Report {
    /// No problem that every orchestrator refuses.
    pub(crate) fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn json(&self) -> String {
        // Only strings, numbers and lists: it cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    pub(crate) fn text(&self) -> String {
        let face_value: BigInt = self.face_value.parse().unwrap_or_default();
        let mut out = String::new();
        let price = self.price.clone().unwrap_or_else(|| "unknown".into());
        for (name, value) in [
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("face value", &format!("{} wei ({})", self.face_value, shown(&face_value))),
            ("probability", &format!("{} of winning", self.probability)),
            ("expected value", &format!("{} wei a ticket, {} in total", self.ev_floor, self.total_ev_floor)),
            ("price", &format!("{price} wei a unit")),
            ("round", &format!("{} ({})", self.creation_round, self.creation_round_block_hash)),
            ("expires", &format!("at Ethereum's block {}", self.expiration_block)),
        ] {
            out.push_str(&format!("{name:<16}{value}\n"));
        }
        for ticket in &self.tickets {
            let wins = ticket
                .wins
                .map_or("winning is known to the recipient only", |wins| if wins { "WINS" } else { "loses" });
            let fault = ticket.fault.map_or_else(|| "valid".to_owned(), |fault| format!("INVALID: {fault}"));
            out.push_str(&format!("ticket {:<9}{}  signature {fault}; {wins}\n", ticket.nonce, ticket.hash));
        }
        for problem in &self.problems {
            out.push_str(&format!("problem         {problem}\n"));
        }
        out
    }
}
