//! go-livepeer's `POST /ai/stream/payment`, or another TICKET_SUBMIT_URL: one payment, as received.

use std::io::Read;
use std::time::Duration;

use super::{MAX_BODY, Orchestrator};
use crate::outgoing::{self, words};
use crate::sys::header_names;

const DEADLINE: Duration = Duration::from_secs(10);

/// A payment without an answer.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) why: String,
    /// It may have arrived.
    pub(crate) arrived: bool,
}

impl Orchestrator {
    /// Submits one payment with the two headers of its job; returns status and start of the answer.
    ///
    /// # Errors
    /// When there is no answer within 10 s.
    pub(crate) fn submit(&self, payment: &str, job: &str) -> Result<(u16, String), NoAnswer> {
        let request = self.agent.post(self.base.as_str()).content_type("application/json");
        let request = request.header(header_names::PAYMENT, payment).header(header_names::JOB, job);
        let request = request.config().timeout_global(Some(DEADLINE)).build();
        let mut reply =
            request.send_empty().map_err(|why| NoAnswer { arrived: !outgoing::is_unsent(&why), why: words(&why) })?;
        let status = reply.status().as_u16();
        let mut start = Vec::new();
        // The status counts, even where the body is endless or breaks off.
        let _ = reply.body_mut().as_reader().take(MAX_BODY).read_to_end(&mut start);
        Ok((status, String::from_utf8_lossy(&start).into_owned()))
    }
}
