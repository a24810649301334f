//! GET /codes: the table for browsers and for programs. Both answers are made when they are first asked for.

use std::sync::LazyLock;

use serde::Serialize;

use super::page;
use crate::health::codes::{self, Entry, Group, N, ORDER, TABLE};
use crate::health::verdict::Verdict;
use crate::http::reply::Reply;
use crate::sys::json::json;

/// The answer for programs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Codes"))]
pub(crate) struct CodesAnswer {
    status: &'static str,
    /// From best to worst; the verdict is the worst of all reasons.
    severity_order: [Verdict; 4],
    codes: &'static [Entry],
}

/// The body for programs.
static JSON: LazyLock<String> =
    LazyLock::new(|| json(&CodesAnswer { status: "success", severity_order: Verdict::ORDER, codes: TABLE }));

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:0 auto;padding:1rem;\
color:#1b1f23;background:#fff}h2{margin-top:2.5rem}h3{margin-bottom:0;font-family:ui-monospace,monospace}\
h3 a{color:inherit;text-decoration:none}:target{background:#fff3b0}dl{margin:0}dt{float:left;clear:left;width:6rem;\
color:#57606a}dd{margin:0 0 0 6rem}code{background:#8883;padding:0 .2em}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}a{color:#7ba4f4}\
:target{background:#4d4000}dt{color:#8d96a0}}";

/// Of [`STYLE`].
const STYLE_HASH: &str = "UJUFS/Dzkv5W2FIekiXyfafwwMxkwfdoq6OJqiRQ3hA=";

/// The page for browsers.
static HTML: LazyLock<String> = LazyLock::new(html);

fn html() -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Reason codes - agent-net</title><style>{STYLE}</style></head>\n\
         <body><main><h1>Reason codes</h1>\n<p>{ORDER}</p>\n<p>{N}</p>\n<p><a href=\"./\">Status page</a></p>\n"
    );
    for group in Group::ALL {
        html.push_str(&format!("<h2>{}</h2>\n", group.name()));
        for entry in codes::of_group(group) {
            let Entry { name, meaning, clears, action, .. } = entry;
            html.push_str(&format!("<h3 id=\"{name}\"><a href=\"#{name}\">{name}</a></h3>\n<dl>"));
            for (term, text) in [
                ("Severity", entry.severities().as_str()),
                ("Vendors", entry.vendors().as_str()),
                ("Meaning", meaning),
                ("Clears", clears),
                ("Action", action),
            ] {
                html.push_str(&format!("<dt>{term}</dt><dd>{}</dd>", markup(text)));
            }
            html.push_str("</dl>\n");
        }
    }
    html + "</main></body></html>\n"
}

/// HTML where the client accepts it.
pub(crate) fn reply(accept: Option<&str>) -> Reply {
    let browser = accept.is_some_and(|accept| accept.contains("text/html"));
    let reply = if browser { page::html(HTML.as_str(), STYLE_HASH, None) } else { Reply::json(200, JSON.as_str()) };
    reply.with("Vary", "Accept")
}

/// Text of the table as HTML; what stands between backticks becomes code.
fn markup(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let pieces = escaped.split('`').enumerate();
    pieces.map(|(at, piece)| if at % 2 == 1 { format!("<code>{piece}</code>") } else { piece.to_owned() }).collect()
}

#[test]
fn both_answers_have_every_code() {
    let json: serde_json::Value = serde_json::from_str(&JSON).unwrap();
    assert_eq!(json["codes"].as_array().unwrap().len(), TABLE.len());
    assert_eq!(json["severity_order"], serde_json::json!(["ok", "unknown", "degraded", "unhealthy"]));
    let html = &*HTML;
    for entry in TABLE {
        assert!(html.contains(&format!("<h3 id=\"{}\">", entry.name)), "{}", entry.name);
    }
    // Behind a proxy the status page need not be at the root.
    // A screen reader skips to it.
    assert!(html.contains("<main><h1>") && html.ends_with("</main></body></html>\n"));
    assert!(!html.contains("href=\"/") && html.contains("href=\"./\""));
    assert!(html.contains("<code>nvidia-smi -i N -r</code>") && html.contains(ORDER) && !html.contains('`'));
    let page = reply(Some("text/html"));
    let policy = page.headers.iter().find(|(name, _)| *name == "Content-Security-Policy").expect("it has one");
    assert!(!html.contains("<script") && !policy.1.contains("script-src"), "{policy:?}");
}

#[test]
fn the_hash_is_that_of_the_style() {
    page::tests::check_hashes("src/api/codes_answer.rs", &[("STYLE_HASH", STYLE)]);
}
