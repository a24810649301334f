//! The payment headers of a job, and why they are rejected.

use std::fmt;

/// The headers of a payment, as received. Never shown: anyone who has them can spend them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tickets {
    /// `Livepeer-Payment`.
    pub(crate) payment: String,
    /// `Livepeer`.
    pub(crate) job: String,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why tickets were rejected, with a message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAccepted {
    /// `bad_payment`: no orchestrator would accept them.
    Invalid(String),
    /// `ticket_reused`: one of them was already used.
    Reused(String),
    /// `ledger_failed`: they cannot be saved; nothing of them is kept.
    Unwritten(String),
}
