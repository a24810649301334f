//! go-livepeer's BYOC registry: register and unregister one capability at one orchestrator.

mod payment;
mod runner;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::config::url::HttpUrl;
use crate::config::{Capability, Secret};
use crate::outgoing::{self, Cause, words};

pub(crate) use runner::Discovery;

const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// SIGTERM is answered soon: an orchestrator that hangs then is left alone.
const UNREGISTER_DEADLINE: Duration = Duration::from_secs(2);
/// Answers are one line of text.
const MAX_BODY: u64 = 64 << 10;

/// Body of `POST /capability/register`; what is not set is left out.
#[derive(Serialize)]
struct Registration<'a> {
    url: &'a str,
    name: &'a str,
    description: &'a str,
    capacity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_per_unit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_scaling: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    /// Jobs in flight: the registry counts them down when they end.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<usize>,
}

/// Why a registration was not taken; Display says what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RegisterError {
    NoAnswer(String),
    Untrusted(String),
    WrongSecret { sent: bool },
    BadBody(String),
    PlainHttpToTls,
    NoByoc,
    Redirected(u16),
    Other(u16, String),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::Untrusted(why) if why.contains("CaUsedAsEndEntity") => write!(
                f,
                "its certificate is not trusted ({why}): it is go-livepeer's own, made at each start, which no check accepts and ORCH_TLS=ca: neither; set ORCH_TLS=insecure, or put a TLS proxy with an ordinary certificate in front"
            ),
            Self::Untrusted(why) => write!(
                f,
                "its certificate is not trusted ({why}): give it one that ORCH_TLS covers, or set ORCH_TLS=insecure for go-livepeer's own"
            ),
            Self::WrongSecret { sent: true } => f.write_str(
                "it refuses the secret: make ORCH_SECRET equal to its -orchSecret, or unset it if the orchestrator has none",
            ),
            Self::WrongSecret { sent: false } => f.write_str("it asks for a secret: set ORCH_SECRET to its -orchSecret"),
            Self::BadBody(text) => write!(f, "it refuses what the CAPABILITY_ settings say: {text}"),
            Self::PlainHttpToTls => f.write_str("its port speaks TLS: write https:// in ORCH_URL"),
            Self::NoByoc => f.write_str(
                "it has no BYOC (404 to /capability/register): ORCH_URL must name an orchestrator's service address",
            ),
            Self::Redirected(status) => write!(f, "it answered {status}: redirects are not followed with a secret; mend ORCH_URL"),
            Self::Other(status, text) => write!(f, "it answered {status}: {text}"),
        }
    }
}

impl RegisterError {
    /// The orchestrator itself has said something.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::WrongSecret { .. } | Self::BadBody(_) | Self::NoByoc)
    }

    /// An answer, but one that says nothing of registries.
    pub(crate) fn is_odd_answer(&self) -> bool {
        matches!(self, Self::Other(..) | Self::Redirected(_))
    }

    /// What metrics call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Untrusted(_) => "untrusted",
            Self::WrongSecret { .. } => "wrong_secret",
            Self::BadBody(_) => "bad_body",
            Self::PlainHttpToTls => "plain_http_to_tls",
            Self::NoByoc => "no_byoc",
            Self::Redirected(_) => "redirected",
            Self::Other(..) => "other",
        }
    }
}

/// One orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Orchestrator {
    agent: Agent,
    base: HttpUrl,
    secret: Option<Secret>,
}

impl Orchestrator {
    pub(crate) fn new(base: HttpUrl, secret: Option<Secret>, tls: TlsConfig) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            // A registration is rare: a connection kept for it would only be found dead the next time.
            .max_idle_connections(0)
            .build();
        Self { agent: outgoing::agent(config), base, secret }
    }

    pub(crate) fn set_secret(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    pub(crate) fn base(&self) -> &HttpUrl {
        &self.base
    }

    pub(crate) fn url(&self) -> &str {
        self.base.as_str()
    }

    /// Puts `name` into the registry, with jobs sent to `worker`.
    ///
    /// # Errors
    /// What the orchestrator has against it.
    pub(crate) fn register(
        &self,
        name: &str,
        worker: &HttpUrl,
        capability: &Capability,
        token: Option<&Secret>,
        load: Option<usize>,
    ) -> Result<(), RegisterError> {
        let body = Registration {
            url: worker.as_str(),
            name,
            description: &capability.description,
            capacity: capability.capacity,
            price_per_unit: capability.price_per_unit,
            price_scaling: capability.price_scaling,
            currency: capability.currency.as_deref(),
            token: token.map(Secret::expose),
            load,
        };
        let body = serde_json::to_vec(&body).map_err(|why| RegisterError::BadBody(why.to_string()))?;
        let (status, text) = self.post("/capability/register", "application/json", &body, REGISTER_DEADLINE)?;
        match status {
            200 => Ok(()),
            _ => Err(judge(status, &text, self.secret.is_some())),
        }
    }

    /// Takes `name` out of the registry; its body is the bare name.
    ///
    /// # Errors
    /// What the orchestrator has against it.
    pub(crate) fn unregister(&self, name: &str) -> Result<(), RegisterError> {
        let body = name.as_bytes();
        let (status, text) = self.post("/capability/unregister", "text/plain", body, UNREGISTER_DEADLINE)?;
        if status == 200 { Ok(()) } else { Err(judge(status, &text, self.secret.is_some())) }
    }

    /// Whether it has BYOC and takes the secret, without changing anything: the register route is only looked at, and
    /// a name is unregistered that nobody has. Its clock in Unix seconds, if it tells.
    ///
    /// # Errors
    /// What is wrong, as a registration would find it.
    pub(crate) fn probe(&self) -> Result<Option<f64>, RegisterError> {
        let url = self.base.join("/capability/register");
        let mut reply = outgoing::get(&self.agent, &url, &[], REGISTER_DEADLINE).map_err(|why| no_answer(&why))?;
        let date = reply.headers().get("Date").and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let clock = date.and_then(|date| Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()));
        match reply.status().as_u16() {
            // Another method is what it wants.
            200..=299 | 405 => {}
            status => return Err(judge(status, &short_text(&mut reply)?, self.secret.is_some())),
        }
        let name = format!("agent-net-doctor-{:x}", RandomState::new().hash_one(0));
        self.unregister(&name).map(|()| clock)
    }

    fn post(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<(u16, String), RegisterError> {
        let mut request = self.agent.post(self.base.join(path)).content_type(content_type);
        if let Some(secret) = &self.secret {
            request = request.header("Authorization", secret.expose());
        }
        let request = request.config().timeout_global(Some(deadline)).build();
        let mut reply = request.send(body).map_err(|why| no_answer(&why))?;
        let text = short_text(&mut reply)?;
        Ok((reply.status().as_u16(), text))
    }
}

fn no_answer(why: &ureq::Error) -> RegisterError {
    match Cause::of(why) {
        Cause::Untrusted => RegisterError::Untrusted(words(why)),
        Cause::SpeaksTls => RegisterError::PlainHttpToTls,
        Cause::SpeaksPlain => RegisterError::NoAnswer(format!("{}: write http:// in ORCH_URL", words(why))),
        _ => RegisterError::NoAnswer(words(why)),
    }
}

/// The start of the answer's text.
fn short_text(reply: &mut ureq::http::Response<ureq::Body>) -> Result<String, RegisterError> {
    let text = reply.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
    Ok(text.map_err(|why| no_answer(&why))?.trim().chars().take(200).collect())
}

/// Three different mistakes are a 400: only the text tells them apart.
fn judge(status: u16, text: &str, secret_sent: bool) -> RegisterError {
    match status {
        400 if text.contains("invalid authorization") => RegisterError::WrongSecret { sent: secret_sent },
        400 if text.contains("HTTP request to an HTTPS server") => RegisterError::PlainHttpToTls,
        400 => RegisterError::BadBody(text.to_owned()),
        404 => RegisterError::NoByoc,
        300..=399 => RegisterError::Redirected(status),
        _ => RegisterError::Other(status, text.to_owned()),
    }
}

#[test]
fn refusals_are_told_apart_by_their_text() {
    #[track_caller]
    fn check(status: u16, text: &str, part: &str) {
        let shown = judge(status, text, true).to_string();
        assert!(shown.contains(part), "{shown}");
    }
    check(400, "invalid authorization", "ORCH_SECRET");
    check(400, "Client sent an HTTP request to an HTTPS server.", "https://");
    check(400, "Error registering capability: bad", "CAPABILITY_ settings say: Error registering");
    check(404, "404 page not found", "no BYOC");
    check(307, "", "not followed");
    check(502, "bad gateway", "502: bad gateway");
}
