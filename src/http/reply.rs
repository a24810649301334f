//! What a request is answered with, before it becomes bytes.

use super::body_parts::Body;
use crate::api::contract;
use crate::api::page;
use crate::api::route::Refusal;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Beside those that every answer has.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Body>) -> Self {
        Self { status, content_type: "application/json", headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn text(body: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", ..Self::json(200, body) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The status page; `known`: the browser has it.
    pub(crate) fn page(known: bool) -> Self {
        let body = if known { "" } else { page::HTML };
        let page = Self { content_type: "text/html; charset=utf-8", ..Self::json(if known { 304 } else { 200 }, body) };
        page.with("ETag", page::HEADERS.etag.as_str())
            .with("Cache-Control", "no-cache")
            .with("Content-Security-Policy", page::HEADERS.policy.as_str())
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "no-referrer")
    }

    /// The error body of a refusal. `now` is in Unix seconds.
    pub(crate) fn refusal(refusal: Refusal, now: f64) -> Self {
        let body = contract::error_body(refusal.code, &refusal.message, now);
        Self { headers: refusal.header.into_iter().collect(), ..Self::json(refusal.status, body) }
    }
}
