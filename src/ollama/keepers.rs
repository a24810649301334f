//! Keeps the models of MODEL pulled and loaded, each with a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::fetch::{Client, Look};
use super::keeper::{CLOUD, Keeper, Next, ROOM, Renewal, Row, Run, STUCK, State, Stuck, UNANSWERED};
use super::pull::{self, Progress};
use crate::config::{Config, KeepAlive};
use crate::sys::limits::unix_now;
use crate::sys::status_table::Rows;
use crate::sys::threads;

/// How often Ollama is asked how a model stands.
const LOOK: Duration = Duration::from_secs(5);
/// A line in the log for so many percent of a pull.
const LOG_STEP: u8 = 5;

/// What operators see of all models that are kept.
pub(crate) type Keepers = Rows<Row>;

/// Starts a thread for each model of MODEL; they run as long as the process.
///
/// # Errors
/// The kernel's, when no thread can be started.
pub(crate) fn start(config: &Config, keepers: &Arc<Keepers>) -> io::Result<()> {
    // One beginning for all: what one did is compared with what happened to another.
    let started = Instant::now();
    for model in &config.models.names {
        let one = One {
            model: model.clone(),
            keep_alive: config.models.keep_alive.clone(),
            client: Client::new(&config.ollama, config.hurry),
            keepers: Arc::clone(keepers),
            at: keepers.put(Row::new(model), |_, _| false),
            started,
            hurry: config.hurry,
        };
        threads::service("keeper", move || one.keep())?;
    }
    Ok(())
}

/// One model.
struct One {
    model: String,
    keep_alive: KeepAlive,
    client: Client,
    keepers: Arc<Keepers>,
    at: usize,
    started: Instant,
    /// Its time goes so many times faster.
    hurry: u32,
}

impl One {
    fn now(&self) -> Duration {
        self.started.elapsed() * self.hurry
    }

    fn keep(&self) {
        let mut keeper = Keeper::new(self.keep_alive.time);
        let mut before = State::Waiting;
        let mut beside = Vec::new();
        loop {
            let look = self.client.look();
            let standing = look.as_ref().ok().map(|look| look.standing(&self.model));
            #[allow(clippy::cast_possible_truncation)] // whole seconds are enough
            let ours = unix_now() as i64;
            let clock = look.as_ref().ok().and_then(|look| look.clock).unwrap_or(ours);
            let (state, next) = keeper.next(standing.as_ref(), clock, self.now());
            if let Ok(look) = &look {
                if before == State::Loaded && matches!(state, State::Waiting | State::Loading) {
                    log::info!("{}: Ollama has unloaded it; it will be loaded again", self.model);
                }
                self.see_neighbors(&mut keeper, look, &mut beside);
                if standing.as_ref().is_some_and(|standing| standing.pulled && standing.remote_host.is_some()) {
                    self.notice(|row| row.error.as_deref() == Some(CLOUD), CLOUD);
                }
                if let Some(stuck) = keeper.stuck(clock) {
                    self.notice(|row| row.stuck == Some(stuck), in_words(stuck));
                }
            }
            self.show(&keeper, &look, state, keeper.stuck(clock));
            before = state;
            match next {
                Next::Look => thread::sleep(LOOK / self.hurry),
                Next::Pull => self.pull(&mut keeper),
                Next::Load => self.load(&mut keeper, None),
                Next::Renew(renewal) => self.load(&mut keeper, Some(renewal)),
            }
        }
    }

    /// Who took its place, or stands beside it. `beside`: what was loaded when it was loaded last.
    fn see_neighbors(&self, keeper: &mut Keeper, look: &Look, beside: &mut Vec<String>) {
        let loaded = || look.models.iter().filter(|model| model.loaded.is_some()).map(|model| model.name.clone());
        let rows = self.keepers.rows();
        let others = || rows.iter().enumerate().filter(|(at, _)| *at != self.at).map(|(_, row)| row);
        if let Some(since) = keeper.lost_since() {
            if let Some(other) = others().find(|row| row.loaded_since(since)) {
                keeper.displaced(self.now());
                let by = &other.model;
                log::warn!("{}: Ollama has unloaded it for {by}, which MODEL names as well: {ROOM}", self.model);
                self.change(|row| row.displaced_by = Some(by.clone()));
            } else if let Some(new) = loaded().find(|name| !beside.contains(name)) {
                log::warn!("{}: Ollama has unloaded it for {new}, which a client loaded", self.model);
            }
        }
        if look.standing(&self.model).loaded.is_some() {
            *beside = loaded().collect();
            let both = others().any(|row| {
                rows[self.at].displaced_by.as_ref() == Some(&row.model) && look.standing(&row.model).loaded.is_some()
            });
            if both {
                keeper.placed();
            }
        }
        if !keeper.is_displaced() {
            self.change(|row| row.displaced_by = None);
        }
    }

    /// A word in the log about what began just now.
    fn notice(&self, known: impl Fn(&Row) -> bool, what: &str) {
        if !self.keepers.rows().get(self.at).is_some_and(known) {
            log::warn!("{}: {what}", self.model);
        }
    }

    fn show(&self, keeper: &Keeper, look: &Result<Look, String>, state: State, stuck: Option<Stuck>) {
        let cloud = look.as_ref().is_ok_and(|look| look.standing(&self.model).remote_host.is_some());
        let rest = keeper.pull_rest(self.now());
        self.change(|row| {
            (row.state, row.stuck) = (state, stuck);
            row.error = match (look, state) {
                (Err(why), _) => Some(why.clone()),
                (Ok(_), State::Failed) if stuck.is_some() => stuck.map(in_words).map(str::to_owned),
                (Ok(_), State::Failed) if cloud => Some(CLOUD.into()),
                (Ok(_), State::Failed) if rest.is_some() => rest.map(str::to_owned),
                (Ok(_), State::Failed) => {
                    row.error.take().or_else(|| Some("it was pulled, but Ollama does not list it".into()))
                }
                (Ok(_), State::Waiting) => {
                    row.displaced_by.as_ref().map(|by| format!("Ollama has unloaded it for {by}: {ROOM}"))
                }
                (Ok(_), _) => None,
            };
        });
    }

    fn pull(&self, keeper: &mut Keeper) {
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
            Some(why) => log::warn!("{}: it cannot be pulled: {why}", self.model),
        }
        self.change(|row| {
            row.show(None);
            row.pulls[usize::from(pulled.is_err())] += 1;
            self.ended(row, why.as_ref());
        });
    }

    fn load(&self, keeper: &mut Keeper, renewal: Option<Renewal>) {
        let began = self.now();
        if renewal.is_none() {
            self.change(|row| row.load = Some(Run::UnderWay));
        }
        let loaded = self.client.load(&self.model, &self.keep_alive.json, renewal);
        let now = self.now();
        let harmed = keeper.asked(&loaded, began, now);
        match &loaded {
            Ok(_) if harmed => log::info!(
                "{}: Ollama loaded it again for our request: a client had options of its own that Ollama does not list, or its runner had died; it is left to clients for a day",
                self.model
            ),
            Ok(_) if renewal.is_some() => log::debug!("{}: kept loaded", self.model),
            Ok(_) => log::info!("{}: loaded", self.model),
            Err(error) if renewal.is_some() => log::warn!("{}: it cannot be kept loaded: {}", self.model, error.why),
            Err(error) => log::warn!("{}: it cannot be loaded: {}", self.model, error.why),
        }
        self.change(|row| {
            row.loads[usize::from(loaded.is_err())] += 1;
            if renewal.is_none() {
                row.load = loaded.is_ok().then_some(Run::Ended(now));
            }
            self.ended(row, loaded.as_ref().err().map(|error| &error.why));
        });
    }

    fn ended(&self, row: &mut Row, error: Option<&String>) {
        row.error = error.cloned();
        if error.is_some() {
            row.state = State::Failed;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Row)) {
        self.keepers.change(self.at, change);
    }
}

fn in_words(stuck: Stuck) -> &'static str {
    if stuck == Stuck::Certainly { STUCK } else { UNANSWERED }
}
