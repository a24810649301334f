//! A message as its receiver expects it, within the receiver's limits.

use serde::Serialize;
use serde_json::json;

use super::call::Message;
use super::event::{Event, EventKind};
use super::text;
use crate::config::{NotifyFormat, NotifyTarget};
use crate::health::verdict::{Reason, Verdict};
use crate::sys::json::{json as to_json, millis};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Characters. Slack splits or cuts longer texts.
const SLACK: usize = 3900;
const DISCORD: usize = 2000;
/// Bytes: ntfy makes an attachment of a longer message, and refuses a longer title.
const NTFY: usize = 4096;
const NTFY_TITLE: usize = 1024;

/// The body of `NOTIFY_FORMAT=json`.
#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    /// Identifies the message; retries have the same.
    id: &'a str,
    /// Version of this format.
    version: u8,
    worker: &'a str,
    verdict: Option<Verdict>,
    /// What the receiver knew; null before the first message.
    previous: Option<Verdict>,
    /// Unix seconds.
    since: f64,
    reasons: &'a [Reason],
    /// Usable ones.
    gpus: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    flapping: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<u32>,
    text: &'a str,
}

/// The URL and what is sent there. `previous`: what the receiver knows.
pub(super) fn request(target: &NotifyTarget, event: &Event, previous: Option<Verdict>) -> (String, Message) {
    let text = text::of(event, previous);
    let url = target.url.expose().to_owned();
    let (url, kind, body) = match target.format {
        NotifyFormat::Json => (url, JSON, full(event, previous, &text)),
        NotifyFormat::Text => (url, TEXT, text),
        NotifyFormat::Slack => (url, JSON, json!({ "text": escaped(&text, SLACK) }).to_string()),
        NotifyFormat::Discord => {
            let content = cut(&text, DISCORD, |_| 1);
            (url, JSON, json!({ "content": content, "allowed_mentions": { "parse": [] } }).to_string())
        }
        NotifyFormat::Ntfy => ntfy(target, event, &text),
    };
    (url, Message { body: Some((kind, body)), headers: vec![("Idempotency-Key", event.id.clone())] })
}

fn full(event: &Event, previous: Option<Verdict>, text: &str) -> String {
    let standing = event.standing.as_ref();
    to_json(&Body {
        event: event.kind.name(),
        id: &event.id,
        version: 1,
        worker: &event.worker,
        verdict: event.verdict(),
        previous,
        since: millis(event.since),
        reasons: standing.map_or(&[], |standing| &standing.reasons),
        gpus: standing.map(|standing| standing.gpus),
        flapping: event.flapping.is_some(),
        changes: event.flapping.map(|flapping| flapping.changes),
        text,
    })
}

/// As JSON to the server's root: headers would need an encoding of their own.
fn ntfy(target: &NotifyTarget, event: &Event, text: &str) -> (String, &'static str, String) {
    let (root, topic) = target.url.ntfy_topic().unwrap_or_else(|| (target.url.expose().to_owned(), String::new()));
    let (priority, tag) = match (event.kind, event.verdict()) {
        (EventKind::Test, _) => (3, "test_tube"),
        (EventKind::Stopping, _) => (4, "octagonal_sign"),
        (_, Some(Verdict::Ok)) => (3, "white_check_mark"),
        (_, Some(Verdict::Unhealthy)) => (5, "rotating_light"),
        (_, Some(Verdict::Degraded)) => (4, "warning"),
        (_, Some(Verdict::Unknown) | None) => (4, "question"),
    };
    let body = json!({
        "topic": topic,
        "title": cut(&text::title(event), NTFY_TITLE, char::len_utf8),
        "message": cut(text, NTFY, char::len_utf8),
        "priority": priority,
        "tags": [tag],
    });
    (root, JSON, body.to_string())
}

/// The start of a text: `size` of all its characters together is at most `most`. It ends with `…` where it is cut.
fn cut(text: &str, most: usize, size: impl Fn(char) -> usize) -> String {
    if text.chars().map(&size).sum::<usize>() <= most {
        return text.to_owned();
    }
    let mut left = most - size('…');
    let fits = |c: &char| {
        left = left.wrapping_sub(size(*c));
        left <= most
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// For Slack, which reads `&`, `<` and `>` as markup. No escape is cut in half.
fn escaped(text: &str, most: usize) -> String {
    let size = |c| match c {
        '&' => "&amp;".len(),
        '<' | '>' => "&lt;".len(),
        _ => 1,
    };
    cut(text, most, size).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::config::SecretUrl;
    use crate::notify::event::{Flapping, samples};

    fn sent(url: &str, format: NotifyFormat, event: &Event) -> (String, &'static str, String) {
        let target = NotifyTarget { url: SecretUrl::parse(url).unwrap(), format };
        let (url, message) = request(&target, event, Some(Verdict::Ok));
        assert_eq!(message.headers, [("Idempotency-Key", event.id.clone())]);
        let (kind, body) = message.body.unwrap();
        (url, kind, body)
    }

    fn long() -> Event {
        let mut standing = samples::lost();
        standing.reasons[0].message = format!("GPU 0 <&>\u{202e}\n{}", "<模&".repeat(3000));
        Event::new(EventKind::Verdict, &Arc::from("w".repeat(5000)), Some(standing), 1000.5)
    }

    fn lost() -> Event {
        Event::new(EventKind::Verdict, &Arc::from("cellar"), Some(samples::lost()), 1000.5)
    }

    #[test]
    fn json_has_the_fields_of_the_contract() {
        let (url, kind, body) = sent("https://h/hook?x=1", NotifyFormat::Json, &lost());
        assert_eq!((url.as_str(), kind), ("https://h/hook?x=1", JSON));
        let body: Value = serde_json::from_str(&body).unwrap();
        let reasons = serde_json::to_value(samples::lost().reasons).unwrap();
        let expect = json!({
            "event": "verdict", "id": lost().id, "version": 1, "worker": "cellar", "verdict": "unhealthy",
            "previous": "ok", "since": 1000.5, "reasons": reasons, "gpus": 2,
            "text": "cellar is unhealthy: GPU 0: gpu_lost (GPU_LOST). Reboot the host.",
        });
        assert_eq!(body, expect);
        let flapping = Some(Flapping { changes: 7, during: std::time::Duration::from_secs(120) });
        let (.., body) = sent("https://h", NotifyFormat::Json, &Event { flapping, ..lost() });
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["flapping"], &body["changes"]), (&json!(true), &json!(7)));
    }

    #[test]
    fn each_receiver_gets_what_it_expects() {
        let text = "cellar is unhealthy: GPU 0: gpu_lost (GPU_LOST). Reboot the host.";
        assert_eq!(sent("https://h/x", NotifyFormat::Text, &lost()), ("https://h/x".into(), TEXT, text.into()));
        let body = |format| serde_json::from_str::<Value>(&sent("https://h/x", format, &lost()).2).unwrap();
        assert_eq!(body(NotifyFormat::Slack), json!({ "text": text }));
        assert_eq!(body(NotifyFormat::Discord), json!({ "content": text, "allowed_mentions": { "parse": [] } }));
        let (url, _, body) = sent("https://:tk_1@ntfy.example/base/gpus?a=b", NotifyFormat::Ntfy, &lost());
        assert_eq!(url, "https://ntfy.example/base/?a=b");
        let title = "cellar: unhealthy";
        let expect =
            json!({ "topic": "gpus", "title": title, "message": text, "priority": 5, "tags": ["rotating_light"] });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expect);
    }

    #[test]
    fn a_long_text_keeps_each_limit_and_breaks_no_character() {
        let body = |format| serde_json::from_str::<Value>(&sent("https://h/x", format, &long()).2).unwrap();
        let slack = body(NotifyFormat::Slack)["text"].as_str().unwrap().to_owned();
        assert!(slack.chars().count() < 4000 && !slack.contains('<') && slack.contains("&lt;"), "{slack}");
        assert!(body(NotifyFormat::Discord)["content"].as_str().unwrap().chars().count() <= DISCORD);
        let ntfy = body(NotifyFormat::Ntfy);
        assert!(ntfy["message"].as_str().unwrap().len() <= NTFY);
        assert!(ntfy["title"].as_str().unwrap().len() <= NTFY_TITLE);
    }

    #[test]
    fn a_text_is_cut_where_it_must_be() {
        assert_eq!(cut("äöü", 3, |_| 1), "äöü");
        assert_eq!(cut("äöüß", 3, |_| 1), "äö…");
        assert_eq!(cut("äöüß", 8, char::len_utf8), "äöüß");
        assert_eq!(cut("äöüßx", 8, char::len_utf8), "äö…");
        assert_eq!(escaped("a&b", 7), "a&amp;b");
        assert_eq!(escaped("a&b", 6), "a…");
    }
}
