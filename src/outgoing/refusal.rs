//! Answers in Ollama's place that are none of Ollama's lists: what a proxy, another server or Ollama's own check of
//! names means by them, and what to do.

use std::fmt;

use crate::config::url::{self, HttpUrl};
use crate::sys::text::one_line;

/// Why Ollama cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What is wrong.
    pub(crate) why: String,
    /// What to do; None: what is always tried first.
    pub(crate) cure: Option<&'static str>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.cure.map_or(Ok(()), |cure| write!(f, "; {cure}"))
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
        self.cure.unwrap_or("Start Ollama, or fix OLLAMA_URL.")
    }

    /// What to do where Ollama answers, but not with its lists.
    pub(crate) fn cure_of_lists(&self) -> &'static str {
        self.cure.unwrap_or("Check Ollama's log. A hung model runner can block /api/ps.")
    }
}

/// An answer that cannot be used.
#[derive(Debug, Default)]
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) location: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    /// Content-Encoding.
    pub(crate) encoding: Option<&'a str>,
    /// The start of the body.
    pub(crate) text: &'a str,
    /// The setting that the request's login came from.
    pub(crate) login: Option<&'static str>,
}

/// Location is shown up to here.
const LONGEST_URL: usize = 200;
/// So much of a body is enough to know it by.
const LONGEST_TEXT: usize = 200;
const ASKS: &str = "set OLLAMA_URL with user:password@ before the host, or OLLAMA_TOKEN, to what the proxy accepts";

impl Refusal<'_> {
    /// What it means that `path` below `base` was answered so; None: it is an ordinary answer of 200.
    pub(crate) fn explain(&self, base: &HttpUrl, path: &str) -> Option<Trouble> {
        let status = self.status;
        let answers = |what: String| format!("the server at OLLAMA_URL answers {status}{what}");
        Some(match status {
            200 => return self.unusable(),
            300..=399 => self.redirect(base, path),
            401 => match self.login {
                None => Trouble::new(answers(": it asks for a login".into()), ASKS),
                Some(setting) => {
                    let cure = "set it to what the proxy before Ollama accepts";
                    Trouble::new(answers(format!(": it refuses {setting}")), cure)
                }
            },
            403 if self.text.trim().is_empty() => Trouble::new(
                answers(" (forbidden): Ollama refuses this host name while it listens on loopback only".into()),
                "set OLLAMA_HOST=0.0.0.0 for Ollama, or use an IP address or localhost in OLLAMA_URL; if a proxy answers, let the worker in there",
            ),
            403 => Trouble::new(
                answers(" (forbidden)".into()) + &self.said(),
                "let the worker in at the proxy before Ollama, or give it a login there",
            ),
            404 | 405 | 410 => Trouble::new(
                answers(format!(" to {path}{}", self.said())),
                "check OLLAMA_URL: another server or another path is there, not Ollama",
            ),
            407 => Trouble::new(answers(": a proxy asks for a login of its own".into()), ASKS),
            429 => Trouble::new(
                answers(" (too many requests)".into()),
                "raise the proxy's limit of requests, or SAMPLE_INTERVAL",
            ),
            400 | 426 | 497 if self.wants_tls() => {
                Trouble::new("the port of OLLAMA_URL speaks TLS", "write https:// in OLLAMA_URL")
            }
            502..=504 if !self.is_json() => Trouble::new(
                answers(": the proxy before Ollama works, but Ollama behind it does not answer".into()),
                "start Ollama, or correct the address to which the proxy passes requests on",
            ),
            _ => Trouble::from(answers(self.said())),
        })
    }

    fn unusable(&self) -> Option<Trouble> {
        let encoding = self.encoding.map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("identity"));
        if let Some(encoding) = encoding {
            let encoding: String = one_line(encoding).chars().take(20).collect();
            return Some(Trouble::new(
                format!("the answer is compressed ({encoding}), although the request accepts none of that"),
                "turn compression off in the proxy before Ollama",
            ));
        }
        self.is_html().then(|| {
            Trouble::new(
                "the server at OLLAMA_URL answers with a web page (HTML), not with Ollama's JSON",
                "check OLLAMA_URL: another server is there, or a proxy's login page",
            )
        })
    }

    fn redirect(&self, base: &HttpUrl, path: &str) -> Trouble {
        let status = self.status;
        let Some(location) = self.location.map(str::trim).filter(|location| !location.is_empty()) else {
            let why = format!("the server at OLLAMA_URL answers {status}, a redirect that does not say where to");
            return Trouble::new(why, "check OLLAMA_URL");
        };
        let bare = location.split(['?', '#']).next().unwrap_or_default();
        let whole = if bare.starts_with('/') && !bare.starts_with("//") {
            format!("{}{bare}", base.origin())
        } else {
            bare.to_owned()
        };
        let whole = one_line(&url::masked(&whole));
        let shown = |url: &str| url.chars().take(LONGEST_URL).collect::<String>();
        let target = whole.trim_end_matches('/').strip_suffix(path);
        match target.filter(|target| *target != base.as_str()) {
            Some(target) => Trouble::new(
                format!(
                    "the server at OLLAMA_URL answers {status}, a redirect, which is not followed: Ollama is at {}",
                    shown(target)
                ),
                "write that URL in OLLAMA_URL",
            ),
            None => Trouble::new(
                format!("the server at OLLAMA_URL answers {status}, a redirect to {}", shown(&whole)),
                "check OLLAMA_URL; if that is a login page, let the worker past it with user:password in OLLAMA_URL or OLLAMA_TOKEN",
            ),
        }
    }

    /// Servers name the mistake in the text of a 400.
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

    /// What the body says for people: a page says nothing.
    fn said(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            error: String,
        }
        let said = serde_json::from_str(self.text).map_or_else(|_| self.text.to_owned(), |said: Said| said.error);
        let said: String = one_line(said.trim()).chars().take(LONGEST_TEXT).collect();
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
    check(&to(301, "https://o.example/api/version"), "Ollama is at https://o.example", "write that URL");
    check(&to(308, "https://u:hunter2@o/api/version/?k=hunter2"), "Ollama is at https://***@o", "write that URL");
    check(&to(302, "/login?next=hunter2"), "302, a redirect to http://ollama.example/login", "OLLAMA_TOKEN");
    check(&to(307, "/base/api/version/"), "a redirect to http://ollama.example/base/api/version/", "check OLLAMA_URL");
    let long = "x".repeat(10_000);
    check(&to(302, &long), "a redirect to xxx", "login page");
    check(&to(301, "\r\n\u{1b}[2J//evil"), "a redirect", "OLLAMA_URL");
    check(&status(301), "does not say where", "OLLAMA_URL");
    check(&status(401), "asks for a login", "OLLAMA_TOKEN");
    check(&Refusal { login: Some("OLLAMA_TOKEN"), ..status(401) }, "refuses OLLAMA_TOKEN", "accepts");
    check(&status(403), "host name", "OLLAMA_HOST=0.0.0.0");
    check(&text(403, "<html>403 Forbidden</html>"), "403 (forbidden)", "proxy");
    check(&text(404, "404 page not found\n"), "404 to /api/version: 404 page not found", "another path");
    check(&text(400, "Client sent an HTTP request to an HTTPS server.\n"), "speaks TLS", "https://");
    check(&text(400, "<center>The plain HTTP request was sent to HTTPS port</center>"), "speaks TLS", "https://");
    check(&text(400, r#"{"error":"bad"}"#), "400: bad", "Start Ollama");
    check(&text(502, "<html><h1>502 Bad Gateway</h1>"), "the proxy before Ollama works", "start Ollama");
    check(&status(504), "the proxy before Ollama works", "passes requests on");
    check(&text(503, r#"{"error":"server busy"}"#), "503: server busy", "Start Ollama");
    check(&status(429), "too many requests", "SAMPLE_INTERVAL");
    check(&text(500, r#"{"error":"out of memory"}"#), "500: out of memory", "Start Ollama");
    check(&text(200, "<!DOCTYPE html>"), "web page", "login page");
    check(&Refusal { content_type: Some("text/html; charset=utf-8"), ..status(200) }, "web page", "OLLAMA_URL");
    check(&Refusal { encoding: Some("gzip"), ..status(200) }, "compressed (gzip)", "turn compression off");
    let json = Refusal { encoding: Some("identity"), content_type: Some("application/json"), ..text(200, "{}") };
    assert_eq!(json.explain(&HttpUrl::parse("http://h").unwrap(), "/api/version"), None);
}
