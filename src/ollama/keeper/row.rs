//! The status of one model of MODEL, for operators.

use std::time::Duration;

use serde::Serialize;

use crate::ollama::probe::row::ProbeFacts;
use crate::ollama::pull::Progress;
use crate::ollama::runner::Deaths;

/// What the keeper of a model is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModelState {
    /// It waits for Ollama, or for the next try.
    Waiting,
    Pulling,
    Loading,
    Loaded,
    /// The last try failed; there will be another.
    Failed,
}

impl ModelState {
    pub(crate) const ALL: [Self; 5] = [Self::Waiting, Self::Pulling, Self::Loading, Self::Loaded, Self::Failed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pulling => "pulling",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ModelKeeper"))]
pub(crate) struct KeeperRow {
    /// The model's name, as MODEL has it.
    pub(crate) model: String,
    pub(crate) state: ModelState,
    /// Progress of the current pull; null without one.
    percent: Option<u8>,
    /// MiB received by the current pull; null without one.
    completed_mb: Option<u64>,
    /// MiB of the current pull, as far as known; null without one.
    total_mb: Option<u64>,
    /// MiB per second of the current pull; null without one, and while it is unknown.
    mb_per_second: Option<f64>,
    /// Seconds that the current pull will still take; null without one, and while that is unknown.
    eta_seconds: Option<u64>,
    /// Why it is not loaded, and what to do.
    pub(crate) error: Option<String>,
    #[serde(skip)]
    pub(crate) progress: Option<Progress>,
    /// Succeeded and failed pulls, then loads.
    #[serde(skip)]
    pub(crate) pulls: [u64; 2],
    #[serde(skip)]
    pub(crate) loads: [u64; 2],
    /// Set when it is listed as loaded and does not answer.
    #[serde(skip)]
    pub(crate) stuck: Option<Stuck>,
    /// The other model of MODEL for which Ollama unloaded this one.
    #[serde(skip)]
    pub(crate) displaced_by: Option<String>,
    /// The last load, unless it failed.
    #[serde(skip)]
    pub(crate) load: Option<LastLoad>,
    /// Those of its runner.
    #[serde(skip)]
    pub(crate) deaths: Deaths,
    #[serde(skip)]
    pub(crate) probes: ProbeFacts,
}

/// A model that is listed as loaded after it expired, and does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stuck {
    /// One request got no answer: its runner may be serving a long request.
    Perhaps,
    /// Two in a row got no answer.
    Certainly,
}

/// The last load of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LastLoad {
    UnderWay,
    Ended(Duration),
}

impl KeeperRow {
    pub(crate) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            state: ModelState::Waiting,
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
            deaths: Deaths::default(),
            probes: ProbeFacts::default(),
        }
    }

    /// Shows the progress of a pull; None: no pull.
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

    /// Whether a load was under way at any time since `since`.
    pub(crate) fn loaded_since(&self, since: Duration) -> bool {
        self.load.is_some_and(|load| match load {
            LastLoad::UnderWay => true,
            LastLoad::Ended(at) => at >= since,
        })
    }

    /// Its thread starts again after a panic, in which a pull or a load has ended.
    pub(crate) fn restarted(&mut self) {
        self.show(None);
        self.load = None;
    }
}

#[test]
fn a_restart_ends_what_was_under_way() {
    let mut row = KeeperRow::new("m");
    row.load = Some(LastLoad::UnderWay);
    row.show(Some(Progress { percent: 40, ..Progress::default() }));
    row.restarted();
    assert_eq!((row.percent, row.progress.is_none(), row.loaded_since(Duration::ZERO)), (None, true, false));
}
