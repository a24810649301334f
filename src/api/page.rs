//! GET /: the status page. It is one file that refers to nothing outside; what it shows it asks the other routes for.

use crate::http::body_parts::Body;
use crate::http::reply::Reply;

/// Compressed by build.rs.
pub(crate) const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/status.html.gz"));
/// Changes with the page. A test checks these three, and writes them with AGENT_NET_WRITE=1.
const ETAG: &str = "\"vH29robxdASYDngGZaUMZI5M4Z8yofGrIMkZybg0c20=\"";
const STYLE: &str = "Yd6LIxVjgUlcErEq9DQLIT5VJowrC2vPoY+b5d7Tr90=";
const SCRIPT: &str = "LHAbxJt3rxGrTLzzgrs4SqiZ1R3l23AwwJjgtBII/24=";

/// The answer; without the page where the browser has it.
pub(crate) fn reply(if_none_match: Option<&str>) -> Reply {
    let (status, body) = if is_known(if_none_match) { (304, Body::from("")) } else { (200, Body::packed(PACKED)) };
    let page = html(body, STYLE, Some(SCRIPT));
    Reply { status, ..page }.with("ETag", ETAG).with("Cache-Control", "no-cache")
}

/// A page for browsers. Its Content-Security-Policy allows the style and script of these hashes, and requests of the
/// script to the worker.
pub(crate) fn html(body: impl Into<Body>, style: &str, script: Option<&str>) -> Reply {
    let script = script.map(|hash| format!(" script-src 'sha256-{hash}'; connect-src 'self';")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}';{script} img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    Reply { content_type: "text/html; charset=utf-8", ..Reply::json(200, body) }
        .with("Content-Security-Policy", policy)
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
}

/// Whether If-None-Match names this page.
fn is_known(if_none_match: Option<&str>) -> bool {
    let etags = if_none_match.into_iter().flat_map(|value| value.split(','));
    etags.map(|etag| etag.trim().trim_start_matches("W/")).any(|etag| etag == "*" || etag == ETAG)
}

#[cfg(test)]
pub(super) mod tests;
