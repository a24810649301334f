//! Keeps the models of MODEL pulled and loaded, each with a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::edge::limits::unix_now;
use crate::edge::ollama::Client;
use crate::pure::config::{Config, KeepAlive};
use crate::pure::keeper::{Keeper, Next, Row, State};
use crate::pure::pull;
use crate::rows::Rows;
use crate::threads;

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
    for model in &config.models.names {
        let one = One {
            model: model.clone(),
            keep_alive: config.models.keep_alive.clone(),
            client: Client::new(config.ollama.clone(), config.hurry),
            keepers: Arc::clone(keepers),
            at: keepers.add(Row::new(model)),
            started: Instant::now(),
            hurry: config.hurry,
        };
        threads::essential("keeper", move || one.keep())?;
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
        loop {
            let look = self.client.look(&self.model);
            let standing = look.as_ref().ok().map(|look| &look.standing);
            #[allow(clippy::cast_possible_truncation)] // whole seconds are enough
            let ours = unix_now() as i64;
            let clock = look.as_ref().ok().and_then(|look| look.clock).unwrap_or(ours);
            let (state, next) = keeper.next(standing, clock, self.now());
            if before == State::Loaded && matches!(state, State::Waiting | State::Loading) && look.is_ok() {
                log::info!("{}: Ollama has unloaded it; it will be loaded again", self.model);
            }
            self.change(|row| {
                row.state = state;
                match (&look, state) {
                    (Err(why), _) => row.error = Some(why.clone()),
                    (Ok(_), State::Failed) => {
                        row.error.get_or_insert_with(|| "it was pulled, but Ollama does not list it".into());
                    }
                    (Ok(_), _) => row.error = None,
                }
            });
            before = state;
            match next {
                Next::Look => thread::sleep(LOOK / self.hurry),
                Next::Pull => keeper.pulled(self.pull(), self.now()),
                Next::Load => self.load(&mut keeper, state),
            }
        }
    }

    /// Whether it succeeded.
    fn pull(&self) -> bool {
        log::info!("{}: pulling", self.model);
        let mut logged = 0;
        let pulled = self.client.pull(&self.model, |pull, line| {
            pull.line(line, self.started.elapsed());
            let progress = pull.progress();
            if progress.percent >= logged + LOG_STEP && progress.percent < 100 {
                logged = progress.percent - progress.percent % LOG_STEP;
                log::info!("{}: {}", self.model, pull::in_words(&progress));
            }
            self.change(|row| row.show(Some(progress)));
        });
        match &pulled {
            Ok(()) => log::info!("{}: pulled", self.model),
            Err(error) => log::warn!("{}: it cannot be pulled: {}", self.model, error.why),
        }
        self.change(|row| {
            row.show(None);
            row.pulls[usize::from(pulled.is_err())] += 1;
            self.ended(row, pulled.as_ref().err().map(|error| &error.why));
        });
        pulled.is_ok()
    }

    fn load(&self, keeper: &mut Keeper, state: State) {
        let loaded = self.client.load(&self.model, &self.keep_alive.json);
        keeper.asked(&loaded, self.now());
        match &loaded {
            Ok(()) if state == State::Loaded => log::debug!("{}: kept loaded", self.model),
            Ok(()) => log::info!("{}: loaded", self.model),
            Err(error) => log::warn!("{}: it cannot be loaded: {}", self.model, error.why),
        }
        self.change(|row| {
            row.loads[usize::from(loaded.is_err())] += 1;
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
