//! GET /metrics: under one prefix, in base units, identity in `_info` and values keyed by `uuid`. What is unknown is
//! absent, never 0.

mod gpus;
mod heartbeat;
mod keepers;
mod mig;
mod notifications;
mod nvidia_smi;
mod ollama;
mod peers;
mod probes;
mod registrations;
mod rows;
mod worker;

use crate::config::limits::Limits;
use crate::gpu::readings;
use crate::health::recorder;
use crate::health::snapshot::Snapshot;
use crate::livepeer::tickets::intake;
use crate::sys::counters;
use crate::sys::explanation::{Explanation, Names};
use crate::sys::exposition::{Exposition, Family};

pub(crate) use heartbeat::write as heartbeat;
pub(crate) use keepers::write as keepers;
pub(crate) use notifications::write as notifications;
pub(crate) use nvidia_smi::write as nvidia_smi;
pub(crate) use peers::write as peers;
pub(crate) use registrations::write as registrations;
pub(crate) use worker::{health, nothing_yet, process};

/// Writes everything that a snapshot knows.
pub(crate) fn write(out: &mut Exposition, snapshot: &Snapshot, limits: &Limits) {
    worker::readings(out, snapshot, limits);
    gpus::write(out, snapshot);
    ollama::write(out, snapshot);
}

/// All metrics but those of `nvidia_smi`, by headings.
pub(crate) fn all() -> [(&'static str, Vec<Family>); 5] {
    let of_readings: Vec<Family> = readings::families().into_iter().map(|(family, _)| family).collect();
    [
        ("Worker", [worker::METRICS, recorder::METRICS, notifications::METRICS, peers::METRICS].concat()),
        ("GPU", [gpus::METRICS, &of_readings, mig::METRICS].concat()),
        ("Ollama and models", [ollama::METRICS, keepers::METRICS, probes::METRICS].concat()),
        ("Jobs, registrations and tickets", [counters::METRICS, registrations::METRICS, intake::METRICS].concat()),
        ("Notifications", heartbeat::METRICS.to_vec()),
    ]
}

/// For `agent-net explain`.
pub(crate) const NAMES: Names = Names { kind: "metric", all: || families().map(|family| family.name).collect(), find };

fn families() -> impl Iterator<Item = Family> {
    all().into_iter().flat_map(|(_, families)| families)
}

fn find(name: &str) -> Option<Explanation> {
    let family = families().find(|family| family.name.eq_ignore_ascii_case(name))?;
    let labels = family.labels.join(", ");
    let fields = [("meaning", family.help.to_owned()), ("type", family.kind.name().to_owned()), ("labels", labels)];
    Some(Explanation::new(&NAMES, family.name, fields))
}

#[cfg(test)]
mod tests;
