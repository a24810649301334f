//! Requests to the server within this process, and its answers.

use std::io;
use std::time::Duration;

use tiny_http::{Answer, Header};

use super::Gate;
use super::head::Head;
use super::inside;

/// For the server to begin, and then to answer: it takes microseconds, or 2 s before the first sample.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hands one request over and waits for its answer. `body`: None when it was too large. `late`: it began after
/// SIGTERM.
///
/// # Errors
/// `WouldBlock` when all threads are taken for too long, else what is broken.
pub(super) fn ask(gate: &Gate, head: &Head, body: Option<Vec<u8>>, late: bool) -> io::Result<Answer> {
    let marks = [(inside::PROXIED, head.proxied), (inside::TOO_LARGE, body.is_none()), (inside::LATE, late)];
    let marks = marks.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, "1".to_owned()));
    let headers = head.passed.iter().cloned().chain(marks);
    let headers = headers.map(|(name, value)| Header { field: name.into(), value }).collect();
    let method = if head.method == "HEAD" { "GET" } else { &head.method };
    let pending = tiny_http::put(method.to_owned(), head.target.clone(), headers, body.unwrap_or_default());
    (gate.poll)();
    pending.answer(PATIENCE)
}

/// The status of GET /health, asked without a connection: the server has `timeout` to begin, and as long again to answer.
///
/// # Errors
/// As those of [`ask`].
pub(super) fn health(gate: &Gate, timeout: Duration) -> io::Result<u16> {
    let pending = tiny_http::put("GET".into(), "/health".into(), Vec::new(), Vec::new());
    (gate.poll)();
    pending.answer(timeout).map(|answer| answer.status)
}
