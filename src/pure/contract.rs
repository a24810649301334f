//! The JSON that is accepted and emitted; field names and order are the public contract.

use serde::Serialize;
use serde_json::Value;

use super::gpu::Gpu;
use super::models::Model;
use super::snapshot::{GpuState, Reach, Snapshot};
use super::verdict::{self, Reason, Verdict};

/// What X-Metadata and errors call the service.
pub(crate) const CAPABILITY: &str = "gpu-check";

/// The body of GET /health: that it is sent is all it says.
pub(crate) const HEALTHY: &str = r#"{"status":"ok"}"#;

const MIB: u64 = 1024 * 1024;

/// Longest accepted `agent_id`, in characters.
const MAX_AGENT_ID: usize = 256;

/// Why a job's body is refused: a code for programs and a sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadBody {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// The `agent_id` of a job's body.
///
/// # Errors
/// `bad_json`, `missing_agent_id` or `bad_agent_id`, with what to send instead.
pub(crate) fn agent_id(body: &[u8]) -> Result<String, BadBody> {
    let bad = |code, message: String| Err(BadBody { code, message });
    // Not a derived struct: serde would take the array ["x"] for one.
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if body.is_empty() => {
            return bad("bad_json", "the body is empty; send a JSON object such as {\"agent_id\":\"my-agent\"}".into());
        }
        Err(why) => {
            return bad("bad_json", format!("the body is not JSON ({why}); send {{\"agent_id\":\"my-agent\"}}"));
        }
    };
    let Value::Object(mut object) = value else {
        return bad("bad_json", "the body is JSON but no object; send {\"agent_id\":\"my-agent\"}".into());
    };
    match object.remove("agent_id") {
        None | Some(Value::Null) => {
            bad("missing_agent_id", "agent_id is missing; send {\"agent_id\":\"my-agent\"}".into())
        }
        Some(Value::String(id)) if id.is_empty() => bad("bad_agent_id", "agent_id is empty; send a name".into()),
        Some(Value::String(id)) if id.chars().count() > MAX_AGENT_ID => {
            bad("bad_agent_id", format!("agent_id is longer than {MAX_AGENT_ID} characters; shorten it"))
        }
        Some(Value::String(id)) => Ok(id),
        Some(_) => bad("bad_agent_id", "agent_id is not a string; put it in quotes".into()),
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    status: &'static str,
    code: &'a str,
    error: &'a str,
    timestamp: f64,
    capability: &'static str,
}

/// The body of every error. `now` is in Unix seconds.
pub(crate) fn error_body(code: &str, message: &str, now: f64) -> String {
    json(&ErrorBody { status: "error", code, error: message, timestamp: millis(now), capability: CAPABILITY })
}

#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    pub(crate) model_name: &'a str,
    pub(crate) vram_usage_mb: u64,
    pub(crate) total_models: usize,
    pub(crate) timestamp: f64,
    pub(crate) gpu_count: usize,
    pub(crate) health: Health<'a>,
    pub(crate) gpus: Vec<GpuRow<'a>>,
    pub(crate) models: Vec<ModelRow<'a>>,
    pub(crate) ollama: OllamaRow<'a>,
    pub(crate) driver_version: Option<&'a str>,
    pub(crate) uptime: Uptime,
    pub(crate) sample_age_ms: u64,
    pub(crate) source: &'static str,
    pub(crate) version: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Health<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<&'a Reason>,
}

#[derive(Debug, Serialize)]
pub(crate) struct GpuRow<'a> {
    pub(crate) index: u32,
    pub(crate) uuid: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
    pub(crate) verdict: Verdict,
    pub(crate) vram_total_mb: Option<u64>,
    pub(crate) vram_used_mb: Option<u64>,
    pub(crate) vram_free_mb: Option<u64>,
    pub(crate) temperature_c: Option<u32>,
    pub(crate) power_w: Option<f64>,
    pub(crate) power_limit_w: Option<f64>,
    pub(crate) utilization_percent: Option<u32>,
    pub(crate) memory_utilization_percent: Option<u32>,
    pub(crate) unsupported: &'a [String],
    pub(crate) error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ModelRow<'a> {
    pub(crate) name: &'a str,
    pub(crate) size_mb: Option<u64>,
    pub(crate) pulled: bool,
    pub(crate) loaded: bool,
    pub(crate) vram_mb: u64,
    pub(crate) on_gpu_percent: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct OllamaRow<'a> {
    /// None: not known yet.
    pub(crate) reachable: Option<bool>,
    pub(crate) version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Uptime {
    pub(crate) process_seconds: u64,
}

#[derive(Serialize)]
struct Catalogue<'a> {
    status: &'static str,
    model_name: &'a str,
    vram_usage_mb: u64,
    total_models: usize,
    timestamp: f64,
    models: Vec<ModelRow<'a>>,
    ollama: OllamaRow<'a>,
    sample_age_ms: u64,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    verdict: Verdict,
    reasons: Vec<&'a Reason>,
}

/// The moment of a request: what is added to the snapshot it is answered from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// Unix seconds.
    pub(crate) now: f64,
    pub(crate) sample_age_ms: u64,
    pub(crate) process_seconds: u64,
    /// Set when the snapshot is too old.
    pub(crate) stale: Option<&'a Reason>,
}

/// The report of one snapshot.
pub(crate) fn report<'a>(snapshot: &'a Snapshot, agent_id: Option<&'a str>, at: &Moment<'a>) -> Report<'a> {
    let reasons: Vec<&Reason> = at.stale.into_iter().chain(&snapshot.reasons).collect();
    let driver_version = match &snapshot.gpu {
        GpuState::Sample(sample) => sample.driver_version.as_deref(),
        _ => None,
    };
    Report {
        status: "success",
        agent_id,
        model_name: snapshot.ollama.main_model().map_or("", |m| m.name.as_str()),
        vram_usage_mb: snapshot.ollama.vram_bytes() / MIB,
        total_models: total_models(snapshot),
        timestamp: millis(at.now),
        gpu_count: snapshot.gpu_count(),
        health: Health { verdict: verdict::worst(reasons.iter().copied()), reasons },
        gpus: snapshot.gpu.gpus().iter().map(|gpu| gpu_row(gpu, &snapshot.reasons)).collect(),
        models: model_rows(snapshot),
        ollama: ollama_row(snapshot),
        driver_version,
        uptime: Uptime { process_seconds: at.process_seconds },
        sample_age_ms: at.sample_age_ms,
        source: snapshot.source(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The body of GET /models.
pub(crate) fn catalogue(snapshot: &Snapshot, at: &Moment<'_>) -> String {
    json(&Catalogue {
        status: "success",
        model_name: snapshot.ollama.main_model().map_or("", |m| m.name.as_str()),
        vram_usage_mb: snapshot.ollama.vram_bytes() / MIB,
        total_models: total_models(snapshot),
        timestamp: millis(at.now),
        models: model_rows(snapshot),
        ollama: ollama_row(snapshot),
        sample_age_ms: at.sample_age_ms,
    })
}

/// The body of GET /ready when there is a snapshot.
pub(crate) fn ready(snapshot: &Snapshot, at: &Moment<'_>) -> (bool, String) {
    let reasons: Vec<&Reason> = at.stale.into_iter().chain(&snapshot.reasons).collect();
    let verdict = verdict::worst(reasons.iter().copied());
    let ready = verdict != Verdict::Unhealthy;
    (ready, json(&Ready { status: if ready { "ready" } else { "not_ready" }, verdict, reasons }))
}

/// The X-Metadata header of a job's answer: compact JSON in visible ASCII, whatever `agent_id` holds.
pub(crate) fn metadata(report: &Report<'_>) -> String {
    #[derive(Serialize)]
    struct Metadata<'a> {
        capability: &'static str,
        agent_id: Option<&'a str>,
        timestamp: f64,
        source: &'static str,
        verdict: Verdict,
    }
    ascii(&json(&Metadata {
        capability: CAPABILITY,
        agent_id: report.agent_id,
        timestamp: report.timestamp,
        source: report.source,
        verdict: report.health.verdict,
    }))
}

/// JSON text in which every character beyond visible ASCII is a \u escape. Those stand only inside strings.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// A value as compact JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    // Structs of strings and finite numbers always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// Unix seconds with three decimals.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn total_models(snapshot: &Snapshot) -> usize {
    snapshot.ollama.models.iter().filter(|m| m.pulled).count()
}

fn gpu_row<'a>(gpu: &'a Gpu, reasons: &[Reason]) -> GpuRow<'a> {
    GpuRow {
        index: gpu.index,
        uuid: gpu.uuid.as_deref(),
        name: gpu.name.as_deref(),
        verdict: verdict::of_gpu(gpu, reasons),
        vram_total_mb: gpu.vram_total_bytes.map(|b| b / MIB),
        vram_used_mb: gpu.vram_used_bytes.map(|b| b / MIB),
        vram_free_mb: gpu.vram_free_bytes.map(|b| b / MIB),
        temperature_c: gpu.temperature_c,
        power_w: gpu.power_mw.map(watts),
        power_limit_w: gpu.power_limit_mw.map(watts),
        utilization_percent: gpu.utilization_percent,
        memory_utilization_percent: gpu.memory_utilization_percent,
        unsupported: &gpu.unsupported,
        error: gpu.error.as_ref().map(|e| e.message.as_str()),
    }
}

/// Watts with one decimal.
fn watts(milliwatts: u32) -> f64 {
    (f64::from(milliwatts) / 100.0).round() / 10.0
}

fn model_rows(snapshot: &Snapshot) -> Vec<ModelRow<'_>> {
    let row = |model: &'_ Model| -> (Option<u64>, bool, u64, Option<u64>) {
        let loaded = model.loaded;
        (
            model.size_bytes.map(|b| b / MIB),
            loaded.is_some(),
            loaded.map_or(0, |l| l.vram_bytes / MIB),
            loaded.and_then(|l| l.on_gpu_percent()),
        )
    };
    snapshot
        .ollama
        .models
        .iter()
        .map(|model| {
            let (size_mb, loaded, vram_mb, on_gpu_percent) = row(model);
            ModelRow { name: &model.name, size_mb, pulled: model.pulled, loaded, vram_mb, on_gpu_percent }
        })
        .collect()
}

fn ollama_row(snapshot: &Snapshot) -> OllamaRow<'_> {
    let state = &snapshot.ollama;
    let list_error = state.list_error.as_deref();
    match &state.reach {
        Reach::Pending => OllamaRow { reachable: None, version: None, error: None },
        Reach::Up { version } => OllamaRow { reachable: Some(true), version: Some(version), error: list_error },
        Reach::Down(why) => OllamaRow { reachable: Some(false), version: None, error: Some(why) },
    }
}

#[test]
fn agent_ids() {
    #[track_caller]
    fn check(body: &str, expect: Result<&str, &str>) {
        assert_eq!(agent_id(body.as_bytes()).as_deref().map_err(|b| b.code), expect, "{body}");
    }
    check(r#"{"agent_id":"demo","x":[1]}"#, Ok("demo"));
    check(r#"{"agent_id":"a\nb\u0000é"}"#, Ok("a\nb\0é"));
    check(r#"{"agent_id":"a","agent_id":"b"}"#, Ok("b"));
    check(&format!(r#"{{"agent_id":"{}"}}"#, "é".repeat(256)), Ok(&"é".repeat(256)));
    check(&format!(r#"{{"agent_id":"{}"}}"#, "a".repeat(257)), Err("bad_agent_id"));
    check(r#"{"agent_id":""}"#, Err("bad_agent_id"));
    check(r#"{"agent_id":7}"#, Err("bad_agent_id"));
    check(r#"{"agent_id":null}"#, Err("missing_agent_id"));
    check(r#"{"q":1}"#, Err("missing_agent_id"));
    check("{}", Err("missing_agent_id"));
    check(r#"["demo"]"#, Err("bad_json"));
    check("", Err("bad_json"));
    check("{", Err("bad_json"));
    check("\u{feff}{}", Err("bad_json"));
    check(&"[".repeat(100_000), Err("bad_json"));
    check(r#"{"agent_id":"a"} x"#, Err("bad_json"));
    assert_eq!(agent_id(b"{\"agent_id\":\"\xff\"}").unwrap_err().code, "bad_json");
}

#[test]
fn nothing_breaks_out_of_a_header() {
    #[track_caller]
    fn check(text: &str, expect: &str) {
        let header = ascii(&json(&text));
        assert_eq!(header, expect);
        assert_eq!(serde_json::from_str::<String>(&header).unwrap(), text);
    }
    check("a\r\nX: y", r#""a\r\nX: y""#);
    check("é\u{7f}\u{2028}", "\"\\u00e9\\u007f\\u2028\"");
    check("😀\"\\", r#""\ud83d\ude00\"\\""#);
}
