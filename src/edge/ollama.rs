//! Ollama's version, pulled and loaded models over its API. It may be away, slow, lying or half-answering.

use std::time::{Duration, Instant};

use ureq::Agent;

use crate::pure::models::{self, Entry};
use crate::pure::snapshot::{OllamaState, Reach};
use crate::pure::url::HttpUrl;

/// One route, its deadline and the largest body that is read of it.
struct Ask {
    path: &'static str,
    deadline: Duration,
    max_body: u64,
}

const VERSION: Ask = Ask { path: "/api/version", deadline: Duration::from_secs(3), max_body: 64 << 10 };
/// Half a KiB a model: thousands of models fit.
const TAGS: Ask = Ask { path: "/api/tags", deadline: Duration::from_secs(10), max_body: 8 << 20 };
/// Blocks up to 10 s behind a runner that hangs, up to 5 s behind one that is unloaded (0.32.4 and later).
const PS: Ask = Ask { path: "/api/ps", deadline: Duration::from_secs(15), max_body: 1 << 20 };

/// One lost answer is no outage.
const DOWN_AFTER: u32 = 2;
/// Lists that could not be read again are shown this long.
const LISTS_LAST: Duration = Duration::from_secs(60);
/// Pulled models change rarely: they are read at every second look at least, and at most this far apart.
const TAGS_EVERY: Duration = Duration::from_secs(10);

/// Ollama as it was last seen.
#[derive(Debug)]
pub(crate) struct Ollama {
    agent: Agent,
    base: HttpUrl,
    failures: u32,
    reach: Reach,
    tags: Option<(Instant, Vec<Entry>)>,
    ps: Option<(Instant, Vec<Entry>)>,
    tags_error: Option<String>,
}

impl Ollama {
    pub(crate) fn new(base: HttpUrl) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(2)))
            .build();
        let agent = Agent::new_with_config(config);
        Self { agent, base, failures: 0, reach: Reach::Pending, tags: None, ps: None, tags_error: None }
    }

    /// Asks anew; returns within the deadlines of the routes.
    pub(crate) fn read(&mut self) -> OllamaState {
        match self.get(&VERSION).and_then(|body| models::parse_version(&body)) {
            Ok(version) => {
                self.failures = 0;
                self.reach = Reach::Up { version };
            }
            Err(why) => return self.no_answer(why),
        }
        let stale =
            |seen: &Option<(Instant, Vec<Entry>)>| seen.as_ref().is_none_or(|(at, _)| at.elapsed() >= TAGS_EVERY);
        if self.tags_error.is_some() || stale(&self.tags) {
            match self.list(&TAGS) {
                Ok(list) => (self.tags, self.tags_error) = (Some((Instant::now(), list)), None),
                Err(why) => self.tags_error = Some(why),
            }
        }
        let ps_error = match self.list(&PS) {
            Ok(list) => {
                self.ps = Some((Instant::now(), list));
                None
            }
            Err(why) => Some(why),
        };
        self.state(self.tags_error.clone().or(ps_error))
    }

    fn no_answer(&mut self, why: String) -> OllamaState {
        self.failures += 1;
        if self.failures >= DOWN_AFTER {
            // What it held is gone with it as far as anybody can tell.
            (self.tags, self.ps, self.tags_error) = (None, None, None);
            self.reach = Reach::Down(why);
            return self.state(None);
        }
        self.reach = Reach::Pending;
        self.state(None)
    }

    fn state(&self, list_error: Option<String>) -> OllamaState {
        let recent = |seen: &'_ Option<(Instant, Vec<Entry>)>| -> Option<Vec<Entry>> {
            seen.as_ref().filter(|(at, _)| at.elapsed() < LISTS_LAST).map(|(_, list)| list.clone())
        };
        let (tags, ps) = (recent(&self.tags), recent(&self.ps));
        OllamaState {
            reach: self.reach.clone(),
            lists_known: tags.is_some() && ps.is_some(),
            models: models::join(&tags.unwrap_or_default(), &ps.unwrap_or_default()),
            list_error,
        }
    }

    fn list(&self, ask: &Ask) -> Result<Vec<Entry>, String> {
        self.get(ask).and_then(|body| models::parse_list(&body)).map_err(|why| format!("{}: {why}", ask.path))
    }

    fn get(&self, ask: &Ask) -> Result<Vec<u8>, String> {
        let request = self.agent.get(self.base.join(ask.path)).config().timeout_global(Some(ask.deadline)).build();
        let mut reply = request.call().map_err(|why| why.to_string())?;
        let status = reply.status().as_u16();
        if status != 200 {
            return Err(format!("it answered {status}"));
        }
        reply.body_mut().with_config().limit(ask.max_body).read_to_vec().map_err(|why| why.to_string())
    }
}
