//! Sends probes, one at a time: two at once would slow each other down, and the GPUs could not be distinguished.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::answer::Outcome;
use super::report::Sent;
use super::speeds::SpeedKey;
use super::speeds_file::SpeedBook;
use super::state::{LoadedAs, Order, loaded_as};
use super::watch::GpuWatch;
use super::witness::{self, Witness};
use crate::gpu::sample::GpuSample;
use crate::ollama::client::OllamaClient;
use crate::sys::counters::Gauge;
use crate::sys::limits::unix_now;

/// How long the driver's first sample after a probe is waited for.
const LATE_SAMPLE: Duration = Duration::from_secs(1);

/// What all keepers share for their probes.
#[derive(Debug)]
pub(crate) struct Prober {
    gpus: Arc<dyn GpuWatch>,
    speeds: SpeedBook,
    under_way: Gauge,
}

impl Prober {
    pub(crate) fn new(gpus: Arc<dyn GpuWatch>, speeds: SpeedBook) -> Self {
        Self { gpus, speeds, under_way: Gauge::default() }
    }

    pub(crate) fn gpus(&self) -> &dyn GpuWatch {
        &*self.gpus
    }

    /// Sends a probe; None: another model is being probed.
    pub(crate) fn send(&self, client: &OllamaClient, model: &str, order: &Order) -> Option<Sent> {
        let _permit = self.under_way.enter(1)?;
        let (outcome, witness) = match self.gpus.mark().filter(|_| !order.urgent) {
            Some(why) => (Outcome::Unasked(why), Witness::Unknown),
            None => ask(client, self.gpus(), model, &order.loaded, order.timeout),
        };
        let loaded = &order.loaded;
        let key = SpeedKey::new(&loaded.digest, Some(loaded.num_ctx), &self.gpus.identity());
        let speed = match &outcome {
            Outcome::Answered(answered) if answered.is_measured() => answered.tokens_per_second(),
            _ => None,
        };
        let judgement = match speed {
            Some(speed) => self.speeds.add(&key, speed, unix_now()),
            None => self.speeds.judgement(&key),
        };
        Some(Sent { outcome, witness, judgement })
    }
}

/// Asks a model, between a mark that was set and what the GPUs did since then.
pub(crate) fn ask(
    client: &OllamaClient,
    gpus: &dyn GpuWatch,
    model: &str,
    loaded: &LoadedAs,
    timeout: Duration,
) -> (Outcome, Witness) {
    let outcome = client.probe(model, Some(loaded.num_ctx), timeout);
    let Outcome::Answered(answered) = &outcome else { return (outcome, Witness::Unknown) };
    let mut sample = gpus.since_mark();
    if let Some(why) = changed(client, model, loaded) {
        return (Outcome::Unasked(why), Witness::Unknown);
    }
    if sample.as_ref().is_some_and(is_early) {
        thread::sleep(LATE_SAMPLE);
        sample = gpus.since_mark();
    }
    let witness = sample.map_or(Witness::Unknown, |sample| witness::judge(&sample, answered));
    (outcome, witness)
}

/// A driver may take a sample only once a second, and a fast GPU answers in a tenth of one.
fn is_early(sample: &GpuSample) -> bool {
    let activities = || sample.gpus.iter().filter_map(|gpu| gpu.activity);
    activities().next().is_some() && activities().all(|activity| activity.utilization_percent.is_none())
}

/// Whether the model became another one during the probe.
fn changed(client: &OllamaClient, model: &str, loaded: &LoadedAs) -> Option<String> {
    let status = client.lists().ok()?.status_of(model);
    let now = loaded_as(&status).ok()?;
    let same = now.digest == loaded.digest && now.num_ctx == loaded.num_ctx;
    (!same).then(|| "its weights or its context length changed during the probe".into())
}
