//! A request's method, path, headers and body as a closed set of jobs, or as a refusal.

mod names;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{contract, page};
use crate::health::uptime::WINDOWS;
use crate::http::reply::Reply;
use crate::livepeer::tickets::header::{NotAccepted, Tickets};
use crate::sys::exposition;

pub(crate) use names::problem as name_problem;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// An orchestrator's job.
    Report {
        agent_id: String,
        /// That came with it, past the orchestrator.
        tickets: Option<Tickets>,
    },
    Gpu {
        text: bool,
    },
    Models,
    /// What runs here, as pytrickle's workers tell it.
    Version,
    /// The GPUs, in the same way.
    Hardware,
    /// How busy the GPUs are, in the same way.
    HardwareStats,
    /// What can be registered here, as Livepeer's Python SDK reads it.
    Capabilities,
    /// The reason codes.
    Codes {
        html: bool,
    },
    /// The last hour of each GPU.
    History,
    /// The minutes on record of this many last minutes, and the window's name.
    Uptime {
        window: &'static str,
        minutes: u32,
        /// Minutes that are told as one.
        step: u32,
    },
    /// All of this, for tools.
    OpenApi,
    /// The status page.
    Page {
        /// The browser has it already.
        known: bool,
    },
    Agents,
    Metrics {
        /// In OpenMetrics.
        open: bool,
    },
    Health,
    Ready,
}

/// An answer that needs no snapshot: always an error, always JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// One more header, as the status asks for it.
    pub(crate) header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// The answer with its error body. `now` is in Unix seconds.
    pub(crate) fn reply(self, now: f64) -> Reply {
        let body = contract::error_body(self.code, &self.message, now);
        Reply { headers: self.header.into_iter().collect(), ..Reply::json(self.status, body) }
    }
}

impl From<NotAccepted> for Refusal {
    fn from(why: NotAccepted) -> Self {
        match why {
            NotAccepted::Invalid(message) => Self::new(400, "bad_payment", message),
            NotAccepted::Reused(message) => Self::new(400, "ticket_reused", message),
            NotAccepted::Unwritten(message) => Self::new(503, "ledger_failed", message).with("Retry-After", "10"),
        }
    }
}

/// A request, understood or refused.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The job route that it came by; None for all others.
    pub(crate) route: Option<&'static str>,
    /// It began after SIGTERM.
    pub(crate) late: bool,
    /// It has no Authorization header.
    pub(crate) tokenless: bool,
    pub(crate) job: Result<Job, Refusal>,
}

/// What of a request is looked at; everything else in it is neither read nor kept.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// As it came, query included.
    pub(crate) target: &'a str,
    pub(crate) accept: Option<&'a str>,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) payment: Option<&'a str>,
    pub(crate) job: Option<&'a str>,
    pub(crate) if_none_match: Option<&'a str>,
    /// It carries Livepeer-Runner-Route: a stranger sent it through an orchestrator's proxy.
    pub(crate) proxied: bool,
    /// It began after SIGTERM.
    pub(crate) late: bool,
    /// None: it was larger than the limit and has been thrown away.
    pub(crate) body: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Path {
    Report,
    Gpu,
    Models,
    Version,
    Hardware,
    HardwareStats,
    Capabilities,
    Codes,
    History,
    Uptime,
    OpenApi,
    /// The page, and jobs as well.
    Root,
    Agents,
    Metrics,
    Health,
    Ready,
}

/// Paths are matched as they come: dot segments and escapes are not resolved.
const PATHS: &[(&str, Path)] = &[
    ("/gpu-check", Path::Report),
    ("/agent-net", Path::Report),
    ("/gpu", Path::Gpu),
    ("/models", Path::Models),
    ("/version", Path::Version),
    ("/hardware/info", Path::Hardware),
    ("/hardware/stats", Path::HardwareStats),
    ("/capabilities", Path::Capabilities),
    ("/codes", Path::Codes),
    ("/history", Path::History),
    ("/openapi.json", Path::OpenApi),
    ("/", Path::Root),
    ("/uptime", Path::Uptime),
    ("/agents", Path::Agents),
    ("/metrics", Path::Metrics),
    ("/health", Path::Health),
    ("/ready", Path::Ready),
];

/// Largest body, in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// The routes of this worker: those above, and one for each CAPABILITY_NAME.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// `/NAME`. The metrics count by these, so they live as long as the process does.
    named: Vec<&'static str>,
    /// The path of CAPABILITY_URL, which stands before that of each job unless a reverse proxy takes it off.
    base: String,
    /// WORKER_TOKEN.
    token: Option<String>,
}

impl Routes {
    pub(crate) fn new(capabilities: &[String], base: &str, token: Option<String>) -> Self {
        let is_new = |name: &&String| !PATHS.iter().any(|(path, _)| path[1..] == **name);
        let named = capabilities.iter().filter(is_new).map(|name| &*Box::leak(format!("/{name}").into_boxed_str()));
        Self { named: named.collect(), base: base.to_owned(), token }
    }

    fn find(&self, path: &str) -> Option<(&'static str, Path)> {
        let fixed = |path: &str| PATHS.iter().find(|(name, _)| *name == path).copied();
        let named = |path| Some((names::find(&self.named, path)?, Path::Report));
        fixed(path).or_else(|| named(path)).or_else(|| {
            let below = path.strip_prefix(self.base.as_str()).filter(|_| !self.base.is_empty())?;
            match fixed(if below.is_empty() { "/" } else { below }) {
                Some((name, Path::Report | Path::Root)) => Some((name, Path::Report)),
                _ => named(below),
            }
        })
    }

    /// The job route that a request comes by, whatever becomes of it.
    pub(crate) fn job_route(&self, request: &Request<'_>) -> Option<&'static str> {
        let (name, found) = self.find(request.target.split('?').next()?)?;
        let root = found == Path::Root && (request.proxied || request.method == "POST");
        (found == Path::Report || root).then_some(name)
    }

    /// Parses one request.
    ///
    /// # Errors
    /// The refusal to answer with: 404, 405, 401, 413 or 400, judged in this order.
    pub(crate) fn parse(&self, request: &Request<'_>) -> Result<Job, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let found = self.find(path);
        let Some((name, found)) = found.filter(|(_, p)| !request.proxied || matches!(p, Path::Report | Path::Root))
        else {
            let message =
                "there is nothing at this path; jobs go to POST /gpu-check, and GET /openapi.json tells the rest";
            return Err(Refusal::new(404, "not_found", message));
        };
        let (found, allow) = match (found, request.method) {
            (Path::Root, "POST") => (Path::Report, None),
            // What a POST to a runner's own URL, /apps/ID/app, becomes: go-livepeer answers it with 301 to the same with
            // a slash, and clients follow that with GET. They may have paid.
            (_, "GET" | "HEAD") if request.proxied && name == "/" => (Path::Gpu, None),
            (Path::Report, method) => (found, (method != "POST").then_some("POST")),
            (Path::Root, method) => (found, (!matches!(method, "GET" | "HEAD")).then_some("GET, HEAD, POST")),
            (_, method) => (found, (!matches!(method, "GET" | "HEAD")).then_some("GET, HEAD")),
        };
        if let Some(allow) = allow {
            let message = format!("this method is not allowed here; use {allow}");
            return Err(Refusal::new(405, "method_not_allowed", message).with("Allow", allow));
        }
        if let Some(token) = self.token.as_deref().filter(|_| found != Path::Health)
            && !request.authorization.is_some_and(|value| token_matches(value, token))
        {
            let message = "this worker asks for its token; send Authorization: Bearer TOKEN";
            return Err(
                Refusal::new(401, "unauthorized", message).with("WWW-Authenticate", "Basic realm=\"agent-net\"")
            );
        }
        match found {
            Path::Report => report(request.body, tickets(request)),
            Path::Gpu => wants_text(query, request.accept).map(|text| Job::Gpu { text }),
            Path::Models => Ok(Job::Models),
            Path::Version => Ok(Job::Version),
            Path::Hardware => Ok(Job::Hardware),
            Path::HardwareStats => Ok(Job::HardwareStats),
            Path::Capabilities => Ok(Job::Capabilities),
            Path::Codes => Ok(Job::Codes { html: request.accept.is_some_and(|accept| accept.contains("text/html")) }),
            Path::History => Ok(Job::History),
            Path::OpenApi => Ok(Job::OpenApi),
            Path::Root => Ok(Job::Page { known: has_page(request.if_none_match) }),
            Path::Uptime => window(query),
            Path::Agents => Ok(Job::Agents),
            Path::Metrics => Ok(Job::Metrics { open: exposition::wants_open(request.accept) }),
            Path::Health => Ok(Job::Health),
            Path::Ready => Ok(Job::Ready),
        }
    }
}

/// What a client pays with. Through an orchestrator's proxy the headers come as well, but that has taken the tickets.
fn tickets(request: &Request<'_>) -> Option<Tickets> {
    let given = |header: Option<&str>| header.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned);
    let (payment, job) = given(request.payment).zip(given(request.job))?;
    (!request.proxied).then_some(Tickets { payment, job })
}

fn report(body: Option<&[u8]>, tickets: Option<Tickets>) -> Result<Job, Refusal> {
    let Some(body) = body else {
        let message = format!("the body is larger than {MAX_BODY} bytes; a job is {{\"agent_id\":\"my-agent\"}}");
        return Err(Refusal::new(413, "body_too_large", message));
    };
    match contract::agent_id(body) {
        Ok(agent_id) => Ok(Job::Report { agent_id, tickets }),
        Err(bad) => Err(Refusal::new(400, bad.code, bad.message)),
    }
}

/// Names and minutes of `?step=`.
const STEPS: [(&str, u32); 4] = [("1m", 1), ("15m", 15), ("1h", 60), ("1d", 24 * 60)];

/// The value of a parameter.
fn asked<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// `?window=1h`, `24h` or `30d`, an hour when none is named; `&step=1m`, `15m`, `1h` or `1d`, a minute when none is.
fn window(query: &str) -> Result<Job, Refusal> {
    let find = |among: &[(&'static str, u32)], name: &str| among.iter().find(|(known, _)| *known == name).copied();
    let Some((window, minutes)) = find(&WINDOWS, asked(query, "window").unwrap_or(WINDOWS[0].0)) else {
        return Err(Refusal::new(400, "bad_window", "there is no such window; there are 1h, 24h and 30d"));
    };
    match find(&STEPS, asked(query, "step").unwrap_or(STEPS[0].0)) {
        Some((_, step)) => Ok(Job::Uptime { window, minutes, step }),
        None => Err(Refusal::new(400, "bad_step", "there is no such step; there are 1m, 15m, 1h and 1d")),
    }
}

/// Whether If-None-Match names the page as it is.
fn has_page(if_none_match: Option<&str>) -> bool {
    let etags = if_none_match.into_iter().flat_map(|value| value.split(','));
    etags.map(|etag| etag.trim().trim_start_matches("W/")).any(|etag| etag == "*" || etag == page::HEADERS.etag)
}

/// `?format=text` or `json`, else an Accept that prefers plain text to JSON by naming only it.
fn wants_text(query: &str, accept: Option<&str>) -> Result<bool, Refusal> {
    match asked(query, "format") {
        Some("text") => Ok(true),
        Some("json") => Ok(false),
        Some(_) => Err(Refusal::new(400, "bad_format", "there is no such format; there are text and json")),
        None => Ok(accept.is_some_and(|a| a.contains("text/plain") && !a.contains("json"))),
    }
}

/// Bearer, or the password of Basic (any user), since a browser can send nothing else.
fn token_matches(authorization: &str, token: &str) -> bool {
    let Some((scheme, value)) = authorization.trim().split_once(' ') else { return false };
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(value.trim().as_bytes(), token.as_bytes());
    }
    let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
    let password = decoded.iter().position(|b| *b == b':').map(|at| &decoded[at + 1..]);
    scheme.eq_ignore_ascii_case("basic") && password.is_some_and(|p| same(p, token.as_bytes()))
}

/// Equality in a time that does not tell how many bytes were right.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests;
