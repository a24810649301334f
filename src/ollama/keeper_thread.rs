//! The threads that keep the models of MODEL pulled, loaded and probed, one for each model; `keeper` and `probe` decide what
//! they do.

mod probes;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{ModelLists, OllamaClient};
use super::keeper::request::Renewal;
use super::keeper::row::{KeeperRow, LastLoad, ModelState, Stuck};
use super::keeper::{KeeperState, Next};
use super::probe::prober::Prober;
use super::probe::tending::Tending;
use super::pull::{self, Progress};
use crate::config::{Config, KeepAlive, ProbeSettings};
use crate::sys::limits::unix_seconds;
use crate::sys::status_table::StatusTable;
use crate::sys::threads;

/// How often Ollama's lists are read.
const INTERVAL: Duration = Duration::from_secs(5);
/// A log line for each step of this many percent of a pull.
const LOG_STEP: u8 = 5;

const CLOUD: &str =
    "runs in Ollama's cloud, not on this machine's GPU, so it is neither pulled nor loaded. Remove it from MODEL";
const STUCK: &str = "listed as loaded although it has expired, and two requests in a row got no answer: its runner hangs. Restart Ollama";
const UNANSWERED: &str = "listed as loaded although it has expired, and a request got no answer: its runner serves a long request or hangs. The request is repeated";
const ROOM: &str = "no room for both. Raise OLLAMA_MAX_LOADED_MODELS, free memory, or remove one of them from MODEL";

/// The status of all models of MODEL.
pub(crate) type Keepers = StatusTable<KeeperRow>;

/// Starts a thread for each model of MODEL; they run as long as the process.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(config: &Config, keepers: &Arc<Keepers>, prober: &Arc<Prober>) -> io::Result<()> {
    // One start time for all: their times are compared.
    let started = Instant::now();
    let client = Arc::new(OllamaClient::new(&config.ollama, config.faults.time_scale));
    for model in &config.models.names {
        let one = ModelKeeper {
            model: model.clone(),
            keep_alive: config.models.keep_alive.clone(),
            client: Arc::clone(&client),
            keepers: Arc::clone(keepers),
            prober: Arc::clone(prober),
            probe: config.models.probe,
            at: keepers.put(KeeperRow::new(model), |_, _| false),
            started,
            time_scale: config.faults.time_scale,
        };
        threads::service("keeper", move || one.keep())?;
    }
    Ok(())
}

/// The keeper of one model.
struct ModelKeeper {
    model: String,
    keep_alive: KeepAlive,
    client: Arc<OllamaClient>,
    keepers: Arc<Keepers>,
    prober: Arc<Prober>,
    probe: ProbeSettings,
    at: usize,
    started: Instant,
    time_scale: u32,
}

impl ModelKeeper {
    fn now(&self) -> Duration {
        self.started.elapsed() * self.time_scale
    }

    fn keep(&self) {
        self.change(KeeperRow::restarted);
        let mut keeper = KeeperState::new(self.keep_alive.time);
        let mut tending = Tending::new(self.probe, self.known(|probes| probes.unanswered));
        let mut before = ModelState::Waiting;
        let mut beside = Vec::new();
        loop {
            let lists = self.client.lists();
            let status = lists.as_ref().ok().map(|lists| lists.status_of(&self.model));
            let clock = lists.as_ref().map_or_else(|_| unix_seconds(), |lists| lists.now());
            if let Some(status) = &status {
                self.forget_deleted(&mut tending, status);
            }
            let (state, next) = keeper.next(status.as_ref(), clock, self.now());
            if let Ok(lists) = &lists {
                if before == ModelState::Loaded && matches!(state, ModelState::Waiting | ModelState::Loading) {
                    log::info!("{}: unloaded by Ollama; reloading", self.model);
                }
                self.see_neighbors(&mut keeper, lists, &mut beside);
                if status.as_ref().is_some_and(|status| status.pulled && status.remote_host.is_some()) {
                    self.notice(|row| row.error.as_deref() == Some(CLOUD), CLOUD);
                }
                if let Some(stuck) = keeper.stuck(clock) {
                    self.notice(|row| row.stuck == Some(stuck), in_words(stuck));
                }
            }
            self.show(&keeper, &lists, state, keeper.stuck(clock));
            // Sixteen keepers that wait would hold sixteen.
            drop(lists);
            before = state;
            match next {
                Next::Wait if self.tend(&mut keeper, &mut tending, status.as_ref(), clock) => {}
                Next::Wait => thread::sleep(INTERVAL / self.time_scale),
                Next::Pull => self.pull(&mut keeper),
                Next::Load => self.load(&mut keeper, None),
                Next::Renew(renewal) => self.load(&mut keeper, Some(renewal)),
            }
        }
    }

    /// Which model took its place or is loaded beside it. `beside`: the models loaded when this one last was.
    fn see_neighbors(&self, keeper: &mut KeeperState, lists: &ModelLists, beside: &mut Vec<String>) {
        let loaded = || lists.models.iter().filter(|model| model.loaded.is_some()).map(|model| model.name.clone());
        let rows = self.keepers.rows();
        let others = || rows.iter().enumerate().filter(|(at, _)| *at != self.at).map(|(_, row)| row);
        if let Some(since) = keeper.lost_since() {
            if let Some(other) = others().find(|row| row.loaded_since(since)) {
                keeper.displaced(self.now());
                let by = &other.model;
                log::warn!("{}: unloaded by Ollama for {by}, also in MODEL: {ROOM}", self.model);
                self.change(|row| row.displaced_by = Some(by.clone()));
            } else if let Some(new) = loaded().find(|name| !beside.contains(name)) {
                log::warn!("{}: unloaded by Ollama for {new}, which a client loaded", self.model);
            }
        }
        if lists.status_of(&self.model).loaded.is_some() {
            *beside = loaded().collect();
            let both = others().any(|row| {
                rows[self.at].displaced_by.as_ref() == Some(&row.model) && lists.status_of(&row.model).loaded.is_some()
            });
            if both {
                keeper.placed();
            }
        }
        if !keeper.is_displaced() {
            self.change(|row| row.displaced_by = None);
        }
    }

    /// Warns once about a new condition.
    fn notice(&self, known: impl Fn(&KeeperRow) -> bool, what: &str) {
        if !self.keepers.rows().get(self.at).is_some_and(known) {
            log::warn!("{}: {what}", self.model);
        }
    }

    fn show(
        &self,
        keeper: &KeeperState,
        lists: &Result<Arc<ModelLists>, String>,
        state: ModelState,
        stuck: Option<Stuck>,
    ) {
        let cloud = lists.as_ref().is_ok_and(|lists| lists.status_of(&self.model).remote_host.is_some());
        let rest = keeper.pull_rest(self.now());
        self.change(|row| {
            (row.state, row.stuck) = (state, stuck);
            row.deaths.pass(self.now());
            row.error = match (lists, state) {
                (Err(why), _) => Some(why.clone()),
                (Ok(_), ModelState::Failed) if stuck.is_some() => stuck.map(in_words).map(str::to_owned),
                (Ok(_), ModelState::Failed) if cloud => Some(CLOUD.into()),
                (Ok(_), ModelState::Failed) if rest.is_some() => rest.map(str::to_owned),
                (Ok(_), ModelState::Failed) => {
                    row.error.take().or_else(|| Some("pulled, but Ollama does not list it".into()))
                }
                (Ok(_), ModelState::Waiting) => {
                    row.displaced_by.as_ref().map(|by| format!("unloaded by Ollama for {by}: {ROOM}"))
                }
                (Ok(_), _) => None,
            };
        });
    }

    fn pull(&self, keeper: &mut KeeperState) {
        log::info!("{}: pulling", self.model);
        let mut logged = 0;
        let mut far = Progress::default();
        let pulled = self.client.pull(&self.model, |pull, line| {
            pull.line(line, self.started.elapsed());
            let progress = pull.progress();
            if progress.percent >= logged + LOG_STEP && progress.percent < 100 {
                logged = progress.percent - progress.percent % LOG_STEP;
                log::info!("{}: {}", self.model, pull::in_words(&progress));
            }
            far = progress.clone();
            self.change(|row| row.show(Some(progress)));
        });
        let why = keeper.pulled(pulled.as_ref().copied(), &far, &self.model, self.now());
        match &why {
            None => log::info!("{}: pulled", self.model),
            Some(why) => log::warn!("{}: cannot pull it: {why}", self.model),
        }
        self.change(|row| {
            row.show(None);
            row.pulls[usize::from(pulled.is_err())] += 1;
            self.ended(row, why.as_ref());
        });
    }

    fn load(&self, keeper: &mut KeeperState, renewal: Option<Renewal>) {
        let began = self.now();
        if renewal.is_none() {
            self.change(|row| row.load = Some(LastLoad::UnderWay));
        }
        let loaded = self.client.load(&self.model, &self.keep_alive.json, renewal);
        let now = self.now();
        let harmed = keeper.asked(&loaded, began, now);
        match &loaded {
            Ok(_) if harmed => log::info!(
                "{}: Ollama reloaded it for our request: a client uses other options, or its runner had died. Leaving it to clients for a day",
                self.model
            ),
            Ok(_) if renewal.is_some() => log::debug!("{}: kept loaded", self.model),
            Ok(_) => log::info!("{}: loaded", self.model),
            Err(error) if renewal.is_some() => log::warn!("{}: cannot keep it loaded: {}", self.model, error.why),
            Err(error) => log::warn!("{}: cannot load it: {}", self.model, error.why),
        }
        self.change(|row| {
            row.loads[usize::from(loaded.is_err())] += 1;
            match &loaded {
                Ok(_) => row.deaths.answered(),
                Err(error) if error.died => row.deaths.add(&error.why, now),
                Err(_) => {}
            }
            if renewal.is_none() {
                row.load = loaded.is_ok().then_some(LastLoad::Ended(now));
            }
            self.ended(row, loaded.as_ref().err().map(|error| &error.why));
        });
    }

    fn ended(&self, row: &mut KeeperRow, error: Option<&String>) {
        row.error = error.cloned();
        if error.is_some() {
            row.state = ModelState::Failed;
        }
    }

    fn change(&self, change: impl FnOnce(&mut KeeperRow)) {
        self.keepers.change(self.at, change);
    }
}

fn in_words(stuck: Stuck) -> &'static str {
    if stuck == Stuck::Certainly { STUCK } else { UNANSWERED }
}
