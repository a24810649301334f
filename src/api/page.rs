//! GET /: the status page. It is one file, with nothing in it that comes from anywhere else; what it shows it asks for
//! by the other routes.

use std::sync::LazyLock;

use crate::http::reply::Reply;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The whole page.
pub(crate) const HTML: &str = include_str!("page/status.html");

/// What a browser is told of it.
#[derive(Debug)]
pub(crate) struct Headers {
    /// Changes with the page.
    pub(crate) etag: String,
    /// Its own script and style, by what they are, and requests to the worker: nothing else.
    pub(crate) policy: String,
}

/// Worked out once.
pub(crate) static HEADERS: LazyLock<Headers> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let (style, script) = (inside("style"), inside("script"));
    Headers {
        etag: format!("\"{}\"", hash(HTML)),
        policy: format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(style),
            hash(script)
        ),
    }
});

/// The text of the page's one element of this name.
fn inside(name: &str) -> &'static str {
    let after = HTML.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
    after.split_once(&format!("</{name}>")).map_or("", |(inside, _)| inside)
}

/// The answer; `known`: the browser has it.
pub(crate) fn reply(known: bool) -> Reply {
    let body = if known { "" } else { HTML };
    let page = Reply { content_type: "text/html; charset=utf-8", ..Reply::json(if known { 304 } else { 200 }, body) };
    page.with("ETag", HEADERS.etag.as_str())
        .with("Cache-Control", "no-cache")
        .with("Content-Security-Policy", HEADERS.policy.as_str())
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
}

#[test]
fn it_is_small_and_refers_to_nothing_outside() {
    assert!(HTML.len() < 40_000, "{}", HTML.len());
    assert!(inside("style").len() > 1000 && inside("script").len() > 1000);
    for word in ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "style="] {
        let found = HTML.replace("http://www.w3.org/2000/svg", "").contains(word);
        assert!(!found, "the page holds {word}");
    }
}
