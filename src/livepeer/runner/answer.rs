//! What the answers of a Live Runner registry mean.

use std::time::Duration;

use serde::Deserialize;

use crate::config::Secret;
use crate::config::go;
use crate::config::price::Price;
use crate::sys::text;

/// An orchestrator's answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BeatAnswer {
    Taken {
        /// Only to the first beat.
        secret: Option<String>,
        interval: Option<Duration>,
        ttl: Option<Duration>,
        /// Where it wants further beats.
        orchestrator: Option<String>,
    },
    /// 401: the id is not registered, or the orchestrator's secret is a different one.
    NotRegistered,
    /// 401: this id is held.
    Held,
    /// 404: the id has expired and is not free yet.
    Expired,
    /// 401 for one of the reasons above, with its text: livepeer/node has one text for all.
    Unclear(String),
    /// 404: no Live Runner registry.
    Absent,
    /// 400 or 403, with the orchestrator's text and what to do.
    Rejected(String),
    /// No answer, or a server error.
    Failed {
        /// Its label in metrics.
        kind: &'static str,
        why: String,
    },
}

/// Reads an answer by its status, and by its text where that is ambiguous. `secret` and `price`: what was sent.
pub(crate) fn beat_answer(status: u16, body: &str, secret: Option<&str>, price: Option<&Price>) -> BeatAnswer {
    #[derive(Deserialize)]
    struct Taken {
        runner_id: String,
        heartbeat_secret: Option<String>,
        heartbeat_interval: Option<String>,
        heartbeat_ttl: Option<String>,
        orchestrator: Option<String>,
    }
    let words = || text::start(&text::without(body, secret), 200);
    let failed = |why: String| BeatAnswer::Failed { kind: "no_answer", why };
    match status {
        200 => match serde_json::from_slice::<Taken>(body.as_bytes()) {
            Ok(taken) if !taken.runner_id.is_empty() => BeatAnswer::Taken {
                secret: taken.heartbeat_secret.filter(|secret| Secret::fits(secret)),
                interval: taken.heartbeat_interval.as_deref().and_then(go::duration),
                ttl: taken.heartbeat_ttl.as_deref().and_then(go::duration),
                orchestrator: taken.orchestrator.filter(|url| !url.trim().is_empty()),
            },
            _ => failed("its answer 200 is not a Live Runner registry's".into()),
        },
        401 if body.contains("registration authorization") => BeatAnswer::NotRegistered,
        401 if body.contains("heartbeat authorization") => BeatAnswer::Held,
        401 => BeatAnswer::Unclear(format!("401: {}", words())),
        404 if body.contains("runner not found") => BeatAnswer::Expired,
        404 => BeatAnswer::Absent,
        400 | 403 => BeatAnswer::Rejected(format!("{}{}", words(), price_action(body, price))),
        _ => failed(format!("it answered {status}: {}", words())),
    }
}

/// What to do about a rejected price.
fn price_action(words: &str, price: Option<&Price>) -> &'static str {
    let about = ["price", "unit", "720p"].iter().any(|word| words.contains(word));
    match price {
        None if about => ". Set RUNNER_PRICE, e.g. 0.0005usd/fixed: an on-chain orchestrator requires a price.",
        Some(price) if about && price.is_per_frame() => {
            ". Use fixed or hour in RUNNER_PRICE: livepeer/node does not know 720p."
        }
        Some(_) if about => ". Check RUNNER_PRICE.",
        _ => "",
    }
}

/// Whether the start of an answer 200 to GET /discovery is a registry's: a list.
pub(crate) fn lists_runners(body: &str) -> bool {
    let body = body.trim_start_matches('\u{feff}').trim();
    // Go writes an empty list as null.
    body.starts_with('[') || body == "null"
}
