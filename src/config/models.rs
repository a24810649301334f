//! MODEL, MODEL_KEEP_ALIVE, PROBE_INTERVAL and PROBE_TIMEOUT.

use std::time::Duration;

use crate::config::go;
use crate::config::setting::{Kind, duration};
use crate::config::values::Values;

/// With less, Ollama would unload a model before it is asked for again.
const SHORTEST: Duration = Duration::from_secs(10);

/// The models that are kept loaded.
#[derive(Debug, Clone)]
pub(crate) struct Models {
    pub(crate) names: Vec<String>,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) probe: ProbeSettings,
}

/// PROBE_INTERVAL and PROBE_TIMEOUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeSettings {
    /// Between two probes of a model; None: never.
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Duration,
}

/// How long Ollama keeps a model after a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeepAlive {
    /// In Ollama's JSON: a number of seconds, or a Go duration. A number in a string is refused there.
    pub(crate) json: serde_json::Value,
    /// None: indefinitely.
    pub(crate) time: Option<Duration>,
}

pub(super) const MODEL: Kind = Kind::Names(16, "models", model_name_problem);

pub(super) const KEEP_ALIVE: Kind = Kind::Other(
    "a duration from 10s such as 15m or 1h30m, a number of seconds from 10, or -1 (indefinitely)",
    |text| KeepAlive::parse(text).is_some(),
);

/// More often, probes would be a load of their own.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

pub(super) const PROBE_INTERVAL: Kind =
    Kind::Other("a duration with its unit, from 30s to 24h, or 0 or off (never)", |text| {
        probe_interval(text).is_some()
    });

/// Ollama needs 20 s to replace a runner that hangs: with less, only the third probe in a row waits for that.
pub(super) const PROBE_TIMEOUT: Kind = Kind::Duration(Duration::from_secs(5), Duration::from_secs(600));

fn probe_interval(text: &str) -> Option<Option<Duration>> {
    let time = match text {
        "off" | "0" => Duration::ZERO,
        text => duration(text)?,
    };
    match time {
        Duration::ZERO => Some(None),
        time => (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&time).then_some(Some(time)),
    }
}

pub(super) fn read(values: &Values) -> Models {
    let keep_alive = KeepAlive::parse(values.text("MODEL_KEEP_ALIVE"))
        .unwrap_or_else(|| unreachable!("its row checks it, and its default is a duration"));
    let interval = probe_interval(values.text("PROBE_INTERVAL")).flatten();
    let probe = ProbeSettings { interval, timeout: values.duration("PROBE_TIMEOUT") };
    Models { names: values.list("MODEL"), keep_alive, probe }
}

/// Bytes of the longest name.
pub(crate) const MAX_MODEL_NAME: usize = 256;

/// Whether a model can have this name.
pub(crate) fn is_model_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:/".contains(&b);
    let mut parts = name.split(['/', ':']);
    name.len() <= MAX_MODEL_NAME && !name.starts_with('-') && name.bytes().all(plain) && !parts.any(str::is_empty)
}

/// Why Ollama would not keep a model of this name on this machine; None: it would.
pub(crate) fn model_name_problem(name: &str) -> Option<&'static str> {
    if name.contains("://") {
        return Some("must be a name without http://; Ollama uses https for other registries");
    }
    if !is_model_name(name) {
        return Some("must be a name as `ollama pull` takes it, such as codellama:34b-instruct-q4_k_m");
    }
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("", |(_, tag)| tag);
    (tag == "cloud" || tag.ends_with("-cloud"))
        .then_some("must be a local model; this one runs in Ollama's cloud, not on this machine's GPU")
}

impl KeepAlive {
    /// A number of seconds or a Go duration; None: neither, or too short.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (below_zero, size) = text.strip_prefix('-').map_or((false, text), |size| (true, size));
        // No sign, exponent or `inf`.
        let plain = size.starts_with(|c: char| c.is_ascii_digit()) && !size.contains(['e', 'E']);
        let number: Option<f64> = size.parse().ok().filter(|_| plain);
        let time = match number {
            Some(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
            None => go::duration(size)?,
        };
        let json = match number {
            Some(number) => {
                text.parse::<i64>().map_or_else(|_| if below_zero { -number } else { number }.into(), Into::into)
            }
            None => text.into(),
        };
        match below_zero {
            true => (!time.is_zero()).then_some(Self { json, time: None }),
            false => (time >= SHORTEST).then_some(Self { json, time: Some(time) }),
        }
    }
}

#[test]
fn how_long_models_are_kept() {
    #[track_caller]
    fn check(text: &str, expect: Option<(&str, Option<u64>)>) {
        let parsed = KeepAlive::parse(text).map(|k| (k.json.to_string(), k.time.map(|time| time.as_secs())));
        assert_eq!(parsed.as_ref().map(|(json, time)| (json.as_str(), *time)), expect, "{text}");
    }
    check("15m", Some(("\"15m\"", Some(900))));
    check("1h30m", Some(("\"1h30m\"", Some(5400))));
    check("1.5h", Some(("\"1.5h\"", Some(5400))));
    check("90", Some(("90", Some(90))));
    check("90.5", Some(("90.5", Some(90))));
    check("-1", Some(("-1", None)));
    check("-1m", Some(("\"-1m\"", None)));
    check("-1ns", Some(("\"-1ns\"", None)));
    for bad in [
        "",
        "0",
        "0s",
        "9s",
        "abc",
        "15 m",
        "m",
        "1.2.3s",
        "1x",
        "-",
        "-0",
        "--1",
        "+15m",
        "1e3",
        "inf",
        "nan",
        "1e400",
        "9999999999h",
    ] {
        check(bad, None);
    }
}

#[test]
fn names_of_models() {
    for good in ["codellama:34b-instruct-q4_k_m", "ns/model", "hf.co/org/repo:Q4_K_M", "localhost:5000/library/m:1"] {
        assert_eq!(model_name_problem(good), None, "{good}");
    }
    for bad in ["a b", "http://x/y", "x:", "/x", "a//b", "ä", "gpt-oss:120b-cloud", "x:cloud", "x;reboot", "-x"] {
        assert!(model_name_problem(bad).is_some(), "{bad}");
    }
    assert!(model_name_problem(&"x".repeat(257)).is_some());
    assert!(model_name_problem("http://x/y").unwrap().contains("https for other"));
}

#[test]
fn how_often_models_are_probed() {
    let seconds = |text: &str| probe_interval(text).map(|interval| interval.map(|time| time.as_secs()));
    for off in ["off", "0", "0s", "0m", "0h", "0ms", "00s"] {
        assert_eq!(seconds(off), Some(None), "{off}");
    }
    for (text, expect) in [("30s", 30), ("30000ms", 30), ("5m", 300), ("24h", 86_400), ("1440m", 86_400)] {
        assert_eq!(seconds(text), Some(Some(expect)), "{text}");
    }
    for bad in [
        "",
        "OFF",
        "never",
        "-1",
        "-0",
        "s",
        "0ss",
        "0hm",
        "0smh",
        "0 s",
        "0.0",
        "30",
        "0.5s",
        "29s",
        "29999ms",
        "25h",
        "86401s",
        "5 m",
        "+5m",
        "1e3",
        "1h30m",
        "99999999999999999999s",
    ] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
}
