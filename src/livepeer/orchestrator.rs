//! One orchestrator, and its BYOC registry: register and unregister one capability.

pub(crate) mod payment;
pub(crate) mod runner;

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::config::url::HttpUrl;
use crate::config::{Capability, Secret};
use crate::outgoing::{self, Cause, words};
use crate::sys::json::json;
use crate::sys::text;

const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// Short, so that a stop is not delayed by an orchestrator that hangs.
const UNREGISTER_DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: it is one line of text, or half a KiB of JSON.
const MAX_BODY: u64 = 64 << 10;
/// Characters of it that are shown.
const MAX_SHOWN: usize = 200;

/// Body of `POST /capability/register`; unset fields are left out.
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
    /// Jobs in flight: the registry counts down as they end.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<usize>,
}

/// Why a registration failed. Display: what is wrong, then what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RegisterError {
    NoAnswer(String),
    Untrusted(String),
    WrongSecret {
        sent: bool,
    },
    BadBody(String),
    PlainHttpToTls,
    NoByoc,
    Redirected(u16),
    /// A 200 that no registry has given.
    WebPage,
    Other(u16, String),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause())?;
        self.action().map_or(Ok(()), |action| write!(f, ". {action}"))
    }
}

impl RegisterError {
    /// What is wrong.
    pub(crate) fn cause(&self) -> Cow<'_, str> {
        match self {
            Self::NoAnswer(why) => why.into(),
            Self::Untrusted(why) => format!("certificate not trusted ({why})").into(),
            Self::WrongSecret { sent: true } => "secret rejected".into(),
            Self::WrongSecret { sent: false } => "secret required".into(),
            Self::BadBody(text) => format!("CAPABILITY_ settings rejected: {text}").into(),
            Self::PlainHttpToTls => "its port expects TLS".into(),
            Self::NoByoc => "it has no BYOC (404 to /capability/register)".into(),
            Self::Redirected(status) => {
                format!("it answered {status}, a redirect, which is not followed with a secret").into()
            }
            Self::WebPage => "it answered with a web page (HTML)".into(),
            Self::Other(status, text) => format!("it answered {status}: {text}").into(),
        }
    }

    /// What to do about it, as far as that is known.
    pub(crate) fn action(&self) -> Option<&'static str> {
        Some(match self {
            Self::Untrusted(why) if why.contains("CaUsedAsEndEntity") => {
                "It is go-livepeer's own, made at each start: no ORCH_TLS=ca: can verify it. Set ORCH_TLS=insecure, or put a TLS proxy with an ordinary certificate in front."
            }
            Self::Untrusted(_) => {
                "Use a certificate that ORCH_TLS covers, or set ORCH_TLS=insecure for go-livepeer's own."
            }
            Self::WrongSecret { sent: true } => {
                "Set ORCH_SECRET to its -orchSecret, or unset it if the orchestrator has none."
            }
            Self::WrongSecret { sent: false } => "Set ORCH_SECRET to its -orchSecret.",
            Self::PlainHttpToTls => "Use https:// in ORCH_URL.",
            Self::NoByoc => "ORCH_URL must be an orchestrator's service address.",
            Self::Redirected(_) => "Fix ORCH_URL.",
            Self::WebPage => "Check ORCH_URL: it leads to another server, or to a proxy's login page.",
            Self::NoAnswer(_) | Self::BadBody(_) | Self::Other(..) => return None,
        })
    }

    /// The orchestrator's registry itself has answered.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::WrongSecret { .. } | Self::BadBody(_) | Self::NoByoc)
    }

    /// An answer that says nothing about registries.
    pub(crate) fn is_odd_answer(&self) -> bool {
        matches!(self, Self::Other(..) | Self::Redirected(_) | Self::WebPage)
    }

    /// Its label in metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Untrusted(_) => "untrusted",
            Self::WrongSecret { .. } => "wrong_secret",
            Self::BadBody(_) => "bad_body",
            Self::PlainHttpToTls => "plain_http_to_tls",
            Self::NoByoc => "no_byoc",
            Self::Redirected(_) => "redirected",
            Self::Other(..) | Self::WebPage => "other",
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
        let config = outgoing::settings()
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(Duration::from_secs(5)))
            // Registrations are rare: a kept connection would be dead by the next one.
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

    /// Registers `name`, with jobs sent to `worker`.
    ///
    /// # Errors
    /// Why that failed.
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
        let (status, text) =
            self.post("/capability/register", "application/json", json(&body).as_bytes(), REGISTER_DEADLINE)?;
        self.accepted(status, &text::without(&text, token.map(Secret::expose)))
    }

    /// Unregisters `name`, which is the whole body.
    ///
    /// # Errors
    /// Why that failed.
    pub(crate) fn unregister(&self, name: &str) -> Result<(), RegisterError> {
        let body = name.as_bytes();
        let (status, text) = self.post("/capability/unregister", "text/plain", body, UNREGISTER_DEADLINE)?;
        self.accepted(status, &text)
    }

    /// Checks for BYOC and the secret without changing anything: GETs the register route and unregisters an unused name.
    /// Returns its clock in Unix seconds, if sent.
    ///
    /// # Errors
    /// Why a registration would fail.
    pub(crate) fn probe(&self) -> Result<Option<f64>, RegisterError> {
        let url = self.base.join("/capability/register");
        let mut reply = outgoing::get(&self.agent, &url, &[], REGISTER_DEADLINE).map_err(|why| no_answer(&why))?;
        let date = reply.headers().get("Date").and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let clock = date.and_then(|date| Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()));
        match reply.status().as_u16() {
            // It expects another method.
            200..=299 | 405 => {}
            status => return Err(self.rejection(status, &text_of(&mut reply)?)),
        }
        let name = format!("agent-net-doctor-{:x}", RandomState::new().hash_one(0));
        self.unregister(&name).map(|()| clock)
    }

    fn accepted(&self, status: u16, text: &str) -> Result<(), RegisterError> {
        match status {
            200 if text::is_web_page(text) => Err(RegisterError::WebPage),
            200 => Ok(()),
            _ => Err(self.rejection(status, text)),
        }
    }

    fn rejection(&self, status: u16, text: &str) -> RegisterError {
        rejection(status, text, self.secret.as_ref().map(Secret::expose))
    }

    /// POST with the orchestrator's secret: status and text of the answer.
    fn post(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<(u16, String), RegisterError> {
        let secret = self.secret.as_ref().map(Secret::expose);
        self.send(&self.base.join(path), secret, content_type, body, deadline)
    }

    fn send(
        &self,
        url: &str,
        secret: Option<&str>,
        content_type: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<(u16, String), RegisterError> {
        let mut request = self.agent.post(url).content_type(content_type);
        if let Some(secret) = secret {
            request = request.header("Authorization", secret);
        }
        let request = request.config().timeout_global(Some(deadline)).build();
        let mut reply = request.send(body).map_err(|why| no_answer(&why))?;
        let text = text_of(&mut reply)?;
        Ok((reply.status().as_u16(), text))
    }
}

fn no_answer(why: &ureq::Error) -> RegisterError {
    match Cause::of(why) {
        Cause::Untrusted => RegisterError::Untrusted(words(why)),
        Cause::SpeaksTls => RegisterError::PlainHttpToTls,
        Cause::SpeaksPlain => RegisterError::NoAnswer(format!("{}. Use http:// in ORCH_URL", words(why))),
        _ => RegisterError::NoAnswer(words(why)),
    }
}

/// The start of an answer: a page in its place may be long.
fn text_of(reply: &mut ureq::http::Response<ureq::Body>) -> Result<String, RegisterError> {
    let mut start = Vec::new();
    let read = reply.body_mut().as_reader().take(MAX_BODY).read_to_end(&mut start);
    read.map_err(|why| no_answer(&ureq::Error::from(why)))?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

/// Three different mistakes are a 400: only the text distinguishes them. `secret`: what was sent.
fn rejection(status: u16, text: &str, secret: Option<&str>) -> RegisterError {
    let shown = || text::start(&text::without(text, secret), MAX_SHOWN);
    match status {
        400 if text.contains("invalid authorization") => RegisterError::WrongSecret { sent: secret.is_some() },
        400 if text.contains("HTTP request to an HTTPS server") => RegisterError::PlainHttpToTls,
        400 => RegisterError::BadBody(shown()),
        404 => RegisterError::NoByoc,
        300..=399 => RegisterError::Redirected(status),
        _ => RegisterError::Other(status, shown()),
    }
}

#[test]
fn rejections_are_distinguished_by_their_text() {
    #[track_caller]
    fn check(status: u16, text: &str, part: &str) {
        let shown = rejection(status, text, Some("s3cret")).to_string();
        assert!(shown.contains(part), "{shown}");
    }
    check(400, "invalid authorization", "secret rejected. Set ORCH_SECRET");
    check(400, "Client sent an HTTP request to an HTTPS server.", "expects TLS. Use https://");
    check(400, "Error registering capability: bad", "CAPABILITY_ settings rejected: Error registering");
    check(404, "404 page not found", "no BYOC");
    check(307, "", "not followed");
    check(502, "bad gateway\n", "502: bad gateway");
    check(400, "Authorization: s3cret", "rejected: Authorization: ***");
}
