//! What is read of another worker's report. It is a stranger's data: texts are cut and cleaned, and lists are counted, not kept.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::health::verdict::Verdict;
use crate::sys::text::start;

/// Characters of a code or a version, and of a message.
const MAX_WORD: usize = 64;
const MAX_MESSAGE: usize = 300;
/// Faster is not a speed of tokens.
const MAX_SPEED: f64 = 1e6;

/// What a report says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PeerReport"))]
pub(crate) struct PeerReport {
    pub(crate) verdict: Verdict,
    /// The worst reason; null without reasons.
    pub(super) reason: Option<PeerReason>,
    pub(crate) gpus_usable: u32,
    pub(super) gpus_listed: u32,
    pub(super) models_loaded: u32,
    /// The highest speed in the last probes of its models.
    pub(super) tokens_per_second: Option<f64>,
    pub(super) version: Option<String>,
    /// Milliseconds since its GPUs were read.
    pub(super) sample_age_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PeerReason {
    code: String,
    message: String,
    severity: Verdict,
}

/// The report in `body`.
///
/// # Errors
/// Why it is not one, in a few words.
pub(crate) fn read(body: &str) -> Result<PeerReport, String> {
    let sent: Sent = crate::sys::json::object(body.as_bytes())
        .map_err(|why| format!("not a report of agent-net: {}", start(&why, MAX_MESSAGE)))?;
    let reason = sent.health.reasons.map(|reason| PeerReason {
        code: start(&reason.code, MAX_WORD),
        message: start(&reason.message, MAX_MESSAGE),
        severity: reason.severity,
    });
    Ok(PeerReport {
        // It is never better than its reasons.
        verdict: reason.as_ref().map_or(sent.health.verdict, |reason| sent.health.verdict.max(reason.severity)),
        reason,
        gpus_usable: sent.gpu_count,
        gpus_listed: sent.gpus,
        models_loaded: sent.models.loaded,
        tokens_per_second: sent.models.fastest,
        version: sent.version.map(|version| start(&version, MAX_WORD)),
        sample_age_ms: sent.sample_age_ms,
    })
}

/// What every report has is required: a number that is absent is not 0.
#[derive(Deserialize)]
struct Sent {
    health: SentHealth,
    gpu_count: u32,
    #[serde(deserialize_with = "counted")]
    gpus: u32,
    #[serde(deserialize_with = "models")]
    models: Models,
    #[serde(default)]
    version: Option<String>,
    sample_age_ms: u64,
}

#[derive(Deserialize)]
struct SentHealth {
    verdict: Verdict,
    #[serde(default, deserialize_with = "worst")]
    reasons: Option<SentReason>,
}

#[derive(Deserialize)]
struct SentReason {
    code: String,
    severity: Verdict,
    #[serde(default)]
    message: String,
}

#[derive(Default)]
struct Models {
    loaded: u32,
    fastest: Option<f64>,
}

#[derive(Deserialize)]
struct SentModel {
    #[serde(default)]
    loaded: bool,
    #[serde(default)]
    probe: Option<SentProbe>,
}

#[derive(Deserialize)]
struct SentProbe {
    #[serde(default)]
    tokens_per_second: Option<f64>,
}

fn counted<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    fold(from, |count: &mut u32, _: IgnoredAny| *count = count.saturating_add(1))
}

fn models<'de, D: Deserializer<'de>>(from: D) -> Result<Models, D::Error> {
    fold(from, |models: &mut Models, model: SentModel| {
        models.loaded = models.loaded.saturating_add(u32::from(model.loaded));
        let speed = model.probe.and_then(|probe| probe.tokens_per_second);
        if let Some(speed) = speed.filter(|speed| (0.0..=MAX_SPEED).contains(speed)) {
            models.fastest = Some(models.fastest.map_or(speed, |fastest| fastest.max(speed)));
        }
    })
}

/// The first of the worst.
fn worst<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SentReason>, D::Error> {
    fold(from, |worst: &mut Option<SentReason>, reason: SentReason| {
        if worst.as_ref().is_none_or(|worst| reason.severity > worst.severity) {
            *worst = Some(reason);
        }
    })
}

/// Reads a list one item at a time: a megabyte of small ones would take many megabytes of memory.
fn fold<'de, D: Deserializer<'de>, T: DeserializeOwned, A: Default>(
    from: D,
    add: fn(&mut A, T),
) -> Result<A, D::Error> {
    struct Fold<T, A>(fn(&mut A, T), PhantomData<T>);

    impl<'de, T: DeserializeOwned, A: Default> Visitor<'de> for Fold<T, A> {
        type Value = A;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<A, S::Error> {
            let mut all = A::default();
            while let Some(item) = items.next_element()? {
                (self.0)(&mut all, item);
            }
            Ok(all)
        }
    }
    from.deserialize_seq(Fold(add, PhantomData))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with this health and nothing else.
    fn with(health: &str) -> String {
        format!(r#"{{"health":{health},"gpu_count":0,"gpus":[],"models":[],"sample_age_ms":0}}"#)
    }

    pub(in crate::peers) fn of(verdict: Verdict) -> PeerReport {
        read(&with(&format!(r#"{{"verdict":"{verdict}"}}"#))).unwrap()
    }

    #[test]
    fn a_report_is_summed_up() {
        let body = r#"{"health":{"verdict":"unhealthy","reasons":[
            {"code":"TEMP_HIGH","severity":"degraded","message":"hot","more":1},
            {"code":"GPU_LOST","severity":"unhealthy","message":"GPU 1:\u202e gone\n"},
            {"code":"OTHER","severity":"unhealthy"}]},
            "gpu_count":1,"gpus":[{},{"x":[1]}],"version":"0.2.0","sample_age_ms":900,
            "models":[{"loaded":true,"probe":{"tokens_per_second":31.5}},{"loaded":true,"probe":null},
            {"probe":{"tokens_per_second":null}},{"loaded":false,"probe":{"tokens_per_second":1e300}}]}"#;
        let report = read(body).unwrap();
        let reason = report.reason.clone().unwrap();
        assert_eq!((reason.code.as_str(), reason.message.as_str()), ("GPU_LOST", "GPU 1:  gone"));
        assert_eq!((report.verdict, report.gpus_usable, report.gpus_listed), (Verdict::Unhealthy, 1, 2));
        assert_eq!((report.models_loaded, report.tokens_per_second), (2, Some(31.5)));
        assert_eq!((report.version.as_deref(), report.sample_age_ms), (Some("0.2.0"), 900));
    }

    #[test]
    fn what_every_report_has_is_required() {
        let least = of(Verdict::Ok);
        assert_eq!((least.gpus_listed, least.tokens_per_second, least.reason), (0, None, None));
        let whole = with(r#"{"verdict":"ok"}"#);
        let without = |part: &str| whole.replace(part, "\"x");
        let fields = ["\"health", "\"verdict", "\"gpu_count", "\"gpus", "\"models", "\"sample_age_ms"].map(without);
        let others =
            ["", "<html>", "{}", "[", "null", "\u{1f}", r#"[{"verdict":"ok"},0,0,[],null,0]"#].map(str::to_owned);
        for wrong in fields.into_iter().chain(others).chain([with(r#"{"verdict":"fine"}"#)]) {
            assert!(read(&wrong).is_err_and(|why| why.starts_with("not a report of agent-net: ")), "{wrong}");
        }
        let deep = whole.replace("[]", &"[".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn a_peer_is_not_better_than_its_reasons_and_its_texts_are_cut() {
        let long = "x".repeat(5000);
        let reason = format!(r#"{{"code":"{long}","severity":"degraded","message":"{long}"}}"#);
        let health = format!(r#"{{"verdict":"ok","reasons":[{reason}]}},"version":"{long}""#);
        let body = with(&health);
        let report = read(&body).unwrap();
        let reason = report.reason.unwrap();
        assert_eq!(report.verdict, Verdict::Degraded);
        assert_eq!((reason.code.len(), reason.message.len()), (MAX_WORD, MAX_MESSAGE));
        assert_eq!(report.version.map(|version| version.len()), Some(MAX_WORD));
        // Nor better than it says itself.
        let reasons = r#"[{"code":"TEMP_HIGH","severity":"degraded"}]"#;
        let report = read(&with(&format!(r#"{{"verdict":"unhealthy","reasons":{reasons}}}"#))).unwrap();
        assert_eq!(report.verdict, Verdict::Unhealthy);
    }
}
