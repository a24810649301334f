//! What a request asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::model::{Model, full_name};

/// As long as Ollama keeps what it keeps without end.
pub const FOREVER: Duration = Duration::from_secs(292 * 365 * 86_400);
/// Where a request sets no limit; Ollama has none either.
const TOKENS: u64 = 256;
/// Options that belong to the runner: another value needs another one.
const OF_THE_RUNNER: [&str; 6] = ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread"];

/// What makes a runner another one.
pub type Options = BTreeMap<String, Value>;

/// A path that needs a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Generate,
    Chat,
    Embed,
}

impl Path {
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/api/generate" => Some(Self::Generate),
            "/api/chat" => Some(Self::Chat),
            "/api/embed" => Some(Self::Embed),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct Asked {
    pub path: Path,
    /// As it was written.
    pub model: String,
    pub prompt: String,
    pub raw: bool,
    pub stream: bool,
    pub logprobs: bool,
    /// None: left out, or null.
    pub keep_alive: Option<Duration>,
    pub num_ctx: Option<u64>,
    pub num_predict: u64,
    options: Options,
}

impl Asked {
    /// None: not JSON.
    pub fn read(path: Path, body: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(body).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let options = body["options"].as_object();
        let kept = options.into_iter().flatten().filter(|(name, _)| OF_THE_RUNNER.contains(&name.as_str()));
        let prompt = match path {
            Path::Generate => &body["prompt"],
            Path::Chat => &body["messages"][0]["content"],
            Path::Embed => &body["input"],
        };
        Some(Self {
            path,
            model: text(&body["model"]),
            prompt: text(prompt),
            raw: body["raw"] == true,
            stream: body["stream"] != false && path != Path::Embed,
            logprobs: body["logprobs"] == true,
            keep_alive: duration(&body["keep_alive"]),
            num_ctx: body["options"]["num_ctx"].as_u64(),
            num_predict: body["options"]["num_predict"].as_u64().unwrap_or(TOKENS),
            options: kept.map(|(name, value)| (name.clone(), value.clone())).collect(),
        })
    }

    pub fn is_for(&self, model: &Model) -> bool {
        full_name(&self.model) == model.name
    }

    /// The options of the runner that it needs.
    pub fn options(&self, model: &Model) -> Options {
        let mut options = self.options.clone();
        options.entry("num_ctx".into()).or_insert_with(|| model.default_ctx.into());
        options
    }

    /// As many as the recorded tokenizer makes: one for each letter, one at each end.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt.chars().count() as u64 + 2
    }
}

/// keep_alive as Ollama reads it: a number of seconds, or a Go duration. None: left out.
fn duration(json: &Value) -> Option<Duration> {
    if let Some(seconds) = json.as_f64() {
        return Some(if seconds < 0.0 { FOREVER } else { Duration::from_secs_f64(seconds) });
    }
    let mut rest = json.as_str()?;
    if rest.starts_with('-') {
        return Some(FOREVER);
    }
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| unit + end);
        let seconds = match &rest[unit..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        all += Duration::from_secs_f64(rest[..unit].parse::<f64>().ok()? * seconds);
        rest = &rest[end..];
    }
    Some(all)
}

#[test]
fn durations_are_read_as_ollama_reads_them() {
    let read = |text: &str| duration(&text.into()).map(|time| time.as_secs_f64());
    assert_eq!(read("595.880s"), Some(595.88));
    assert_eq!(read("1h30m"), Some(5400.0));
    assert_eq!(read("250ms"), Some(0.25));
    assert_eq!((read("x"), duration(&Value::Null)), (None, None));
    assert_eq!((duration(&0.into()), duration(&(-1).into())), (Some(Duration::ZERO), Some(FOREVER)));
}
