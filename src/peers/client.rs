//! One request to a peer, with a deadline and a size limit.

use std::time::Duration;

use ureq::tls::TlsConfig;
use ureq::{Agent, Error};

use super::report::{self, PeerReport};
use crate::config::SecretUrl;
use crate::outgoing::{self, refusal::error_of};
use crate::sys::text::start;

const DEADLINE: Duration = Duration::from_secs(5);
/// A report of 128 GPUs and hundreds of models fits.
const MAX_BODY: u64 = 1 << 20;
/// Characters of an answer that is shown as an error.
const MAX_SHOWN: usize = 200;

pub(super) struct Client(Agent);

impl Client {
    pub(super) fn new(tls: TlsConfig) -> Self {
        let config = outgoing::settings()
            .tls_config(tls)
            .proxy(None)
            // It would be closed by the time of the next request.
            .max_idle_connections(0)
            .user_agent(concat!("agent-net/", env!("CARGO_PKG_VERSION")));
        Self(outgoing::agent(config.build()))
    }

    /// The report at the base URL `base`, with the login of `peer`.
    ///
    /// # Errors
    /// Why there is none, in words that do not show the login.
    pub(super) fn report(&self, peer: &SecretUrl, base: &str) -> Result<PeerReport, String> {
        let login = peer.authorization();
        let headers: Vec<(&str, &str)> = login.iter().map(|login| ("Authorization", login.as_str())).collect();
        let answer = outgoing::get(&self.0, &format!("{base}/gpu"), &headers, DEADLINE);
        let mut answer = answer.map_err(|why| outgoing::words(&why))?;
        let status = answer.status().as_u16();
        let encoding = answer.headers().get("Content-Encoding").is_some_and(|encoding| encoding != "identity");
        match status {
            200 if encoding => return Err("its answer is compressed, which was not asked for".into()),
            401 if login.is_some() => return Err("401: the login in PEERS is not its WORKER_TOKEN".into()),
            401 => return Err("401: it requires its WORKER_TOKEN: put :WORKER_TOKEN@ before its host in PEERS".into()),
            300..=399 => return Err(format!("{status}: redirects are not followed: put the final URL into PEERS")),
            _ => {}
        }
        let body = answer.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|why| match why {
            Error::BodyExceedsLimit(_) => "its answer is larger than 1 MiB".to_owned(),
            why => outgoing::words(&why),
        })?;
        // It may repeat what was sent.
        let body = peer.without_login(&String::from_utf8_lossy(&body));
        if status == 200 {
            return report::read(&body);
        }
        let said = error_of(&body).unwrap_or(body);
        Err(format!("{status}: {}", start(&said, MAX_SHOWN)))
    }
}
