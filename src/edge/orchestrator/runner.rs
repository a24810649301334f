//! go-livepeer's Live Runner registry: one beat, and the way out.

use std::time::Duration;

use super::{Orchestrator, REGISTER_DEADLINE, UNREGISTER_DEADLINE};
use crate::outbound::{self, words};
use crate::pure::config::Secret;
use crate::pure::runner::{self, Answer, Beat};

/// Answers are half a KiB of JSON.
const MAX_BODY: u64 = 64 << 10;

impl Orchestrator {
    /// Sends one beat, with the entry's own `secret`, or as a first one with the orchestrator's.
    pub(crate) fn beat(&self, beat: &Beat<'_>, secret: Option<&str>, patience: Duration) -> Answer {
        let body = match serde_json::to_vec(beat) {
            Ok(body) => body,
            Err(why) => return Answer::Refused(why.to_string()),
        };
        match self.send("/runners/heartbeat", secret.or(self.secret.as_ref().map(Secret::expose)), &body, patience) {
            Ok((status, text)) => runner::judge(status, &text),
            Err(why) => Answer::Trouble(why),
        }
    }

    /// Takes the entry out of the registry, within 2 s.
    ///
    /// # Errors
    /// One sentence when that is not known to have worked.
    pub(crate) fn leave(&self, id: &str, secret: &str) -> Result<(), String> {
        match self.send(&format!("/runners/{id}/unregister"), Some(secret), b"", UNREGISTER_DEADLINE)? {
            // What is not there needs no way out.
            (200..=299 | 401 | 404, _) => Ok(()),
            (status, _) => Err(format!("it answered {status}")),
        }
    }

    /// Whether there is such a registry: GET /discovery shows it to everybody.
    ///
    /// # Errors
    /// One sentence when nobody answers.
    pub(crate) fn has_runners(&self) -> Result<bool, String> {
        let reply = outbound::get(&self.agent, &self.base.join("/discovery"), &[], REGISTER_DEADLINE);
        reply.map(|reply| reply.status().as_u16() == 200).map_err(|why| format!("no answer: {}", words(&why)))
    }

    fn send(&self, path: &str, secret: Option<&str>, body: &[u8], patience: Duration) -> Result<(u16, String), String> {
        let mut request = self.agent.post(self.base.join(path)).content_type("application/json");
        if let Some(secret) = secret {
            request = request.header("Authorization", secret);
        }
        let request = request.config().timeout_global(Some(patience)).build();
        let mut reply = request.send(body).map_err(|why| words(&why))?;
        let text = reply.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        Ok((reply.status().as_u16(), text.map_err(|why| words(&why))?))
    }
}
