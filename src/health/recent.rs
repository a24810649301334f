//! GET /history: the last hour of each GPU, a mean for each minute, and the last probes of models. Minutes are counted
//! from the worker's start, because a wall clock may step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::Snapshot;
use crate::gpu::sample::Gpu;
use crate::ollama::keeper::kept::KeeperIndex;
use crate::sys::json::{MIB, json, millis};

/// Minutes that are kept, the current one included.
const MINUTES: usize = 60;

/// The minutes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Recent(VecDeque<Arc<Minute>>);

#[derive(Debug, Clone)]
struct Minute {
    /// Since the start.
    number: u64,
    /// By UUID, or by index where there is none.
    gpus: BTreeMap<String, Readings<Mean>>,
}

/// The readings that are shown as curves.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Readings<T> {
    temperature_c: T,
    power_w: T,
    utilization_percent: T,
    vram_used_mb: T,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    /// With one decimal; None without a reading.
    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| (self.sum / f64::from(self.count) * 10.0).round() / 10.0)
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "History"))]
pub(crate) struct HistoryAnswer<'a> {
    status: &'static str,
    timestamp: f64,
    /// Seconds between two values.
    step_seconds: u32,
    gpus: Vec<GpuHistory<'a>>,
    /// Models whose speed a probe has measured.
    models: Vec<ModelHistory<'a>>,
}

/// The curve of one model.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ModelHistory<'a> {
    /// The model's name, as Ollama shows it.
    model: &'a str,
    /// The speeds of its last probes, at most 48, oldest first.
    tokens_per_second: &'a [f64],
}

/// The curves of one GPU.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GpuHistory<'a> {
    /// UUID, or index where there is none.
    gpu: &'a str,
    /// From the oldest to the current minute; null for minutes without a reading.
    #[serde(flatten)]
    values: Readings<Vec<Option<f64>>>,
}

impl Recent {
    /// One sample of all GPUs, at this time since the start.
    pub(crate) fn see(&mut self, gpus: &[Gpu], elapsed: Duration) {
        let number = elapsed.as_secs() / 60;
        if self.0.back().is_none_or(|last| last.number < number) {
            self.0.push_back(Arc::new(Minute { number, gpus: BTreeMap::new() }));
        }
        while self.0.front().is_some_and(|first| first.number + MINUTES as u64 <= number) {
            self.0.pop_front();
        }
        let Some(minute) = self.0.back_mut().map(Arc::make_mut) else { return };
        for gpu in gpus.iter().filter(|gpu| gpu.error.is_none()) {
            let name = gpu.uuid.clone().unwrap_or_else(|| gpu.index.to_string());
            let means = minute.gpus.entry(name).or_default();
            means.temperature_c.add(gpu.temperature_c.map(f64::from));
            means.power_w.add(gpu.power_mw.map(|mw| f64::from(mw) / 1000.0));
            means.utilization_percent.add(gpu.utilization_percent.map(f64::from));
            means.vram_used_mb.add(gpu.vram_used_bytes.map(|bytes| (bytes / MIB) as f64));
        }
    }

    /// The body of GET /history; `now` in Unix seconds.
    pub(crate) fn answer(&self, latest: Option<&Snapshot>, now: f64) -> String {
        let (gpus, models) = (self.gpus(), latest.map_or_else(Vec::new, models));
        json(&HistoryAnswer { status: "success", timestamp: millis(now), step_seconds: 60, gpus, models })
    }

    fn gpus(&self) -> Vec<GpuHistory<'_>> {
        let mut gpus: Vec<GpuHistory<'_>> = Vec::new();
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else { return gpus };
        for name in self.0.iter().flat_map(|minute| minute.gpus.keys()) {
            if !gpus.iter().any(|known| known.gpu == name) {
                gpus.push(GpuHistory { gpu: name, values: Readings::default() });
            }
        }
        for number in first.number..=last.number {
            let minute = self.0.iter().find(|minute| minute.number == number);
            for GpuHistory { gpu, values } in &mut gpus {
                let means = minute.and_then(|minute| minute.gpus.get(*gpu)).cloned().unwrap_or_default();
                values.temperature_c.push(means.temperature_c.value());
                values.power_w.push(means.power_w.value());
                values.utilization_percent.push(means.utilization_percent.value());
                values.vram_used_mb.push(means.vram_used_mb.value());
            }
        }
        gpus
    }
}

fn models(latest: &Snapshot) -> Vec<ModelHistory<'_>> {
    let models = &latest.ollama.models;
    let kept = KeeperIndex::new(&latest.keepers, models);
    let speeds = models.iter().filter_map(|model| {
        let keeper = kept.row_of(&model.name, model.digest.as_deref())?;
        Some(ModelHistory { model: &model.name, tokens_per_second: &keeper.probes.recent })
    });
    speeds.filter(|model| !model.tokens_per_second.is_empty()).collect()
}

#[test]
fn minutes_are_means_and_gaps_are_null() {
    let gpu = |celsius: Option<u32>| Gpu {
        uuid: Some("a".into()),
        temperature_c: celsius,
        power_mw: celsius.map(|_| 63_200),
        vram_used_bytes: Some(3 << 20),
        ..Gpu::default()
    };
    let mut recent = Recent::default();
    assert!(recent.answer(None, 1.0).contains(r#""gpus":[]"#));
    for (second, celsius) in [(0, Some(40)), (30, Some(43)), (59, None), (181, Some(50))] {
        recent.see(&[gpu(celsius)], Duration::from_secs(second));
    }
    let text = recent.answer(None, 1.0);
    assert!(
        text.contains(r#""gpu":"a","temperature_c":[41.5,null,null,50.0],"power_w":[63.2,null,null,63.2]"#),
        "{text}"
    );
    assert!(text.contains(r#""vram_used_mb":[3.0,null,null,3.0]"#), "{text}");
    // An hour and no more: the oldest minute is dropped.
    recent.see(&[gpu(Some(60))], Duration::from_secs(60 * 60));
    let text = recent.answer(None, 1.0);
    assert_eq!(text.matches("null").count(), 56 + 56 + 58 + 56, "{text}");
}
