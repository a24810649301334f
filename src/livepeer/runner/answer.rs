//! What the answers of a Live Runner registry mean.

use std::time::Duration;

use serde::Deserialize;

use crate::config::go;
use crate::config::price::Price;

/// What an orchestrator said to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken {
        /// Only to the first beat.
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
        /// Where it wants further beats.
        orchestrator: Option<String>,
    },
    /// 401: nobody has this id; or the orchestrator's own secret is another.
    NotRegistered,
    /// 401: this id is held.
    Held,
    /// 404: nobody holds this id any more, but it is not free yet.
    Expired,
    /// 401 for either reason, with the words: livepeer/node has one text for all.
    Unclear(String),
    /// 404: there is no such registry.
    Absent,
    /// 400 or 403, with the orchestrator's words and what to do.
    Refused(String),
    /// No answer, or a server in trouble.
    Trouble {
        /// What metrics call it.
        kind: &'static str,
        why: String,
    },
}

/// Reads an answer by its status; texts only tell apart what has one status. `price`: what was sent.
pub(crate) fn judge(status: u16, body: &str, price: Option<&Price>) -> Answer {
    #[derive(Deserialize)]
    struct Taken {
        runner_id: String,
        heartbeat_secret: Option<String>,
        heartbeat_interval: Option<String>,
        heartbeat_ttl: Option<String>,
        orchestrator: Option<String>,
    }
    let words = || crate::sys::text::start(body, 200);
    let trouble = |why: String| Answer::Trouble { kind: "no_answer", why };
    match status {
        200 => match serde_json::from_str::<Taken>(body) {
            Ok(taken) if !taken.runner_id.is_empty() => Answer::Taken {
                secret: taken.heartbeat_secret.filter(|secret| !secret.is_empty()),
                interval: taken.heartbeat_interval.as_deref().and_then(go::duration),
                ttl: taken.heartbeat_ttl.as_deref().and_then(go::duration),
                orchestrator: taken.orchestrator.filter(|url| !url.trim().is_empty()),
            },
            _ => trouble("its 200 is not an answer of a Live Runner registry".into()),
        },
        401 if body.contains("registration authorization") => Answer::NotRegistered,
        401 if body.contains("heartbeat authorization") => Answer::Held,
        401 => Answer::Unclear(format!("401: {}", words())),
        404 if body.contains("runner not found") => Answer::Expired,
        404 => Answer::Absent,
        400 | 403 => Answer::Refused(format!("{}{}", words(), cure(body, price))),
        _ => trouble(format!("it answered {status}: {}", words())),
    }
}

/// What to do about a refused price.
fn cure(words: &str, price: Option<&Price>) -> &'static str {
    let about = ["price", "unit", "720p"].iter().any(|word| words.contains(word));
    match price {
        None if about => {
            "; set RUNNER_PRICE, e.g. 0.0005usd/fixed: an orchestrator on-chain takes no runner without a price"
        }
        Some(price) if about && price.is_per_frame() => {
            "; RUNNER_PRICE is per 720p, which livepeer/node does not know: use fixed or hour"
        }
        Some(_) if about => "; RUNNER_PRICE is what it refuses",
        _ => "",
    }
}

/// Whether a 200 of GET /discovery, of which this is the beginning, is a registry's: a list, however long.
pub(crate) fn lists_runners(body: &str) -> bool {
    let body = body.trim_start_matches('\u{feff}').trim();
    // Go writes an empty list as null.
    body.starts_with('[') || body == "null"
}
