//! Sends probes, one at a time: two at once would slow each other down, and the GPUs could not be distinguished.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::answer::{Answered, Outcome};
use super::report::Sent;
use super::speeds::SpeedKey;
use super::speeds_file::SpeedBook;
use super::state::{Expiry, LoadedAs, Order, expiry, loaded_as};
use super::watch::GpuWatch;
use super::witness::{self, Witness};
use crate::gpu::sample::GpuSample;
use crate::ollama::client::OllamaClient;
use crate::sys::counters::Gauge;
use crate::sys::limits::unix_now;

/// How long the driver's first sample after a probe is waited for.
const LATE_SAMPLE: Duration = Duration::from_secs(1);

/// What all keepers share for their probes.
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
        // A model that hangs keeps no other one waiting.
        let _permit = if order.urgent { None } else { Some(self.under_way.enter(1)?) };
        let busy = self.gpus.mark().filter(|_| !order.urgent);
        // The lists are some seconds old, and a use that the probe's own move hides would never be seen.
        let answer = match busy.map_or_else(|| unused(client, model, order), Err) {
            Ok(()) => ask(client, self.gpus(), model, &order.loaded, order.timeout),
            Err(why) => Answer { outcome: Outcome::Unasked(why), witness: Witness::Unknown, expiry: None },
        };
        let Answer { outcome, witness, expiry } = answer;
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
        Some(Sent { outcome, witness, judgement, expiry })
    }
}

/// The end of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) witness: Witness,
    expiry: Option<Expiry>,
}

/// Asks a model, between a mark that was set and what the GPUs did since then.
pub(crate) fn ask(
    client: &OllamaClient,
    gpus: &dyn GpuWatch,
    model: &str,
    loaded: &LoadedAs,
    timeout: Duration,
) -> Answer {
    let unknown = |outcome, expiry| Answer { outcome, witness: Witness::Unknown, expiry };
    let outcome = client.probe(model, loaded.num_ctx, timeout);
    let Outcome::Answered(answered) = &outcome else { return unknown(outcome, None) };
    let first = gpus.since_mark();
    let expiry = match unchanged(client, model, loaded) {
        Ok(expiry) => expiry,
        Err(why) => return unknown(Outcome::Unasked(why), None),
    };
    let witness = look(first, answered, || {
        thread::sleep(LATE_SAMPLE);
        gpus.since_mark()
    });
    Answer { outcome, witness, expiry }
}

/// What the GPUs did. `later`: a sample that is awaited, where the first one may lack what the driver has not listed yet.
fn look(first: Option<GpuSample>, answered: &Answered, later: impl FnOnce() -> Option<GpuSample>) -> Witness {
    let judge = |sample: &GpuSample| witness::judge(sample, answered);
    let Some(first) = first else { return Witness::Unknown };
    match judge(&first) {
        Witness::Unknown if !is_early(&first) => Witness::Unknown,
        worked @ Witness::Worked { .. } => worked,
        _ => later().map_or(Witness::Unknown, |sample| judge(&sample)),
    }
}

/// A driver may take a sample only once a second, and a fast GPU answers in a tenth of one. In MIG mode it takes none.
fn is_early(sample: &GpuSample) -> bool {
    let supported = || sample.gpus.iter().filter(|gpu| gpu.utilization_percent.is_some());
    let activities = || supported().filter_map(|gpu| gpu.activity);
    activities().next().is_some() && activities().all(|activity| activity.utilization_percent.is_none())
}

/// # Errors
/// A client has used the model since it was last looked at.
fn unused(client: &OllamaClient, model: &str, order: &Order) -> Result<(), String> {
    let expiry = unchanged(client, model, &order.loaded)?;
    let used = expiry.is_some_and(|expiry| expiry.at != order.expires_at) && !order.urgent;
    if used { Err("a client used it just now".into()) } else { Ok(()) }
}

/// When the model expires now; None: unknown.
///
/// # Errors
/// It became another one.
fn unchanged(client: &OllamaClient, model: &str, loaded: &LoadedAs) -> Result<Option<Expiry>, String> {
    let Ok(lists) = client.lists() else { return Ok(None) };
    let status = lists.status_of(model);
    let Ok(now) = loaded_as(&status) else { return Ok(None) };
    if now.digest != loaded.digest || now.num_ctx != loaded.num_ctx {
        return Err("its weights or its context length changed during the probe".into());
    }
    Ok(expiry(&status).ok().map(|at| Expiry { at, left: at.saturating_sub(lists.now()) }))
}

#[test]
fn a_gpu_is_idle_only_when_the_driver_had_time_to_list_its_work() {
    use crate::gpu::activity::Activity;
    use crate::gpu::sample::Gpu;
    let seen = |percent: Option<u32>| {
        let samples = percent.map_or(0, |_| 10);
        let sampled_us = percent.map(|_| 1_000_000);
        let activity =
            Activity { window_us: 1_000_000, utilization_percent: percent, samples, sampled_us, ..Activity::default() };
        let gpu = Gpu { activity: Some(activity), utilization_percent: Some(0), ..Gpu::default() };
        Some(GpuSample { gpus: vec![gpu], ..GpuSample::default() })
    };
    let eval = Duration::from_secs(1);
    let answered = Answered { total: eval, eval, tokens_written: 16, ..Answered::default() };
    let mig = seen(None).map(|sample| {
        let gpus = sample.gpus.into_iter().map(|gpu| Gpu { utilization_percent: None, ..gpu }).collect();
        GpuSample { gpus, ..GpuSample::default() }
    });
    let percent = |first, later: Option<Option<u32>>| {
        let late = || later.map(seen).expect("one look was enough");
        look(seen(first), &answered, late).percent()
    };
    assert_eq!(percent(Some(97), None), Some(97));
    assert_eq!(percent(Some(3), Some(Some(97))), Some(97));
    assert_eq!(percent(Some(3), Some(Some(3))), Some(3));
    assert_eq!(percent(Some(3), Some(None)), None);
    assert_eq!(percent(None, Some(Some(97))), Some(97));
    assert_eq!(percent(Some(15), None), None, "unknown, and not for want of samples");
    assert_eq!(look(None, &answered, || seen(Some(97))), Witness::Unknown);
    assert_eq!(look(mig, &answered, || unreachable!("it is not read again")), Witness::Unknown);
}
