//! go-livepeer's Live Runner registry: whether there is one, one beat, and the way out.

use std::io::Read;
use std::time::Duration;

use super::{Orchestrator, RegisterError, UNREGISTER_DEADLINE, judge, no_answer, short_text};
use crate::config::Secret;
use crate::config::url::HttpUrl;
use crate::livepeer::runner::{self, Answer, Beat};
use crate::outgoing;

/// Answers are half a KiB of JSON.
const MAX_BODY: u64 = 64 << 10;
/// For GET /discovery, which a registry answers from memory.
const DISCOVERY_DEADLINE: Duration = Duration::from_secs(5);
/// Of its list, however long it is, this much is looked at.
const MAX_LIST: u64 = 256 << 10;

/// What GET /discovery says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// There is a registry; whether it lists the runner, as far as the list was read.
    There {
        listed: Option<bool>,
    },
    Absent,
}

impl Orchestrator {
    /// Sends one beat with the entry's own `secret`, to `to` if that is given; or to ORCH_URL as a first one with the
    /// orchestrator's secret, which goes nowhere else.
    pub(crate) fn beat(&self, beat: &Beat<'_>, own: Option<(&str, Option<&HttpUrl>)>, patience: Duration) -> Answer {
        let body = match serde_json::to_vec(beat) {
            Ok(body) => body,
            Err(why) => return Answer::Refused(why.to_string()),
        };
        let (secret, to) = match own {
            Some((secret, to)) => (Some(secret), to.unwrap_or(&self.base)),
            None => (self.secret.as_ref().map(Secret::expose), &self.base),
        };
        let trouble = |why: &RegisterError| Answer::Trouble { kind: why.kind(), why: why.to_string() };
        match self.send(&to.join("/runners/heartbeat"), secret, &body, patience) {
            Ok((status, text)) => match judge(status, &text, secret.is_some()) {
                why @ (RegisterError::PlainHttpToTls | RegisterError::Redirected(_)) => trouble(&why),
                _ => runner::judge(status, &text, beat.price_info),
            },
            Err(why) => trouble(&why),
        }
    }

    /// Takes the entry out of the registry, within 2 s.
    ///
    /// # Errors
    /// One sentence when that is not known to have worked.
    pub(crate) fn leave(&self, id: &str, secret: &str, to: Option<&HttpUrl>) -> Result<(), String> {
        let url = to.unwrap_or(&self.base).join(&format!("/runners/{id}/unregister"));
        match self.send(&url, Some(secret), b"", UNREGISTER_DEADLINE).map_err(|why| why.to_string())? {
            // What is not there needs no way out.
            (200..=299 | 401 | 404, _) => Ok(()),
            (status, _) => Err(format!("it answered {status}")),
        }
    }

    /// Whether there is such a registry: GET /discovery shows it to everybody, with the runner `id` if that is ready.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) fn discovery(&self, id: &str) -> Result<Discovery, RegisterError> {
        let url = self.base.join("/discovery");
        let reply = outgoing::get(&self.agent, &url, &[], DISCOVERY_DEADLINE);
        let mut reply = reply.map_err(|why| no_answer(&why))?;
        match reply.status().as_u16() {
            200 => {}
            404 => return Ok(Discovery::Absent),
            status => match judge(status, &short_text(&mut reply)?, false) {
                why @ (RegisterError::PlainHttpToTls | RegisterError::Redirected(_)) => return Err(why),
                _ => return Err(RegisterError::Other(status, "GET /discovery".into())),
            },
        }
        let mut start = Vec::new();
        let read = reply.body_mut().as_reader().take(MAX_LIST).read_to_end(&mut start);
        let text = String::from_utf8_lossy(&start);
        if !runner::lists_runners(&text) {
            return Err(match read {
                Err(why) => RegisterError::NoAnswer(why.to_string()),
                Ok(_) => RegisterError::Other(200, "its GET /discovery does not answer with a list of runners".into()),
            });
        }
        let whole = read.is_ok_and(|read| (read as u64) < MAX_LIST);
        let listed = text.contains(&format!("/apps/{id}/app"));
        Ok(Discovery::There { listed: (listed || whole).then_some(listed) })
    }

    fn send(
        &self,
        url: &str,
        secret: Option<&str>,
        body: &[u8],
        patience: Duration,
    ) -> Result<(u16, String), RegisterError> {
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(secret) = secret {
            request = request.header("Authorization", secret);
        }
        let request = request.config().timeout_global(Some(patience)).build();
        let mut reply = request.send(body).map_err(|why| no_answer(&why))?;
        let text = reply.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        Ok((reply.status().as_u16(), text.map_err(|why| no_answer(&why))?))
    }
}
