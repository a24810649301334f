//! One model of MODEL as operators see it.

use std::time::Duration;

use serde::Serialize;

use super::State;
use crate::ollama::pull::Progress;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ModelKeeper"))]
pub(crate) struct Row {
    /// As MODEL names it.
    pub(crate) model: String,
    pub(crate) state: State,
    /// While it is pulled; the same goes for the rest up to `error`.
    percent: Option<u8>,
    completed_mb: Option<u64>,
    total_mb: Option<u64>,
    mb_per_second: Option<f64>,
    eta_seconds: Option<u64>,
    /// Why it is not loaded.
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) progress: Option<Progress>,
    /// Pulls that succeeded and that failed, then loads.
    #[serde(skip)]
    pub(crate) pulls: [u64; 2],
    #[serde(skip)]
    pub(crate) loads: [u64; 2],
    /// It is listed as loaded and answers nothing.
    #[serde(skip)]
    pub(crate) stuck: Option<Stuck>,
    /// The other model of MODEL that Ollama unloaded this one for.
    #[serde(skip)]
    pub(crate) displaced_by: Option<String>,
    /// Its last load, unless that failed.
    #[serde(skip)]
    pub(crate) load: Option<Run>,
}

/// A model that is listed as loaded past its time, and answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stuck {
    /// One request got no answer: a runner that serves a long request looks the same.
    Perhaps,
    /// Two in a row got none.
    Certainly,
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Run {
    UnderWay,
    Ended(Duration),
}

impl Row {
    pub(crate) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            state: State::Waiting,
            percent: None,
            completed_mb: None,
            total_mb: None,
            mb_per_second: None,
            eta_seconds: None,
            error: None,
            progress: None,
            pulls: [0; 2],
            loads: [0; 2],
            stuck: None,
            displaced_by: None,
            load: None,
        }
    }

    /// Shows how far a pull is; None: there is none.
    pub(crate) fn show(&mut self, progress: Option<Progress>) {
        let mib = |bytes: u64| bytes >> 20;
        let shown = progress.as_ref();
        self.percent = shown.map(|p| p.percent);
        self.completed_mb = shown.map(|p| mib(p.completed));
        self.total_mb = shown.map(|p| mib(p.total));
        let tenths = |rate: u64| (rate as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
        self.mb_per_second = shown.and_then(|p| p.bytes_per_second).map(tenths);
        self.eta_seconds = shown.and_then(|p| p.eta_seconds);
        self.progress = progress;
    }

    /// A load of it was under way at some time since `since`.
    pub(crate) fn loaded_since(&self, since: Duration) -> bool {
        self.load.is_some_and(|load| match load {
            Run::UnderWay => true,
            Run::Ended(at) => at >= since,
        })
    }
}
