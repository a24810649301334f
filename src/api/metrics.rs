//! GET /metrics: under one prefix, in base units, identity in `_info` and values keyed by `uuid`. What is unknown is
//! absent, never 0.

mod gpus;
mod keepers;
mod nvidia_smi;
mod ollama;
mod registrations;
mod worker;

#[cfg(test)]
use crate::{
    gpu::readings,
    health::recorder,
    livepeer::tickets::intake,
    sys::{counters, exposition::Family},
};

use crate::config::limits::Limits;
use crate::health::snapshot::Snapshot;
use crate::sys::exposition::Exposition;

pub(crate) use keepers::write as keepers;
pub(crate) use nvidia_smi::write as nvidia_smi;
pub(crate) use registrations::write as registrations;
pub(crate) use worker::{health, nothing_yet, process};

/// Writes everything that a snapshot knows.
pub(crate) fn write(out: &mut Exposition, snapshot: &Snapshot, limits: &Limits) {
    worker::readings(out, snapshot, limits);
    gpus::write(out, snapshot);
    ollama::write(out, snapshot);
}

/// All metrics but those of `nvidia_smi`, by headings.
#[cfg(test)]
pub(crate) fn all() -> [(&'static str, Vec<Family>); 4] {
    let of_readings: Vec<Family> = readings::families().into_iter().map(|(family, _)| family).collect();
    [
        ("Worker", [worker::METRICS, recorder::METRICS].concat()),
        ("GPU", [gpus::METRICS, &of_readings].concat()),
        ("Ollama and models", [ollama::METRICS, keepers::METRICS].concat()),
        ("Jobs, registrations and tickets", [counters::METRICS, registrations::METRICS, intake::METRICS].concat()),
    ]
}

#[cfg(test)]
mod tests;
