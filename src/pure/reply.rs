//! What a request is answered with, before it becomes bytes.

use super::body::Body;
use super::contract;
use super::route::Refusal;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// One more header: every answer has at most one of its own.
    pub(crate) header: Option<(&'static str, String)>,
    pub(crate) body: Body,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Body>) -> Self {
        Self { status, content_type: "application/json", header: None, body: body.into() }
    }

    pub(crate) fn text(body: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", ..Self::json(200, body) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// The error body of a refusal. `now` is in Unix seconds.
    pub(crate) fn refusal(refusal: Refusal, now: f64) -> Self {
        let body = contract::error_body(refusal.code, &refusal.message, now);
        Self { header: refusal.header, ..Self::json(refusal.status, body) }
    }
}
