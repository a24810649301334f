//! The report and the other answers that come from a snapshot. What grows with GPUs and models is rendered once for each
//! sample: requests only copy it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::value::RawValue;

use super::gpu_row::GpuRow;
use super::text;
use crate::health::snapshot::Snapshot;
use crate::health::uptime::WINDOWS;
use crate::health::verdict::{Reason, Verdict};
use crate::http::body_parts::Body;
use crate::http::refusal::CAPABILITY;
use crate::livepeer::lease::RegistrationRow;
use crate::notify::heartbeat::HeartbeatRow;
use crate::notify::row::NotificationRow;
use crate::ollama::keeper::kept::KeeperIndex;
use crate::ollama::keeper::row::KeeperRow;
use crate::ollama::models::Model;
use crate::ollama::probe::row::ProbeRow;
use crate::ollama::state::Reach;
use crate::sys::json::{MIB, millis};
use crate::sys::order;

/// A snapshot, with the parts of its answers that do not depend on the request.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) snapshot: Arc<Snapshot>,
    verdict: Verdict,
    health: Box<RawValue>,
    gpus: Arc<RawValue>,
    models: Arc<RawValue>,
    model_name: String,
    vram_usage_mb: u64,
    total_models: usize,
    gpu_count: usize,
    text: OnceLock<String>,
    /// In Prometheus' own format and in OpenMetrics'.
    metrics: [OnceLock<String>; 2],
}

/// What a request adds to the snapshot that it is answered from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// Unix seconds.
    pub(crate) now: f64,
    pub(crate) sample_age_ms: u64,
    pub(crate) process_seconds: u64,
    /// The reason of a snapshot that is too old.
    pub(crate) stale: Option<&'a Reason>,
    pub(crate) registrations: &'a [RegistrationRow],
    pub(crate) notifications: &'a [NotificationRow],
    pub(crate) keepers: &'a [KeeperRow],
    pub(crate) heartbeat: Option<&'a HeartbeatRow>,
}

/// The body of a job's answer, and of GET /gpu without `agent_id`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Report<'a> {
    /// `success`.
    status: &'static str,
    /// The job's own agent_id; absent in GET /gpu.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    /// The loaded model with the most VRAM; empty without one.
    model_name: &'a str,
    /// MiB of VRAM that Ollama's loaded models hold.
    vram_usage_mb: u64,
    /// Models pulled into Ollama.
    total_models: usize,
    /// Unix seconds of this answer.
    timestamp: f64,
    /// Usable GPUs; where none can be read: 1 if Ollama holds a model in VRAM, else 0.
    gpu_count: usize,
    #[cfg_attr(test, schemars(with = "Health<'static>"))]
    health: Part<'a>,
    #[cfg_attr(test, schemars(with = "Vec<GpuRow<'static>>"))]
    gpus: &'a RawValue,
    #[cfg_attr(test, schemars(with = "Vec<ModelRow<'static>>"))]
    models: &'a RawValue,
    ollama: OllamaRow<'a>,
    driver_version: Option<&'a str>,
    nvml_version: Option<&'a str>,
    cuda_version: Option<&'a str>,
    /// Microseconds to read the GPUs.
    read_us: Option<u64>,
    /// Source of XID errors: kmsg, nvml or none.
    xid_source: &'static str,
    uptime: UptimeRow,
    /// The models of MODEL; absent where it is unset.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    model_keeper: &'a [KeeperRow],
    /// The registrations at the orchestrators. For the operator: absent in answers to jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    registrations: Option<&'a [RegistrationRow]>,
    /// The receivers of NOTIFY_URL. For the operator: absent in answers to jobs.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notifications: &'a [NotificationRow],
    /// The calls of HEARTBEAT_URL: absent where it is unset, and in answers to jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<&'a HeartbeatRow>,
    /// Milliseconds since the GPUs were read.
    sample_age_ms: u64,
    /// Sources of the readings: nvml, amdgpu, tegra, ollama, joined by +, or none.
    source: String,
    /// Version of Agent-Net.
    version: &'static str,
    #[serde(skip)]
    verdict: Verdict,
}

/// Rendered with the snapshot, or for this request because the snapshot is too old.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Rendered(&'a RawValue),
    Fresh(Health<'a>),
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Health<'a> {
    /// Severity of the worst reason; ok without reasons.
    verdict: Verdict,
    reasons: Vec<&'a Reason>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Model"))]
struct ModelRow<'a> {
    name: &'a str,
    /// MiB on disk.
    size_mb: Option<u64>,
    pulled: bool,
    /// Whether Ollama has it in memory.
    loaded: bool,
    /// MiB in VRAM; 0 if it is not loaded.
    vram_mb: u64,
    /// Share of the loaded model that is in VRAM; null if it is not loaded.
    on_gpu_percent: Option<u64>,
    /// The last probe; absent where there was none: only models of MODEL are probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a ProbeRow>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Ollama"))]
struct OllamaRow<'a> {
    /// Null before Ollama was asked.
    reachable: Option<bool>,
    version: Option<&'a str>,
    /// Why it does not respond, or why its lists are unusable.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Percent by window; null without data.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "UptimePercents"))]
struct UptimeRow {
    #[serde(flatten)]
    #[cfg_attr(test, schemars(schema_with = "crate::api::openapi::tests::by_window::<Option<f64>>"))]
    windows: BTreeMap<&'static str, Option<f64>>,
    /// Seconds since the start of the worker.
    process_seconds: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Models"))]
pub(crate) struct Catalogue<'a> {
    status: &'static str,
    model_name: &'a str,
    vram_usage_mb: u64,
    total_models: usize,
    timestamp: f64,
    #[cfg_attr(test, schemars(with = "Vec<ModelRow<'static>>"))]
    models: &'a RawValue,
    ollama: OllamaRow<'a>,
    sample_age_ms: u64,
}

impl Published {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        let reasons: Vec<&Reason> = snapshot.reasons.iter().collect();
        let verdict = snapshot.verdict();
        let gpus: Vec<GpuRow<'_>> =
            snapshot.gpu.gpus().iter().map(|gpu| GpuRow::new(gpu, &snapshot.reasons, &snapshot.xids)).collect();
        let kept = KeeperIndex::new(&snapshot.keepers, &snapshot.ollama.models);
        let models: Vec<ModelRow<'_>> = snapshot.ollama.models.iter().map(|model| model_row(model, &kept)).collect();
        Self {
            verdict,
            health: raw(&Health { verdict, reasons }),
            gpus: raw(&gpus).into(),
            models: raw(&models).into(),
            model_name: snapshot.ollama.main_model().map_or_else(String::new, |m| m.name.clone()),
            vram_usage_mb: snapshot.ollama.vram_bytes() / MIB,
            total_models: snapshot.ollama.models.iter().filter(|m| m.pulled).count(),
            gpu_count: snapshot.gpu_count(),
            text: OnceLock::new(),
            metrics: Default::default(),
            snapshot,
        }
    }

    /// The verdict at this moment, and its reasons.
    pub(super) fn reasons<'a>(&'a self, at: &Moment<'a>) -> (Verdict, impl Iterator<Item = &'a Reason>) {
        let verdict = at.stale.map_or(self.verdict, |stale| self.verdict.max(stale.severity));
        (verdict, at.stale.into_iter().chain(&self.snapshot.reasons))
    }

    pub(crate) fn report<'a>(&'a self, agent_id: Option<&'a str>, at: &Moment<'a>) -> Report<'a> {
        let (verdict, reasons) = self.reasons(at);
        let health = match at.stale {
            None => Part::Rendered(&self.health),
            Some(_) => Part::Fresh(Health { verdict, reasons: reasons.collect() }),
        };
        let sample = self.snapshot.gpu.sample();
        let windows = WINDOWS.iter().zip(&self.snapshot.uptime).map(|((name, _), window)| (*name, window.percent()));
        Report {
            status: "success",
            agent_id,
            model_name: &self.model_name,
            vram_usage_mb: self.vram_usage_mb,
            total_models: self.total_models,
            timestamp: millis(at.now),
            gpu_count: self.gpu_count,
            health,
            gpus: &self.gpus,
            models: &self.models,
            ollama: self.ollama_row(),
            driver_version: sample.and_then(|s| s.driver_version.as_deref()),
            nvml_version: sample.and_then(|s| s.nvml_version.as_deref()),
            cuda_version: sample.and_then(|s| s.cuda_version.as_deref()),
            read_us: sample.map(|s| s.read_us),
            xid_source: self.snapshot.xid_source.name(),
            uptime: UptimeRow { windows: order::map(windows), process_seconds: at.process_seconds },
            model_keeper: at.keepers,
            registrations: agent_id.is_none().then_some(at.registrations),
            notifications: if agent_id.is_none() { at.notifications } else { &[] },
            heartbeat: at.heartbeat.filter(|_| agent_id.is_none()),
            sample_age_ms: at.sample_age_ms,
            source: self.snapshot.source(),
            version: env!("CARGO_PKG_VERSION"),
            verdict,
        }
    }

    /// A report of this snapshot as JSON.
    pub(crate) fn json(&self, report: &Report<'_>) -> Body {
        Body::json(report, &[&self.gpus, &self.models])
    }

    /// The report as `key=value` lines.
    pub(crate) fn text(&self, at: &Moment<'_>) -> String {
        let mut report = self.report(None, at);
        let (verdict, reasons) = self.reasons(at);
        let codes: Vec<&str> = reasons.map(|r| r.code.name()).collect();
        let mut lines = text::Lines::default();
        lines.word("verdict", verdict.name());
        lines.quote("reasons", &codes.join(" "));
        let lists = self.text.get_or_init(|| {
            let mut lines = text::Lines::default();
            lines.list("gpu", &self.gpus);
            lines.list("model", &self.models);
            lines.done()
        });
        // They have lines of their own.
        report.health = Part::Rendered(RawValue::NULL);
        (report.gpus, report.models) = (RawValue::NULL, RawValue::NULL);
        lines.object(&report);
        lines.done() + lists
    }

    /// The metrics of this snapshot, rendered once in each format.
    pub(crate) fn metrics(&self, open: bool, render: impl FnOnce(&Snapshot) -> String) -> &str {
        self.metrics[usize::from(open)].get_or_init(|| render(&self.snapshot))
    }

    /// The loaded model with the most VRAM; empty without one.
    pub(crate) fn model_name(&self) -> &str {
        &self.model_name
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The body of GET /models.
    pub(crate) fn catalogue(&self, at: &Moment<'_>) -> Body {
        let catalogue = Catalogue {
            status: "success",
            model_name: &self.model_name,
            vram_usage_mb: self.vram_usage_mb,
            total_models: self.total_models,
            timestamp: millis(at.now),
            models: &self.models,
            ollama: self.ollama_row(),
            sample_age_ms: at.sample_age_ms,
        };
        Body::json(&catalogue, &[&self.models])
    }

    fn ollama_row(&self) -> OllamaRow<'_> {
        let state = &self.snapshot.ollama;
        let list_error = state.list_error.as_ref().map(|trouble| trouble.why.as_str());
        match &state.reach {
            Reach::Pending => OllamaRow { reachable: None, version: None, error: None },
            Reach::Up { version } => OllamaRow { reachable: Some(true), version: Some(version), error: list_error },
            Reach::Down(trouble) => OllamaRow { reachable: Some(false), version: None, error: Some(&trouble.why) },
        }
    }
}

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn model_row<'a>(model: &'a Model, kept: &KeeperIndex<'a>) -> ModelRow<'a> {
    let loaded = model.loaded;
    let keeper = kept.row_of(&model.name, model.digest.as_deref());
    ModelRow {
        name: &model.name,
        size_mb: model.size_bytes.map(|b| b / MIB),
        pulled: model.pulled,
        loaded: loaded.is_some(),
        vram_mb: loaded.map_or(0, |l| l.vram_bytes / MIB),
        on_gpu_percent: loaded.and_then(|l| l.on_gpu_percent()),
        probe: keeper.and_then(|keeper| keeper.probes.last.as_ref()),
    }
}

impl Report<'_> {
    /// The value of X-Metadata: one line of ASCII, whatever the input.
    pub(crate) fn metadata(&self) -> String {
        #[derive(Serialize)]
        struct Metadata<'a> {
            capability: &'static str,
            agent_id: Option<&'a str>,
            timestamp: f64,
            source: &'a str,
            verdict: Verdict,
        }
        crate::sys::json::ascii(&crate::sys::json::json(&Metadata {
            capability: CAPABILITY,
            agent_id: self.agent_id,
            timestamp: self.timestamp,
            source: &self.source,
            verdict: self.verdict,
        }))
    }
}
