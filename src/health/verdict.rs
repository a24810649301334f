//! A verdict is the worst of all reasons; a reason has a code, a message and an action. Unknown is never ok. The rules
//! that find reasons are in `rules`.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

pub(crate) use super::codes::Code;
pub(crate) use super::severity::Verdict;
use crate::gpu::sample::Gpu;

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Reason {
    pub(crate) code: Code,
    pub(crate) severity: Verdict,
    /// UUID (else `gpuN`) of the GPU that it is about; absent if it is about the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<String>,
    /// What was measured; absent where the rule compares no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    /// What it was measured against; absent where the rule compares no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<f64>,
    /// The state, beginning with the thing: `GPU 1: …`.
    pub(crate) message: String,
    /// The next step, as a sentence of its own.
    pub(crate) action: Cow<'static, str>,
    /// Unix seconds at which it was first seen without a gap.
    pub(crate) since: f64,
    /// Where the code is explained: a path of this worker.
    help: &'static str,
}

impl Reason {
    /// Without numbers. `since`: Unix seconds.
    pub(crate) fn new(
        code: Code,
        severity: Verdict,
        gpu: Option<String>,
        message: String,
        action: impl Into<Cow<'static, str>>,
        since: f64,
    ) -> Self {
        let (action, help) = (action.into(), code.help());
        Self { code, severity, gpu, value: None, threshold: None, message, action, since, help }
    }

    /// The same finding under another code.
    pub(crate) fn recode(&mut self, code: Code) {
        (self.code, self.help) = (code, code.help());
    }

    /// What was measured, and what it was measured against.
    pub(crate) fn numbers(&mut self, value: impl Into<f64>, threshold: impl Into<f64>) {
        (self.value, self.threshold) = (Some(value.into()), Some(threshold.into()));
    }

    /// The same finding at another moment.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.code == other.code && self.severity == other.severity && self.gpu == other.gpu
    }
}

/// The worst of `reasons`.
pub(crate) fn worst<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> Verdict {
    reasons.into_iter().map(|r| r.severity).max().unwrap_or(Verdict::Ok)
}

/// The verdict of one GPU: the worst of its reasons. A GPU that does not answer is never ok.
pub(crate) fn of_gpu(gpu: &Gpu, reasons: &[Reason]) -> Verdict {
    let id = gpu.id();
    let of_reasons = worst(reasons.iter().filter(|r| r.gpu.as_ref() == Some(&id)));
    if gpu.usable() { of_reasons } else { of_reasons.max(Verdict::Unknown) }
}

/// A sample of this age is useless whatever the interval.
const STALE_UNHEALTHY: Duration = Duration::from_secs(300);
/// A younger sample is never stale: a short SAMPLE_INTERVAL must not raise false alarms.
const STALE_FLOOR: Duration = Duration::from_secs(3);

/// The reason for a sample that is too old, if it is. `now`: Unix seconds.
pub(crate) fn stale(age: Duration, interval: Duration, now: f64) -> Option<Reason> {
    let degraded = (interval * 3).max(STALE_FLOOR);
    let (severity, threshold) = match age {
        age if age > STALE_UNHEALTHY.max(degraded) => (Verdict::Unhealthy, STALE_UNHEALTHY),
        age if age > degraded => (Verdict::Degraded, degraded),
        _ => return None,
    };
    let message = format!("Last GPU sample is {} s old", age.as_secs());
    let action = "If it persists, restart the worker: its sampler is stuck.";
    let mut reason = Reason::new(Code::Stale, severity, None, message, action, now - age.as_secs_f64());
    reason.numbers(age.as_secs_f64().floor(), threshold.as_secs_f64());
    Some(reason)
}

#[test]
fn an_old_sample_is_not_believed() {
    #[track_caller]
    fn check(age_s: u64, interval_ms: u64, expect: Option<Verdict>) {
        let reason = stale(Duration::from_secs(age_s), Duration::from_millis(interval_ms), 1000.0);
        assert_eq!(reason.map(|r| r.severity), expect);
    }
    check(15, 5000, None);
    check(16, 5000, Some(Verdict::Degraded));
    check(3, 100, None);
    check(4, 100, Some(Verdict::Degraded));
    check(301, 5000, Some(Verdict::Unhealthy));
    check(301, 300_000, None);
    check(901, 300_000, Some(Verdict::Unhealthy));
}

#[test]
fn a_gpu_without_an_answer_is_never_ok() {
    let gpu = Gpu { uuid: Some("GPU-1".into()), ..Gpu::default() };
    assert_eq!(of_gpu(&gpu, &[]), Verdict::Ok);
    assert_eq!(of_gpu(&gpu.silent("gone"), &[]), Verdict::Unknown);
}
