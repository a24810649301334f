//! The headers of a paid job, and why they are not accepted.

use std::fmt;

/// The headers of a payment, as they came. Nobody may see them: whoever has them can spend them.
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

/// Why tickets were not taken: the code of the answer, and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAccepted {
    /// `bad_payment`: no orchestrator would take them.
    Invalid(String),
    /// `ticket_reused`: one of them has paid before.
    Reused(String),
    /// `ledger_failed`: they cannot be written; nothing of them is kept.
    Unwritten(String),
}
