//! One request to a webhook or a push monitor. Its URL is a secret: errors name only the host.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::config::SecretUrl;
use crate::outgoing;

/// Bytes of an answer that are read.
const MAX_BODY: u64 = 64 << 10;

/// A POST, or a GET without a body.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Content-Type and body; None: a GET.
    pub(crate) body: Option<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What the server answered.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Retry-After, as it was sent.
    pub(crate) retry_after: Option<String>,
    /// The start of the body, at most 64 KiB.
    pub(crate) body: String,
}

/// There is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoAnswer {
    pub(crate) why: String,
    /// Nothing was sent: another try cannot repeat the message.
    pub(crate) unsent: bool,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Makes requests with one TLS rule.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    agent: Agent,
}

impl Caller {
    pub(crate) fn new(tls: TlsConfig) -> Self {
        let config = outgoing::settings()
            .tls_config(tls)
            // A connection that is kept would be closed by the time of the next message.
            .max_idle_connections(0)
            .user_agent(concat!("agent-net/", env!("CARGO_PKG_VERSION")));
        Self { agent: outgoing::agent(config.build()) }
    }

    /// `url`: where placeholders have been replaced; its login is that of `of`.
    ///
    /// # Errors
    /// There is no answer within `deadline`.
    pub(crate) fn send(
        &self,
        of: &SecretUrl,
        url: &str,
        message: &Message,
        deadline: Duration,
    ) -> Result<Answer, NoAnswer> {
        let login = of.authorization().map(|login| ("Authorization", login));
        let headers = message.headers.iter().cloned().chain(login);
        let sent = match &message.body {
            None => {
                let request = headers.fold(self.agent.get(url), |request, (name, value)| request.header(name, value));
                request.config().timeout_global(Some(deadline)).build().call()
            }
            Some((kind, body)) => {
                let request = self.agent.post(url).header("Content-Type", *kind);
                let request = headers.fold(request, |request, (name, value)| request.header(name, value));
                request.config().timeout_global(Some(deadline)).build().send(body)
            }
        };
        let no_answer = |why: &ureq::Error| NoAnswer { why: outgoing::words(why), unsent: outgoing::is_unsent(why) };
        let mut reply = sent.map_err(|why| no_answer(&why))?;
        let retry_after = reply.headers().get("Retry-After").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = reply.status().as_u16();
        // The status counts, even where the body is endless or breaks off.
        let mut start = Vec::new();
        let _ = reply.body_mut().as_reader().take(MAX_BODY).read_to_end(&mut start);
        Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&start).into_owned() })
    }
}
