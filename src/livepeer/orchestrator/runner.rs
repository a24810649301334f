//! go-livepeer's Live Runner registry: discovery, heartbeat, unregister.

use std::io::Read;
use std::time::Duration;

use super::{Orchestrator, RegisterError, UNREGISTER_DEADLINE, no_answer, rejection, text_of};
use crate::config::Secret;
use crate::config::url::HttpUrl;
use crate::livepeer::runner::{self, Beat, BeatAnswer};
use crate::outgoing;
use crate::sys::json::json;
use crate::sys::text::io_words;

/// A registry answers GET /discovery from memory.
const DISCOVERY_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of its list that are read.
const MAX_LIST: u64 = 256 << 10;

/// What GET /discovery shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// There is a registry; whether it lists the runner. None: the list was not read to its end.
    There {
        listed: Option<bool>,
    },
    Absent,
}

impl Orchestrator {
    /// Sends one beat. `own`: the entry's secret, and where to if not to ORCH_URL. Without it this is a first beat, to
    /// ORCH_URL with the orchestrator's secret, which is sent nowhere else.
    pub(crate) fn beat(&self, beat: &Beat<'_>, own: Option<(&str, Option<&HttpUrl>)>, timeout: Duration) -> BeatAnswer {
        let body = json(beat);
        let (secret, to) = match own {
            Some((secret, to)) => (Some(secret), to.unwrap_or(&self.base)),
            None => (self.secret.as_ref().map(Secret::expose), &self.base),
        };
        let failed = |why: &RegisterError| BeatAnswer::Failed { kind: why.kind(), why: why.to_string() };
        match self.send(&to.join("/runners/heartbeat"), secret, "application/json", body.as_bytes(), timeout) {
            Ok((status, text)) => match rejection(status, &text, secret) {
                why @ (RegisterError::PlainHttpToTls | RegisterError::Redirected(_)) => failed(&why),
                _ => runner::beat_answer(status, &text, secret, beat.price_info),
            },
            Err(why) => failed(&why),
        }
    }

    /// Unregisters the entry within 2 s.
    ///
    /// # Errors
    /// Why that may have failed.
    pub(crate) fn leave(&self, id: &str, secret: &str, to: Option<&HttpUrl>) -> Result<(), String> {
        let url = to.unwrap_or(&self.base).join(&format!("/runners/{id}/unregister"));
        match self
            .send(&url, Some(secret), "application/json", b"", UNREGISTER_DEADLINE)
            .map_err(|why| why.to_string())?
        {
            // It is not there.
            (200..=299 | 401 | 404, _) => Ok(()),
            (status, _) => Err(format!("it answered {status}")),
        }
    }

    /// Whether there is such a registry: GET /discovery is public, and lists the runner `id` once that is ready.
    ///
    /// # Errors
    /// Why that is unknown.
    pub(crate) fn discovery(&self, id: &str) -> Result<Discovery, RegisterError> {
        let url = self.base.join("/discovery");
        let reply = outgoing::get(&self.agent, &url, &[], DISCOVERY_DEADLINE);
        let mut reply = reply.map_err(|why| no_answer(&why))?;
        match reply.status().as_u16() {
            200 => {}
            404 => return Ok(Discovery::Absent),
            status => match rejection(status, &text_of(&mut reply)?, None) {
                why @ (RegisterError::PlainHttpToTls | RegisterError::Redirected(_)) => return Err(why),
                _ => return Err(RegisterError::Other(status, "GET /discovery".into())),
            },
        }
        let mut start = Vec::new();
        let read = reply.body_mut().as_reader().take(MAX_LIST).read_to_end(&mut start);
        let text = String::from_utf8_lossy(&start);
        if !runner::lists_runners(&text) {
            return Err(match read {
                Err(why) => RegisterError::NoAnswer(io_words(&why)),
                Ok(_) => RegisterError::Other(200, "GET /discovery does not return a list of runners".into()),
            });
        }
        let whole = read.is_ok_and(|read| (read as u64) < MAX_LIST);
        let listed = text.contains(&format!("/apps/{id}/app"));
        Ok(Discovery::There { listed: (listed || whole).then_some(listed) })
    }
}
