//! A request that is answered with an error: its code, and a sentence that says what is wrong and what is valid.

use serde::Serialize;

use super::reply::Reply;
use crate::sys::error_codes::ErrorCode;
use crate::sys::json::{json, millis};

/// What X-Metadata and errors call the service.
pub(crate) const CAPABILITY: &str = "gpu-check";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    /// One more header, where the status needs it.
    pub(crate) header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), header: None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// The answer, with `Retry-After` where the code has it. `now` is in Unix seconds.
    pub(crate) fn reply(self, now: f64) -> Reply {
        let row = self.code.row();
        let retry = row.retry_after.map(|seconds| ("Retry-After", seconds.to_string()));
        let headers = self.header.into_iter().chain(retry).collect();
        Reply { headers, ..Reply::json(row.status, error_body(row.name, &self.message, now)) }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Error"))]
pub(crate) struct ErrorBody<'a> {
    status: &'static str,
    /// What is wrong, for programs.
    #[cfg_attr(test, schemars(schema_with = "crate::sys::error_codes::schema"))]
    code: &'a str,
    /// What is wrong and what is valid, for people.
    error: &'a str,
    /// Unix seconds of this answer.
    timestamp: f64,
    capability: &'static str,
}

/// The body of every error. `now` is in Unix seconds.
pub(crate) fn error_body(code: &str, message: &str, now: f64) -> String {
    json(&ErrorBody { status: "error", code, error: message, timestamp: millis(now), capability: CAPABILITY })
}

#[test]
fn a_refusal_has_the_status_and_the_headers_of_its_code() {
    let reply = Refusal::new(ErrorCode::NoSample, "no GPU reading yet").reply(1.0);
    assert_eq!((reply.status, reply.headers), (503, vec![("Retry-After", "1".to_owned())]));
    let reply = Refusal::new(ErrorCode::MethodNotAllowed, "use GET").with("Allow", "GET").reply(1.0);
    assert_eq!((reply.status, reply.headers), (405, vec![("Allow", "GET".to_owned())]));
}
