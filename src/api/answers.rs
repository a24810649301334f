//! The bodies of GET /uptime and GET /agents.

use std::collections::BTreeMap;

use serde::Serialize;

use super::agents::{AgentRow, Agents, MAX_AGENTS};
use crate::health::uptime::{Minute, WINDOWS, Windows};
use crate::sys::json::{json, millis};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Uptime"))]
pub(crate) struct UptimeAnswer<'a> {
    status: &'static str,
    timestamp: f64,
    #[cfg_attr(test, schemars(schema_with = "crate::api::openapi::tests::by_window::<WindowRow>"))]
    windows: BTreeMap<&'static str, WindowRow>,
    /// False: it is lost when the worker ends (STATE_DIR is unset).
    kept: bool,
    /// Whose minutes follow.
    window: &'a str,
    /// Those on record, in order of time.
    minutes: Vec<MinuteRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Window"))]
pub(crate) struct WindowRow {
    /// Of the time since the first minute on record: time when nothing ran is not up.
    percent: Option<f64>,
    /// Of the time in which the worker could tell.
    availability_percent: Option<f64>,
    /// The share of the first that is the second.
    coverage_percent: Option<f64>,
    up_seconds: u32,
    down_seconds: u32,
    unobserved_seconds: u32,
    threshold_percent: f64,
    /// It is below the threshold, and long enough to tell.
    low: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Minutes"))]
struct MinuteRow {
    /// Unix seconds at which it begins.
    start: u64,
    up_seconds: u32,
    down_seconds: u32,
}

/// The windows, and the minutes of one of them: `step` of them are told as one.
pub(crate) fn uptime(
    (window, step): (&str, u32),
    windows: &Windows,
    minutes: &[Minute],
    thresholds: [f64; 3],
    kept: bool,
    now: f64,
) -> String {
    let rows = WINDOWS.iter().zip(windows).zip(thresholds).map(|(((name, _), w), threshold)| {
        let row = WindowRow {
            percent: w.percent(),
            availability_percent: w.availability(),
            coverage_percent: w.coverage(),
            up_seconds: w.up,
            down_seconds: w.down,
            unobserved_seconds: w.span.saturating_sub(w.up + w.down),
            threshold_percent: threshold,
            low: w.is_low(threshold),
        };
        (*name, row)
    });
    let same_step = |a: &Minute, b: &Minute| a.at / step == b.at / step;
    let sum = |of: &[Minute], seconds: fn(&Minute) -> u8| of.iter().map(|minute| u32::from(seconds(minute))).sum();
    let row = |all: &[Minute]| MinuteRow {
        start: all.first().map_or(0, |first| u64::from(first.at / step * step) * 60),
        up_seconds: sum(all, |minute| minute.up),
        down_seconds: sum(all, |minute| minute.down),
    };
    json(&UptimeAnswer {
        status: "success",
        timestamp: millis(now),
        windows: rows.collect(),
        kept,
        window,
        minutes: minutes.chunk_by(same_step).map(row).collect(),
    })
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Agents"))]
pub(crate) struct AgentsAnswer<'a> {
    status: &'static str,
    timestamp: f64,
    agents: Vec<AgentRow<'a>>,
    /// More are not kept.
    max: usize,
    /// Agents that made room for others.
    forgotten: u64,
}

/// Who has asked, the last one first.
pub(crate) fn agents(agents: &Agents, now: f64) -> String {
    json(&AgentsAnswer {
        status: "success",
        timestamp: millis(now),
        agents: agents.rows(),
        max: MAX_AGENTS,
        forgotten: agents.forgotten(),
    })
}
