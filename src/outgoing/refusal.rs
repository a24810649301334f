//! Answers that are not Ollama's lists: what a proxy, another server or Ollama's own check of host names means by them,
//! and what to do.

use std::fmt;

use crate::config::url::{self, HttpUrl};
use crate::sys::text;

/// Why Ollama cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What is wrong.
    pub(crate) why: String,
    /// What to do; None: the usual first step.
    pub(crate) cure: Option<&'static str>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.cure.map_or(Ok(()), |cure| write!(f, ". {cure}"))
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, cure: None }
    }
}

impl Trouble {
    pub(crate) fn new(why: impl Into<String>, cure: &'static str) -> Self {
        Self { why: why.into(), cure: Some(cure) }
    }

    pub(crate) fn cure(&self) -> &'static str {
        self.cure.unwrap_or("Start Ollama, or check OLLAMA_URL.")
    }

    /// What to do where Ollama answers, but its lists fail.
    pub(crate) fn cure_of_lists(&self) -> &'static str {
        self.cure.unwrap_or("Check Ollama's log: a model runner that hangs can block /api/ps.")
    }
}

/// The text of `{"error":"…"}`, as Ollama reports errors.
pub(crate) fn error_of(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Said {
        error: String,
    }
    serde_json::from_slice(text.as_bytes()).ok().map(|said: Said| said.error)
}

/// An unusable answer.
#[derive(Debug, Default)]
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) location: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    /// Content-Encoding.
    pub(crate) encoding: Option<&'a str>,
    /// The start of the body.
    pub(crate) text: &'a str,
    /// The setting from which the request's login came.
    pub(crate) login: Option<&'static str>,
}

/// Characters of a Location header that are shown.
const LONGEST_URL: usize = 200;
/// Characters of a body that are shown.
const LONGEST_TEXT: usize = 200;
const ASKS: &str = "Set OLLAMA_TOKEN, or user:password@ before the host in OLLAMA_URL, to what the proxy accepts.";

impl Refusal<'_> {
    /// What this answer to `path` below `base` means; None: an ordinary answer of 200.
    pub(crate) fn explain(&self, base: &HttpUrl, path: &str) -> Option<Trouble> {
        let status = self.status;
        let answers = |what: String| format!("the server at OLLAMA_URL answers {status}{what}");
        Some(match status {
            200 => return self.unusable(),
            300..=399 => self.redirect(base, path),
            401 => match self.login {
                None => Trouble::new(answers(": login required".into()), ASKS),
                Some(setting) => {
                    let cure = "Set it to what the proxy in front of Ollama accepts.";
                    Trouble::new(answers(format!(": {setting} rejected")), cure)
                }
            },
            403 if self.text.trim().is_empty() => Trouble::new(
                answers(" (forbidden): Ollama rejects this host name while it listens only on loopback".into()),
                "Set OLLAMA_HOST=0.0.0.0 for Ollama, or use an IP address or localhost in OLLAMA_URL. If a proxy answers, allow the worker there.",
            ),
            403 => Trouble::new(
                answers(" (forbidden)".into()) + &self.said(),
                "Allow the worker at the proxy in front of Ollama, or give it a login there.",
            ),
            // The version came from the same address just before.
            404 | 405 | 410 if ["/api/ps", "/api/tags"].contains(&path) => Trouble::new(
                answers(format!(" to {path}{}", self.said())),
                "Update Ollama to 0.1.38 or later. If a proxy is in front of it, let it pass this path.",
            ),
            404 | 405 | 410 => Trouble::new(
                answers(format!(" to {path}{}", self.said())),
                "Check OLLAMA_URL: its host and path lead to something other than Ollama.",
            ),
            407 => Trouble::new(answers(": the proxy requires a login".into()), ASKS),
            429 => Trouble::new(
                answers(" (too many requests)".into()),
                "Raise the proxy's request limit, or SAMPLE_INTERVAL.",
            ),
            400 | 426 | 497 if self.wants_tls() => {
                Trouble::new("the port of OLLAMA_URL expects TLS", "Use https:// in OLLAMA_URL.")
            }
            502..=504 if !self.is_json() => Trouble::new(
                answers(": the proxy in front of Ollama works, but Ollama does not answer it".into()),
                "Start Ollama, or fix the address to which the proxy forwards requests.",
            ),
            _ => Trouble::from(answers(self.said())),
        })
    }

    fn unusable(&self) -> Option<Trouble> {
        let encoding = self.encoding.map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("identity"));
        if let Some(encoding) = encoding {
            let encoding = text::start(encoding, 20);
            return Some(Trouble::new(
                format!("the answer is compressed ({encoding}), which the request does not accept"),
                "Turn compression off in the proxy in front of Ollama.",
            ));
        }
        self.is_html().then(|| {
            Trouble::new(
                "the server at OLLAMA_URL answers with a web page (HTML) instead of Ollama's JSON",
                "Check OLLAMA_URL: it leads to another server, or to a proxy's login page.",
            )
        })
    }

    fn redirect(&self, base: &HttpUrl, path: &str) -> Trouble {
        let status = self.status;
        let Some(location) = self.location.map(str::trim).filter(|location| !location.is_empty()) else {
            let why = format!("the server at OLLAMA_URL answers {status}, a redirect without a target");
            return Trouble::new(why, "Check OLLAMA_URL.");
        };
        let bare = location.split(['?', '#']).next().unwrap_or_default();
        let whole = if bare.starts_with('/') && !bare.starts_with("//") {
            format!("{}{bare}", base.origin())
        } else {
            bare.to_owned()
        };
        let whole = text::one_line(&url::masked(&whole));
        let shown = |url: &str| text::start(url, LONGEST_URL);
        let target = whole.trim_end_matches('/').strip_suffix(path);
        match target.filter(|target| *target != base.as_str()) {
            Some(target) => Trouble::new(
                format!(
                    "the server at OLLAMA_URL answers {status}, a redirect, which is not followed: Ollama is at {}",
                    shown(target)
                ),
                "Set OLLAMA_URL to that URL.",
            ),
            None => Trouble::new(
                format!("the server at OLLAMA_URL answers {status}, a redirect to {}", shown(&whole)),
                "Check OLLAMA_URL. If this is a login page, give the worker a login: OLLAMA_TOKEN, or user:password@ in OLLAMA_URL.",
            ),
        }
    }

    /// Servers name the mistake in the body of a 400.
    fn wants_tls(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        ["https server", "https port", "ssl-enabled", "ssl port"].iter().any(|part| text.contains(part))
            || self.status == 497
    }

    fn is_json(&self) -> bool {
        self.text.trim_start().starts_with('{')
    }

    fn is_html(&self) -> bool {
        self.content_type.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
            || self.text.trim_start().starts_with('<')
    }

    /// What the body says in plain text; empty for a web page.
    fn said(&self) -> String {
        let error = error_of(self.text);
        let said = text::start(error.as_deref().unwrap_or(self.text), LONGEST_TEXT);
        if said.is_empty() || self.is_html() || said.starts_with('{') { String::new() } else { format!(": {said}") }
    }
}

#[test]
fn answers_of_proxies_and_other_servers() {
    #[track_caller]
    fn check(refusal: &Refusal<'_>, why: &str, cure: &str) {
        let base = HttpUrl::parse("http://ollama.example/base").unwrap();
        let trouble = refusal.explain(&base, "/api/version").unwrap();
        assert!(trouble.why.contains(why) && trouble.cure().contains(cure), "{trouble:?}");
        assert!(!trouble.to_string().contains("hunter2") && trouble.to_string().len() < 600, "{trouble:?}");
    }
    let status = |status| Refusal { status, ..Refusal::default() };
    let to = |status, location| Refusal { location: Some(location), ..self::Refusal { status, ..Refusal::default() } };
    let text = |status, text| Refusal { text, ..self::Refusal { status, ..Refusal::default() } };
    check(&to(301, "https://o.example/api/version"), "Ollama is at https://o.example", "to that URL");
    check(&to(308, "https://u:hunter2@o/api/version/?k=hunter2"), "Ollama is at https://***@o", "to that URL");
    check(&to(302, "/login?next=hunter2"), "302, a redirect to http://ollama.example/login", "OLLAMA_TOKEN");
    check(&to(307, "/base/api/version/"), "a redirect to http://ollama.example/base/api/version/", "Check OLLAMA_URL");
    let long = "x".repeat(10_000);
    check(&to(302, &long), "a redirect to xxx", "login page");
    check(&to(301, "\r\n\u{1b}[2J//evil"), "a redirect", "OLLAMA_URL");
    check(&status(301), "without a target", "OLLAMA_URL");
    check(&status(401), "login required", "OLLAMA_TOKEN");
    check(&Refusal { login: Some("OLLAMA_TOKEN"), ..status(401) }, "OLLAMA_TOKEN rejected", "accepts");
    check(&status(403), "host name", "OLLAMA_HOST=0.0.0.0");
    check(&text(403, "<html>403 Forbidden</html>"), "403 (forbidden)", "proxy");
    check(&text(404, "404 page not found\n"), "404 to /api/version: 404 page not found", "something other");
    check(&text(400, "Client sent an HTTP request to an HTTPS server.\n"), "expects TLS", "https://");
    check(&text(400, "<center>The plain HTTP request was sent to HTTPS port</center>"), "expects TLS", "https://");
    check(&text(400, r#"{"error":"bad"}"#), "400: bad", "Start Ollama");
    check(&text(502, "<html><h1>502 Bad Gateway</h1>"), "the proxy in front of Ollama works", "Start Ollama");
    check(&status(504), "the proxy in front of Ollama works", "forwards requests");
    check(&text(503, r#"{"error":"server busy"}"#), "503: server busy", "Start Ollama");
    check(&status(429), "too many requests", "SAMPLE_INTERVAL");
    check(&text(500, r#"{"error":"out of memory"}"#), "500: out of memory", "Start Ollama");
    check(&text(200, "<!DOCTYPE html>"), "web page", "login page");
    check(&Refusal { content_type: Some("text/html; charset=utf-8"), ..status(200) }, "web page", "OLLAMA_URL");
    check(&Refusal { encoding: Some("gzip"), ..status(200) }, "compressed (gzip)", "Turn compression off");
    let json = Refusal { encoding: Some("identity"), content_type: Some("application/json"), ..text(200, "{}") };
    assert_eq!(json.explain(&HttpUrl::parse("http://h").unwrap(), "/api/version"), None);
}
