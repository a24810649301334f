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
pub(crate) static HEADERS: LazyLock<Headers> = LazyLock::new(|| Headers {
    etag: format!("\"{}\"", hash(HTML)),
    policy: policy(inside("style"), Some(inside("script"))),
});

/// The Content-Security-Policy of a page with this style and script: these two, and requests to the worker by the script.
pub(crate) fn policy(style: &str, script: Option<&str>) -> String {
    let script = script.map(|script| format!(" script-src 'sha256-{}'; connect-src 'self';", hash(script)));
    format!(
        "default-src 'none'; style-src 'sha256-{}';{} img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(style),
        script.unwrap_or_default()
    )
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

/// The text of the page's one element of this name.
fn inside(name: &str) -> &'static str {
    let after = HTML.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
    after.split_once(&format!("</{name}>")).map_or("", |(inside, _)| inside)
}

/// The answer; `known`: the browser has it.
pub(crate) fn reply(known: bool) -> Reply {
    let page = html(if known { "" } else { HTML }, &HEADERS.policy);
    Reply { status: if known { 304 } else { 200 }, ..page }
        .with("ETag", HEADERS.etag.as_str())
        .with("Cache-Control", "no-cache")
}

/// A page for browsers. `policy`: its Content-Security-Policy.
pub(crate) fn html(body: &'static str, policy: &str) -> Reply {
    Reply { content_type: "text/html; charset=utf-8", ..Reply::json(200, body) }
        .with("Content-Security-Policy", policy)
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
