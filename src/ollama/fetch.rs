//! Ollama's version and its pulled and loaded models, over its API. It may be down, slow or answer in part.

use std::time::{Duration, Instant};

use super::client::{OllamaClient, PS, TAGS, VERSION};
use super::models::{self, Entry};
use crate::config::OllamaConfig;
use crate::ollama::state::{OllamaState, Reach};
use crate::outgoing::refusal::Trouble;

/// One lost answer is not an outage.
const DOWN_AFTER: u32 = 2;
/// A list that cannot be read again is shown this long.
const LISTS_LAST: Duration = Duration::from_secs(60);
/// Pulled models change rarely: they are not read at each sample, but at most this far apart.
const TAGS_EVERY: Duration = Duration::from_secs(10);

/// Ollama's last known state.
#[derive(Debug)]
pub(crate) struct Ollama {
    client: OllamaClient,
    failures: u32,
    reach: Reach,
    tags: Option<(Instant, Vec<Entry>)>,
    ps: Option<(Instant, Vec<Entry>)>,
    tags_error: Option<Trouble>,
    /// Loaded models missing from the last list of pulled ones: known, so no reason to read that again.
    unlisted: Vec<String>,
}

impl Ollama {
    pub(crate) fn new(config: &OllamaConfig) -> Self {
        let client = OllamaClient::new(config, 1);
        let unlisted = Vec::new();
        Self { client, failures: 0, reach: Reach::Pending, tags: None, ps: None, tags_error: None, unlisted }
    }

    /// Asks Ollama; returns within the deadlines of the routes.
    pub(crate) fn read(&mut self) -> OllamaState {
        match self.client.get(&VERSION).and_then(|answer| Ok(models::parse_version(&answer.body)?)) {
            Ok(version) => {
                self.failures = 0;
                self.reach = Reach::Up { version };
            }
            Err(why) => return self.no_answer(why),
        }
        let stale =
            |seen: &Option<(Instant, Vec<Entry>)>| seen.as_ref().is_none_or(|(at, _)| at.elapsed() >= TAGS_EVERY);
        let read = self.tags_error.is_some() || stale(&self.tags);
        if read {
            self.read_tags();
        }
        let ps_error = match self.client.list(&PS) {
            Ok(list) => {
                self.ps = Some((Instant::now(), list));
                let unlisted = self.unlisted();
                if !read && unlisted.iter().any(|name| !self.unlisted.contains(name)) {
                    self.read_tags();
                }
                self.unlisted = self.unlisted();
                None
            }
            Err(why) => Some(why),
        };
        self.state(self.tags_error.clone().or(ps_error))
    }

    fn read_tags(&mut self) {
        match self.client.list(&TAGS) {
            Ok(list) => (self.tags, self.tags_error) = (Some((Instant::now(), list)), None),
            Err(why) => self.tags_error = Some(why),
        }
    }

    /// Loaded models missing from the list of pulled ones: pulled since, or deleted.
    fn unlisted(&self) -> Vec<String> {
        match (&self.tags, &self.ps) {
            (Some((_, tags)), Some((_, ps))) => models::unlisted(tags, ps),
            _ => Vec::new(),
        }
    }

    fn no_answer(&mut self, why: Trouble) -> OllamaState {
        self.failures += 1;
        if self.failures >= DOWN_AFTER {
            (self.tags, self.ps, self.tags_error) = (None, None, None);
            self.reach = Reach::Down(why);
            return self.state(None);
        }
        self.reach = Reach::Pending;
        self.state(None)
    }

    fn state(&self, list_error: Option<Trouble>) -> OllamaState {
        let (tags, ps) = (recent(&self.tags), recent(&self.ps));
        OllamaState {
            reach: self.reach.clone(),
            lists_known: tags.is_some() && ps.is_some(),
            models: models::join(tags.unwrap_or_default(), ps.unwrap_or_default()),
            list_error,
        }
    }
}

/// The list, while it may still be shown.
fn recent(seen: &Option<(Instant, Vec<Entry>)>) -> Option<&[Entry]> {
    seen.as_ref().filter(|(at, _)| at.elapsed() < LISTS_LAST).map(|(_, list)| list.as_slice())
}
