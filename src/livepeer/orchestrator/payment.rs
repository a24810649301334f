//! go-livepeer's `POST /ai/stream/payment`, or whatever TICKET_SUBMIT_URL names: one payment, as it came.

use std::time::Duration;

use super::Orchestrator;
use crate::outgoing::{self, words};

/// The headers of a paid job: tickets, and the job that they pay for.
pub(crate) const PAYMENT_HEADER: &str = "Livepeer-Payment";
pub(crate) const JOB_HEADER: &str = "Livepeer";

const DEADLINE: Duration = Duration::from_secs(10);
/// Of the answer only the start is kept.
const MAX_BODY: u64 = 64 << 10;

/// Why a payment has no answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) why: String,
    /// It may have arrived all the same.
    pub(crate) arrived: bool,
}

impl Orchestrator {
    /// Hands in one payment with the two headers of its job; status and text of the answer.
    ///
    /// # Errors
    /// When there is no whole answer within 10 s.
    pub(crate) fn submit(&self, payment: &str, job: &str) -> Result<(u16, String), NoAnswer> {
        let request = self.agent.post(self.base.as_str()).content_type("application/json");
        let request = request.header(PAYMENT_HEADER, payment).header(JOB_HEADER, job);
        let request = request.config().timeout_global(Some(DEADLINE)).build();
        let mut reply =
            request.send_empty().map_err(|why| NoAnswer { arrived: !outgoing::is_unsent(&why), why: words(&why) })?;
        let status = reply.status().as_u16();
        let text = reply.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        // The status says enough.
        Ok((status, text.unwrap_or_default()))
    }
}
