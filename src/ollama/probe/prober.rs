//! Sends probes, one at a time: two at once would slow each other down, and the GPUs could not be told apart.

use std::sync::Arc;

use super::answer::Outcome;
use super::report::Sent;
use super::speeds::SpeedKey;
use super::speeds_file::SpeedBook;
use super::state::{Order, loaded_as};
use super::watch::GpuWatch;
use super::witness::{self, Witness};
use crate::ollama::client::OllamaClient;
use crate::sys::counters::Gauge;
use crate::sys::limits::unix_now;

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
        self.gpus.mark();
        let mut outcome = client.probe(model, Some(order.loaded.num_ctx), order.timeout);
        let mut witness = Witness::Unknown;
        if let Outcome::Answered(answered) = &outcome {
            witness = self.gpus.since_mark().map_or(Witness::Unknown, |sample| witness::judge(&sample, answered));
            if let Some(why) = changed(client, model, order) {
                outcome = Outcome::Unasked(why);
            }
        }
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

/// Whether the model became another one during the probe.
fn changed(client: &OllamaClient, model: &str, order: &Order) -> Option<String> {
    let status = client.lists().ok()?.status_of(model);
    let now = loaded_as(&status).ok()?;
    let same = now.digest == order.loaded.digest && now.num_ctx == order.loaded.num_ctx;
    (!same).then(|| "its weights or its context length changed during the probe".into())
}
