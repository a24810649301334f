//! The entry as it is sent with each beat, and as a line of an operator's own list.

use crate::config::price::Price;
use serde::Serialize;

use super::card::{Card, Cards, static_metadata};
use crate::config::RunnerConfig;

/// The whole entry: each beat replaces the previous one, so nothing may be left out.
#[derive(Debug, Serialize)]
pub(crate) struct Beat<'a> {
    pub(crate) runner_id: &'a str,
    pub(crate) runner_url: &'a str,
    pub(crate) app: &'a str,
    pub(crate) mode: &'static str,
    pub(crate) capacity: u32,
    pub(crate) status: RunnerStatus,
    pub(crate) version: &'static str,
    /// JSON as text, at most 1,024 bytes.
    pub(crate) metadata: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<&'a Card>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price_info: Option<&'a Price>,
}

pub(crate) const MODE: &str = "single-shot";

/// Jobs are sent only while it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunnerStatus {
    Ready,
    Unavailable,
    Draining,
}

impl RunnerStatus {
    /// `wanted`: jobs may come.
    pub(crate) fn of(stopping: bool, wanted: bool) -> Self {
        match (stopping, wanted) {
            (true, _) => Self::Draining,
            (false, true) => Self::Ready,
            (false, false) => Self::Unavailable,
        }
    }
}

/// The path at which go-livepeer probes a static runner. It appends it to the runner's URL.
pub(crate) const HEALTH_URL: &str = "/ready";

/// This worker's entry for a runners.json (-liveRunnerConfig): an operator's own list, which needs no secret and probes
/// GET /ready. On-chain orchestrators require a price, and clients may filter by GPU.
pub(crate) fn static_entry(own: &RunnerConfig, url: &str, capacity: u32, cards: &Cards) -> String {
    #[derive(Serialize)]
    struct Entry<'a> {
        label: &'a str,
        routing: &'static str,
        runner_url: &'a str,
        health_url: &'static str,
        healthy_status_code: u16,
        app: &'a str,
        version: &'static str,
        metadata: String,
        mode: &'static str,
        capacity: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        gpu: Option<&'a Card>,
        #[serde(skip_serializing_if = "Option::is_none")]
        price_info: Option<&'a Price>,
    }
    #[derive(Serialize)]
    struct List<'a> {
        runners: [Entry<'a>; 1],
    }
    let entry = Entry {
        label: &own.id,
        routing: "label",
        runner_url: url,
        health_url: HEALTH_URL,
        healthy_status_code: 200,
        app: &own.app,
        version: env!("CARGO_PKG_VERSION"),
        metadata: static_metadata(cards),
        mode: MODE,
        capacity,
        gpu: cards.first(),
        price_info: own.price.as_ref(),
    };
    serde_json::to_string_pretty(&List { runners: [entry] }).unwrap_or_default() + "\n"
}
