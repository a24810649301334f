//! A peer as it is shown: what its last report says, and whether it responds.

use std::time::Duration;

use serde::Serialize;

use super::report::PeerReport;
use crate::health::verdict::Verdict;
use crate::sys::json::millis;

/// What is known of a peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The last report, and when it came: since the start, and in Unix seconds.
    last: Option<(PeerReport, Duration, f64)>,
    /// The last request: None before the first, else why there was no report, if so.
    outcome: Option<Result<(), String>>,
}

impl Known {
    /// The end of a request: since the start, and in Unix seconds.
    pub(super) fn hear(&mut self, answer: Result<PeerReport, String>, at: Duration, now: f64) {
        self.outcome = Some(answer.map(|report| self.last = Some((report, at, now))));
    }

    pub(super) fn is_reachable(&self) -> Option<bool> {
        self.outcome.as_ref().map(Result::is_ok)
    }

    /// `name` and `url` without a login. `now`: since the start.
    pub(super) fn row(&self, name: &str, url: &str, now: Duration) -> PeerRow {
        let error = self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
        let reachable = self.is_reachable();
        let aged = self.last.as_ref().map(|(report, at, _)| {
            let since = u64::try_from(now.saturating_sub(*at).as_millis()).unwrap_or(u64::MAX);
            PeerReport { sample_age_ms: report.sample_age_ms.saturating_add(since), ..report.clone() }
        });
        PeerRow {
            peer: name.to_owned(),
            url: url.to_owned(),
            verdict: aged
                .as_ref()
                .filter(|_| reachable == Some(true))
                .map_or(Verdict::Unknown, |report| report.verdict),
            reachable,
            error: error.cloned(),
            last_reached: self.last.as_ref().map(|(_, _, unix)| millis(*unix)),
            report: aged,
        }
    }
}

/// One row of GET /peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Peer"))]
pub(crate) struct PeerRow {
    /// Host, port and path, as PEERS has them.
    pub(crate) peer: String,
    /// The peer's base URL, without the login.
    url: String,
    /// Verdict of its report; unknown while it does not send one.
    verdict: Verdict,
    /// Whether the last request got a report; null before the first.
    pub(crate) reachable: Option<bool>,
    /// Why the last request got no report; null if it got one.
    error: Option<String>,
    /// Unix seconds of the last report.
    last_reached: Option<f64>,
    /// What the last report says, also after the peer stopped responding; null without one.
    report: Option<PeerReport>,
}

#[test]
fn a_peer_that_stops_responding_keeps_its_last_report_and_is_unknown() {
    use super::report::tests::of;
    let at = Duration::from_secs;
    let mut known = Known::default();
    let row = known.row("h:1", "http://h:1", at(0));
    assert_eq!((row.verdict, row.reachable, row.error, row.report), (Verdict::Unknown, None, None, None));
    known.hear(Ok(of(Verdict::Degraded)), at(10), 1000.0);
    let row = known.row("h:1", "http://h:1", at(12));
    assert_eq!((row.verdict, row.reachable, row.last_reached), (Verdict::Degraded, Some(true), Some(1000.0)));
    assert_eq!(row.report.map(|report| report.sample_age_ms), Some(2000));
    known.hear(Err("connection refused".into()), at(25), 1015.0);
    let row = known.row("h:1", "http://h:1", at(40));
    assert_eq!((row.verdict, row.reachable, row.last_reached), (Verdict::Unknown, Some(false), Some(1000.0)));
    assert_eq!(
        (row.error.as_deref(), row.report.as_ref().map(|r| r.sample_age_ms)),
        (Some("connection refused"), Some(30_000))
    );
    assert_eq!(row.report.map(|report| report.verdict), Some(Verdict::Degraded));
    known.hear(Ok(of(Verdict::Ok)), at(45), 1035.0);
    assert_eq!(known.row("h:1", "http://h:1", at(45)).verdict, Verdict::Ok);
}
