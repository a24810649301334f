//! The bodies of GET /uptime, GET /agents, GET /jobs and GET /peers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::agents::{AgentRow, Agents, MAX_AGENTS};
use super::parameters::UptimeQuery;
use crate::health::uptime::{Minute, WINDOWS, Windows};
use crate::peers::row::PeerRow;
use crate::sys::counters::JobTotals;
use crate::sys::json::{json, millis};
use crate::sys::order;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Uptime"))]
pub(crate) struct UptimeAnswer<'a> {
    status: &'static str,
    timestamp: f64,
    #[cfg_attr(test, schemars(schema_with = "crate::api::openapi::tests::by_window::<WindowRow>"))]
    windows: BTreeMap<&'static str, WindowRow>,
    /// Whether the history outlives the worker: false if STATE_DIR is unset.
    kept: bool,
    /// The window whose minutes are listed: 1h, 24h or 30d.
    window: &'a str,
    /// The minutes of this window that are on record, in order of time, summed up by the requested step.
    minutes: Vec<MinuteRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Window"))]
pub(crate) struct WindowRow {
    /// Time up as a share of the time since the first minute on record; time when the worker did not run counts as down.
    percent: Option<f64>,
    /// Time up as a share of the observed time.
    availability_percent: Option<f64>,
    /// Observed time as a share of the time since the first minute on record.
    coverage_percent: Option<f64>,
    up_seconds: u32,
    down_seconds: u32,
    unobserved_seconds: u32,
    threshold_percent: f64,
    /// Whether `percent` is below `threshold_percent`, with enough time on record.
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

/// The windows, and the minutes of one of them.
pub(crate) fn uptime(
    query: UptimeQuery,
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
    let step = query.step;
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
        windows: order::map(rows),
        kept,
        window: query.window,
        minutes: minutes.chunk_by(same_step).map(row).collect(),
    })
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Agents"))]
pub(crate) struct AgentsAnswer<'a> {
    status: &'static str,
    timestamp: f64,
    agents: Vec<AgentRow<'a>>,
    /// Most agents that are kept.
    max: usize,
    /// Agents that were dropped to make room for others.
    forgotten: u64,
}

/// Agents that have sent jobs, the latest first.
pub(crate) fn agents(agents: &Agents, now: f64) -> String {
    json(&AgentsAnswer {
        status: "success",
        timestamp: millis(now),
        agents: agents.rows(),
        max: MAX_AGENTS,
        forgotten: agents.forgotten(),
    })
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Peers"))]
pub(crate) struct PeersAnswer {
    status: &'static str,
    timestamp: f64,
    /// The workers of PEERS, in its order.
    peers: Vec<PeerRow>,
}

/// The workers of PEERS.
pub(crate) fn peers(peers: Vec<PeerRow>, now: f64) -> String {
    json(&PeersAnswer { status: "success", timestamp: millis(now), peers })
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Jobs"))]
pub(crate) struct JobsAnswer {
    status: &'static str,
    /// Unix seconds of this answer.
    timestamp: f64,
    /// Jobs in progress.
    in_progress: usize,
    /// CAPABILITY_CAPACITY.
    capacity: usize,
    /// Jobs since the start of the worker, by route.
    routes: Vec<JobRouteRow>,
    duration: JobDurations,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "JobRoute"))]
struct JobRouteRow {
    route: &'static str,
    /// Jobs answered with status 2xx.
    served: u64,
    /// Jobs answered with status 4xx.
    rejected: u64,
    /// Jobs answered with status 503.
    busy: u64,
    /// Jobs answered with status 5xx other than 503.
    failed: u64,
    /// Jobs by status.
    statuses: BTreeMap<u16, u64>,
}

/// How long jobs took, from a whole request to its answer. A quantile is the upper bound of its bucket in
/// agent_net_job_duration_seconds; null without jobs, or above the largest bound.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "JobDurations"))]
struct JobDurations {
    count: u64,
    sum_seconds: f64,
    p50_seconds: Option<f64>,
    p90_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// `(in_progress, capacity)`: jobs now, and the most at a time.
pub(crate) fn jobs(totals: &JobTotals, (in_progress, capacity): (usize, usize), now: f64) -> String {
    let mut routes: BTreeMap<&'static str, BTreeMap<u16, u64>> = BTreeMap::new();
    for ((route, status), count) in &totals.answered {
        routes.entry(route).or_default().insert(*status, *count);
    }
    let row = |(route, statuses): (&'static str, BTreeMap<u16, u64>)| {
        let sum = |class: fn(u16) -> bool| statuses.iter().filter(|(s, _)| class(**s)).map(|(_, count)| count).sum();
        JobRouteRow {
            route,
            served: sum(|status| status < 400),
            rejected: sum(|status| (400..500).contains(&status)),
            busy: sum(|status| status == 503),
            failed: sum(|status| status >= 500 && status != 503),
            statuses,
        }
    };
    json(&JobsAnswer {
        status: "success",
        timestamp: millis(now),
        in_progress,
        capacity,
        routes: routes.into_iter().map(row).collect(),
        duration: JobDurations {
            count: totals.times.iter().sum(),
            sum_seconds: totals.total.as_secs_f64(),
            p50_seconds: totals.quantile(0.5),
            p90_seconds: totals.quantile(0.9),
            p99_seconds: totals.quantile(0.99),
        },
    })
}

#[test]
fn jobs_are_summed_by_route_and_result() {
    let stats = crate::sys::counters::JobStats::default();
    for (route, status) in [("/a", 200), ("/a", 200), ("/a", 400), ("/a", 413), ("/a", 500), ("/a", 503), ("/b", 503)] {
        stats.count(route, status, std::time::Duration::from_millis(1));
    }
    let answer: serde_json::Value = serde_json::from_str(&jobs(&stats.totals(), (1, 10), 5.0)).expect("JSON");
    let results = ["served", "rejected", "busy", "failed"];
    let row = |at: usize| results.map(|result| answer["routes"][at][result].as_u64().expect("a number"));
    assert_eq!((row(0), row(1)), ([2, 2, 1, 1], [0, 0, 1, 0]));
    assert_eq!(answer["routes"][0]["statuses"], serde_json::json!({"200": 2, "400": 1, "413": 1, "500": 1, "503": 1}));
    let duration = &answer["duration"];
    assert_eq!((duration["count"].as_u64(), duration["p99_seconds"].as_f64()), (Some(7), Some(0.001)));
    assert_eq!((answer["in_progress"].as_u64(), answer["capacity"].as_u64()), (Some(1), Some(10)));
}

#[test]
fn minutes_are_summed_by_steps_of_the_clock_and_what_was_not_seen_is_neither_up_nor_down() {
    use crate::health::uptime::{Seen, Uptime, Window};
    let mut seen = Uptime::new();
    // Minutes 3 to 7: 60 seconds up and then 30 down, in observations of five seconds.
    for (at, state) in (180..480_u32).step_by(5).zip([Seen::Up; 12].into_iter().chain([Seen::Down; 6]).cycle()) {
        seen.observe(state, std::time::Duration::from_secs(at.into()), at.into());
    }
    let query = UptimeQuery { window: "1h", minutes: 60, step: 5 };
    let windows = [Window { span: 600, up: 300, down: 200 }, Window::default(), Window::default()];
    let text = uptime(query, &windows, &seen.history(480.0, 60), [99.0; 3], true, 480.0);
    let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let starts: Vec<_> = answer["minutes"].as_array().unwrap().iter().map(|row| row["start"].clone()).collect();
    assert_eq!(starts, [0, 300]);
    let hour = &answer["windows"]["1h"];
    let seconds = ["up_seconds", "down_seconds", "unobserved_seconds"].map(|name| hour[name].as_u64());
    assert_eq!(seconds, [Some(300), Some(200), Some(100)]);
}
