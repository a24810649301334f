//! The verdict and its reasons as they are now: those of the last snapshot, and that it is too old.

use std::time::Duration;

use super::snapshot::Snapshot;
use super::verdict::{self, Reason, Verdict};
use crate::sys::order;
use crate::sys::text::start;

/// What notifications, the heartbeat and systemd's status report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) verdict: Verdict,
    /// Worst first.
    pub(crate) reasons: Vec<Reason>,
    /// Usable GPUs.
    pub(crate) gpus: usize,
}

impl Standing {
    /// `interval`: SAMPLE_INTERVAL. `age`: of the snapshot. `now`: Unix seconds.
    pub(crate) fn new(snapshot: &Snapshot, interval: Duration, age: Duration, now: f64) -> Self {
        let stale = verdict::stale(age, interval, now);
        let mut reasons: Vec<Reason> = stale.into_iter().chain(snapshot.reasons.iter().cloned()).collect();
        order::sort_by_key(&mut reasons, |reason| std::cmp::Reverse(reason.severity));
        Self { verdict: verdict::worst(&reasons), reasons, gpus: snapshot.gpu_count() }
    }

    /// `degraded: TEMP_HIGH GPU 0, STALE`; without reasons the verdict alone. At most `most` characters.
    pub(crate) fn summary(&self, most: usize) -> String {
        self.summary_of(most, |_| true)
    }

    /// The summary with only these reasons; the number of the others is at its end.
    pub(crate) fn summary_of(&self, most: usize, shown: impl Fn(&Reason) -> bool) -> String {
        let (shown, others): (Vec<&Reason>, Vec<&Reason>) = self.reasons.iter().partition(|reason| shown(reason));
        let mut parts: Vec<String> = shown.into_iter().map(in_short).collect();
        if !others.is_empty() {
            parts.push(format!("{} more", others.len()));
        }
        let colon = if parts.is_empty() { "" } else { ": " };
        start(&format!("{}{colon}{}", self.verdict, parts.join(", ")), most)
    }
}

/// The code, and the GPU with which the message begins.
fn in_short(reason: &Reason) -> String {
    let thing = reason.message.split_once(": ").map_or("", |(thing, _)| thing);
    match thing.strip_prefix("GPU ").filter(|index| index.bytes().all(|b| b.is_ascii_digit())) {
        Some(_) => format!("{} {thing}", reason.code),
        None => reason.code.to_string(),
    }
}

#[test]
fn a_summary_is_one_short_line() {
    use super::verdict::Code;
    let reason = |code, message: &str| {
        let gpu = message.starts_with("GPU").then(|| "GPU-0".to_owned());
        Reason::new(code, Verdict::Degraded, gpu, message.into(), "Do it.", 1.0)
    };
    let mut standing = Standing { verdict: Verdict::Ok, reasons: Vec::new(), gpus: 1 };
    assert_eq!(standing.summary(200), "ok");
    standing.verdict = Verdict::Degraded;
    standing.reasons = vec![
        reason(Code::TempHigh, "GPU 0: 95 degrees"),
        reason(Code::Stale, "Last GPU sample is 5 s old"),
        reason(Code::NvmlHelperFailed, "GPU helper: gone"),
    ];
    assert_eq!(standing.summary(200), "degraded: TEMP_HIGH GPU 0, STALE, NVML_HELPER_FAILED");
    assert_eq!(standing.summary(20), "degraded: TEMP_HIGH ");
    let healthy = standing.summary_of(200, |reason| !reason.code.name().contains("FAIL"));
    assert_eq!(healthy, "degraded: TEMP_HIGH GPU 0, STALE, 1 more");
}
