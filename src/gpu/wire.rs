//! The helper's protocol: one JSON object a line, versioned. The server asks, the helper answers with the same id.

use serde::{Deserialize, Serialize};

use super::sample::{GpuFault, GpuSample};

/// Raised whenever the meaning of a line changes. Both sides refuse a different one.
pub(crate) const PROTOCOL: u32 = 6;

/// The first argument of a helper that reads the GPUs of amdgpu; the root of /sys and AMD_GPUS follow, and [`HAD_CARD`]
/// where a helper before it has listed a card.
pub(crate) const AMD_GPUS: &str = "amdgpu";
pub(crate) const HAD_CARD: &str = "had-card";

/// A GPU takes 2 to 4 KiB.
pub(crate) const MAX_LINE: usize = 1024 * 1024;

/// The helper's first line, sent before NVML is touched.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    /// Version of the package that built the helper.
    pub(crate) version: String,
}

/// Server to helper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) id: u64,
    pub(crate) ask: Question,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Read all GPUs; the first one initializes NVML.
    Sample(Wanted),
}

/// What a sample holds besides the fast readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Also the slow readings.
    pub(crate) slow: bool,
    /// Also the errors that the driver reports.
    pub(crate) events: bool,
    /// Also what the GPUs did during a probe. None of these calls is made without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) activity: Option<ActivityAsk>,
}

/// The two asks of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActivityAsk {
    /// Remember where the driver's buffers and counters stand.
    Mark,
    /// Fill [`super::sample::Gpu::activity`] with what came since the mark.
    SinceMark,
}

/// Helper to server.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The ask's id: a late answer to an ask that has timed out is recognized and dropped.
    pub(crate) id: u64,
    pub(crate) answer: Result<GpuSample, GpuFault>,
}

/// One message as its line, newline included.
pub(crate) fn line<T: Serialize>(message: &T) -> String {
    // A struct of strings and numbers always serializes.
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads one line.
///
/// # Errors
/// One sentence that quotes the start of the line.
pub(crate) fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    serde_json::from_slice(line.as_bytes()).map_err(|why| {
        let start: String = line.trim_end().chars().take(80).collect();
        format!("not a protocol line ({why}): {start:?}")
    })
}

#[test]
fn lines_are_stable_text() {
    #[track_caller]
    fn check<T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(message: &T, text: &str) {
        assert_eq!(line(message), format!("{text}\n"));
        assert_eq!(parse::<T>(text).as_ref(), Ok(message));
    }
    check(&Hello { protocol: 1, version: "0.2.0".into() }, r#"{"protocol":1,"version":"0.2.0"}"#);
    let wanted = Wanted { slow: true, events: false, activity: None };
    check(&Ask { id: 7, ask: Question::Sample(wanted) }, r#"{"id":7,"ask":{"sample":{"slow":true,"events":false}}}"#);
    let wanted = Wanted { slow: false, events: true, activity: Some(ActivityAsk::SinceMark) };
    let text = r#"{"id":8,"ask":{"sample":{"slow":false,"events":true,"activity":"since_mark"}}}"#;
    check(&Ask { id: 8, ask: Question::Sample(wanted) }, text);
    let fault = GpuFault { kind: super::sample::FaultKind::LibMismatch, detail: "x".into() };
    check(&Answer { id: 7, answer: Err(fault) }, r#"{"id":7,"answer":{"Err":{"kind":"lib_mismatch","detail":"x"}}}"#);
}

#[test]
fn absent_fields_are_unknown_and_junk_is_quoted() {
    let Answer { answer, .. } = parse(r#"{"id":1,"answer":{"Ok":{"gpus":[{"index":3}],"new":1}}}"#).unwrap();
    assert_eq!(answer.unwrap().gpus[0].temperature_c, None);
    let why = parse::<Answer>("NVRM: hello\n").unwrap_err();
    assert!(why.ends_with(r#""NVRM: hello""#), "{why}");
}
