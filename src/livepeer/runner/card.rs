//! The GPUs as a registry publishes them: the first in the field that clients filter by, and in the metadata all kinds
//! where they differ.

use serde::Serialize;

use crate::gpu::state::GpuState;
use crate::health::snapshot::Snapshot;
use crate::health::verdict::Verdict;
use crate::ollama::state::Reach;

/// Bytes of metadata that a registry accepts.
const MOST_METADATA: usize = 1024;
/// Characters of a GPU's name.
const MOST_NAME: usize = 64;

/// A GPU as the registry shows it: in MIG mode the largest instance, which is what a model can have. Clients find it by its
/// name; other unknown values are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Card {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_mb: Option<u64>,
}

/// The GPUs of the last good sample, kept while the driver restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cards {
    all: Vec<Card>,
    driver: Option<String>,
}

impl Cards {
    pub(crate) fn see(&mut self, gpu: &GpuState) {
        let Some(sample) = gpu.sample() else { return };
        // A GPU that is late has no values, and most likely answers again in a moment.
        if sample.gpus.iter().any(|gpu| gpu.is_slow()) {
            return;
        }
        let card = |gpu: &crate::gpu::sample::Gpu| {
            let vram_mb = gpu.model_memory().map(|bytes| bytes >> 20);
            // A place on the bus is not unique between machines.
            let id = gpu.uuid.clone().filter(|id| !id.starts_with("PCI-"));
            Some(Card { id, name: gpu.model_gpu()?, vram_mb })
        };
        // Nothing runs on a GPU in MIG mode without an instance.
        let offered = sample.gpus.iter().filter(|gpu| gpu.usable() && !gpu.lacks_instance());
        self.all = offered.filter_map(card).collect();
        self.driver = sample.driver_version.as_deref().map(short);
    }

    /// The GPU that clients filter by.
    pub(crate) fn first(&self) -> Option<&Card> {
        self.all.first()
    }

    /// The number of GPUs of each kind; empty where all are alike.
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for card in &self.all {
            let name = text(&card.name, MOST_NAME);
            match kinds.iter_mut().find(|kind| (&kind.name, kind.vram_mb) == (&name, card.vram_mb)) {
                Some(kind) => kind.count += 1,
                None => kinds.push(Kind { name, vram_mb: card.vram_mb, count: 1 }),
            }
        }
        if kinds.len() > 1 { kinds } else { Vec::new() }
    }
}

#[derive(Debug, Serialize)]
struct Kind {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_mb: Option<u64>,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Summary {
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    gpus: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ollama: Option<String>,
    /// Empty where all GPUs are alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<Kind>,
}

impl Summary {
    /// JSON within the limit: kinds without room are left out.
    fn fit(mut self) -> String {
        loop {
            let text = crate::sys::json::json(&self);
            if text.len() <= MOST_METADATA || self.kinds.pop().is_none() {
                return text;
            }
        }
    }
}

/// A small public summary: no host names, nothing secret.
pub(crate) fn metadata(snapshot: Option<&Snapshot>, verdict: Verdict, cards: &Cards) -> String {
    let ollama = snapshot.and_then(|s| match &s.ollama.reach {
        Reach::Up { version } => Some(short(version)),
        _ => None,
    });
    let gpus = snapshot.map_or(0, Snapshot::gpu_count);
    Summary { v: 1, verdict: Some(verdict), gpus, driver: cards.driver.clone(), ollama, kinds: cards.kinds() }.fit()
}

/// The metadata for a static list: without the verdict, which changes.
pub(crate) fn static_metadata(cards: &Cards) -> String {
    let driver = cards.driver.clone();
    Summary { v: 1, verdict: None, gpus: cards.all.len(), driver, ollama: None, kinds: cards.kinds() }.fit()
}

fn short(version: &str) -> String {
    version.chars().filter(char::is_ascii_graphic).take(32).collect()
}

/// Printable ASCII: a registry rejects cut UTF-8.
fn text(name: &str, most: usize) -> String {
    name.chars().filter(|c| (' '..='~').contains(c)).take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::gpu::sample::{Gpu, GpuSample};
    use crate::gpu::vendor::Vendor;

    fn gpu(index: u32, name: &str) -> Gpu {
        Gpu {
            index,
            uuid: Some(format!("GPU-{index}")),
            name: Some(name.into()),
            vram_total_bytes: Some(24 << 30),
            ..Gpu::default()
        }
    }

    fn cards(gpus: Vec<Gpu>) -> Cards {
        let mut cards = Cards::default();
        cards.see(&GpuState::Sample(GpuSample { gpus, driver_version: Some("550.1".into()), ..GpuSample::default() }));
        cards
    }

    #[test]
    fn the_last_good_sample_counts() {
        let mut cards = cards(vec![gpu(0, "A"), gpu(1, "A")]);
        let first = json!({"id": "GPU-0", "name": "A", "vram_mb": 24576});
        assert_eq!(serde_json::to_value(cards.first()).unwrap(), first);
        cards.see(&GpuState::Pending);
        cards.see(&GpuState::Starting { vendor: Vendor::Nvidia, lasting_s: 1.0, gpus: Vec::new() });
        assert_eq!(serde_json::to_value(cards.first()).unwrap(), first);
        // A sample without GPUs is one: they are gone.
        cards.see(&GpuState::Sample(GpuSample::default()));
        assert_eq!(cards.first(), None);
        cards.see(&GpuState::Sample(GpuSample {
            gpus: vec![Gpu { name: None, ..gpu(0, "") }, Gpu { vram_total_bytes: None, uuid: None, ..gpu(1, "B") }],
            ..GpuSample::default()
        }));
        assert_eq!(serde_json::to_value(cards.first()).unwrap(), json!({"name": "B"}));
        let by_place = Gpu { uuid: Some("PCI-0000:03:00.0".into()), ..gpu(0, "C") };
        cards.see(&GpuState::Sample(GpuSample { gpus: vec![by_place], ..GpuSample::default() }));
        assert_eq!(serde_json::to_value(cards.first()).unwrap(), json!({"name": "C", "vram_mb": 24576}));
    }

    #[test]
    fn different_gpus_are_listed_as_far_as_there_is_room() {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let alike = static_metadata(&cards(vec![gpu(0, "A"), gpu(1, "A")]));
        assert_eq!(parse(&alike), json!({"v": 1, "gpus": 2, "driver": "550.1"}));
        let mixed = static_metadata(&cards(vec![gpu(0, "A"), gpu(1, "B \"x\" ü"), gpu(2, "A")]));
        let kinds = json!([
            {"name": "A", "vram_mb": 24576, "count": 2},
            {"name": "B \"x\" ", "vram_mb": 24576, "count": 1}
        ]);
        assert_eq!(parse(&mixed)["kinds"], kinds);
        let long = (0..40).map(|i| gpu(i, &format!("{i} {}", "\"\\\u{1F600}".repeat(100)))).collect();
        let text = metadata(None, Verdict::Unknown, &cards(long));
        let parsed = parse(&text);
        assert!(text.len() <= MOST_METADATA && text.is_ascii(), "{} {text}", text.len());
        assert!(text.len() > 800 && parsed["kinds"].as_array().unwrap().len() > 2, "{text}");
        assert_eq!(parsed["verdict"], "unknown");
    }
}
