//! Requests to Ollama: short ones with a deadline, and pulls and loads, which may take hours.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use ureq::http::Response;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use crate::names::Names;
use crate::pure::keeper::LoadError;
use crate::pure::models::{self, Entry, Standing};
use crate::pure::pull::{self, Pull, PullError};
use crate::pure::url::HttpUrl;

/// One route, its deadline and the largest body that is read of it.
pub(super) struct Ask {
    path: &'static str,
    deadline: Duration,
    max_body: u64,
}

pub(super) const VERSION: Ask = Ask { path: "/api/version", deadline: Duration::from_secs(3), max_body: MAX_SMALL };
/// Half a KiB a model: thousands of models fit.
pub(super) const TAGS: Ask = Ask { path: "/api/tags", deadline: Duration::from_secs(10), max_body: 8 << 20 };
/// Blocks up to 10 s behind a runner that hangs, up to 5 s behind one that is unloaded (0.32.4 and later).
pub(super) const PS: Ask = Ask { path: "/api/ps", deadline: Duration::from_secs(15), max_body: 1 << 20 };

/// Largest version, answer to a load, and line of a pull.
const MAX_SMALL: u64 = 64 << 10;
const CONNECT: Duration = Duration::from_secs(2);
/// Not a byte comes before a model is loaded; from a slow disk or network that takes long. Ollama itself gives up when
/// five minutes pass without progress.
const LOAD: Duration = Duration::from_secs(3600);
/// A pull says nothing while it verifies 40 GB or more.
const PULL_SILENCE: Duration = Duration::from_secs(600);
/// The start of its answer comes before any access to the registry.
const PULL_HEAD: Duration = Duration::from_secs(60);
/// While a pull or a load is under way Ollama is asked for its version so often, and given up after so many failures in
/// a row: a connection does not notice that its peer was moved to another network.
const WATCH: Duration = Duration::from_secs(5);
const GIVE_UP: u32 = 4;

/// An answer of 200.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    clock: Option<i64>,
}

/// Both lists of models as they are now.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) standing: Standing,
    /// Unix seconds by Ollama's clock; None: it did not say.
    pub(crate) clock: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: HttpUrl,
    watch: Duration,
}

impl Client {
    /// `hurry`: pulls and loads are watched so many times more often.
    pub(crate) fn new(base: HttpUrl, hurry: u32) -> Self {
        Self { agent: agent(), base, watch: WATCH / hurry }
    }

    /// The entries of a list.
    ///
    /// # Errors
    /// The route, and why there is none.
    pub(super) fn list(&self, ask: &Ask) -> Result<Vec<Entry>, String> {
        self.dated_list(ask).map(|(list, _)| list)
    }

    fn dated_list(&self, ask: &Ask) -> Result<(Vec<Entry>, Option<i64>), String> {
        let list = self.get(ask).and_then(|answer| Ok((models::parse_list(&answer.body)?, answer.clock)));
        list.map_err(|why| format!("{}: {why}", ask.path))
    }

    /// The answer of 200 within the route's deadline.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn get(&self, ask: &Ask) -> Result<Answer, String> {
        let request = self.agent.get(self.base.join(ask.path)).config().timeout_global(Some(ask.deadline)).build();
        let mut reply = request.call().map_err(|why| why.to_string())?;
        let status = reply.status().as_u16();
        if status != 200 {
            return Err(format!("it answered {status}"));
        }
        let clock = clock(&reply);
        let body = reply.body_mut().with_config().limit(ask.max_body).read_to_vec().map_err(|why| why.to_string())?;
        Ok(Answer { body, clock })
    }

    /// How a model stands now.
    ///
    /// # Errors
    /// Why nobody can tell.
    pub(crate) fn look(&self, model: &str) -> Result<Look, String> {
        let tags = self.list(&TAGS)?;
        let (ps, clock) = self.dated_list(&PS)?;
        Ok(Look { standing: models::standing(&models::join(&tags, &ps), model), clock })
    }

    /// Loads a model, or keeps it loaded from now on for `keep_alive`.
    ///
    /// # Errors
    /// Why it is not loaded.
    pub(crate) fn load(&self, model: &str, keep_alive: &Value) -> Result<(), LoadError> {
        let given_up = |why| LoadError { why, damaged: false };
        self.watched(given_up, |agent| {
            let generate = self.load_by(agent, "/api/generate", model, keep_alive);
            match generate {
                // A model for embeddings only, or one whose weights are missing on disk.
                Err(LoadFailure { status: Some(400), why }) => self
                    .load_by(agent, "/api/embed", model, keep_alive)
                    .map_err(|other| LoadError { why, damaged: other.status == Some(400) }),
                // Versions before 0.12 say that a model is not found when they list it and its weights are missing.
                Err(LoadFailure { status, why }) => Err(LoadError { why, damaged: status == Some(404) }),
                Ok(()) => Ok(()),
            }
        })
    }

    fn load_by(&self, agent: &Agent, path: &str, model: &str, keep_alive: &Value) -> Result<(), LoadFailure> {
        #[derive(Serialize)]
        struct Load<'a> {
            model: &'a str,
            keep_alive: &'a Value,
            stream: bool,
        }
        let failure = |why: ureq::Error| LoadFailure { status: None, why: why.to_string() };
        let body = Load { model, keep_alive, stream: false };
        let request = agent.post(self.base.join(path)).config().timeout_global(Some(LOAD)).build();
        let mut reply = send(request, &body).map_err(failure)?;
        let status = reply.status().as_u16();
        let text = small_body(&mut reply).map_err(failure)?;
        match (status, error_of(&text)) {
            (200, None) => Ok(()),
            (_, error) => {
                let why = format!("it answered {status}: {}", pull::shorten(&error.unwrap_or(text)));
                Err(LoadFailure { status: Some(status), why })
            }
        }
    }

    /// Pulls a model; `see` is given each line as it comes.
    ///
    /// # Errors
    /// Why it did not come to its end.
    pub(crate) fn pull(&self, model: &str, mut see: impl FnMut(&mut Pull, &[u8])) -> Result<(), PullError> {
        #[derive(Serialize)]
        struct Body<'a> {
            model: &'a str,
            stream: bool,
        }
        let cut = |why: &dyn std::fmt::Display| PullError::cut(why.to_string());
        self.watched(PullError::cut, |agent| {
            let request = agent.post(self.base.join("/api/pull")).config();
            let request = request.timeout_recv_response(Some(PULL_HEAD)).timeout_per_read(Some(PULL_SILENCE)).build();
            let mut reply = send(request, &Body { model, stream: true }).map_err(|why| cut(&why))?;
            let status = reply.status().as_u16();
            if status != 200 {
                let text = small_body(&mut reply).map_err(|why| cut(&why))?;
                let error = pull::explain(&error_of(&text).unwrap_or(text));
                return Err(PullError { why: format!("it answered {status}: {}", error.why), ..error });
            }
            let mut lines = BufReader::new(reply.body_mut().as_reader());
            let (mut pull, mut line) = (Pull::default(), Vec::new());
            loop {
                line.clear();
                match lines.by_ref().take(MAX_SMALL).read_until(b'\n', &mut line) {
                    Ok(0) => return pull.finish(),
                    Ok(_) => see(&mut pull, &line),
                    Err(why) => return Err(cut(&why)),
                }
                if pull.has_error() {
                    return pull.finish();
                }
            }
        })
    }

    /// Runs a request that may take hours, and ends it when Ollama does not answer anything else any more. `given_up`
    /// makes the error of that.
    fn watched<T, E>(
        &self,
        given_up: impl FnOnce(String) -> E,
        work: impl FnOnce(&Agent) -> Result<T, E>,
    ) -> Result<T, E> {
        let agent = agent();
        thread::scope(|scope| {
            // Whatever ends the work drops it, and with that ends the watch.
            let (working, done) = mpsc::channel::<()>();
            let long = agent.clone();
            // Without the thread nobody watches: its own deadlines are left.
            let watch = thread::Builder::new().name("watch".into());
            let watch = watch.spawn_scoped(scope, move || self.watch(long, &done)).ok();
            let result = work(&agent);
            drop(working);
            let gave_up = watch.and_then(|watch| watch.join().ok()).unwrap_or(false);
            let why = || "Ollama answered nothing any more, not even its version".to_owned();
            result.map_err(|error| if gave_up { given_up(why()) } else { error })
        })
    }

    /// Whether it gave up.
    fn watch(&self, long: Agent, done: &Receiver<()>) -> bool {
        let mut failures = 0;
        while failures < GIVE_UP {
            if done.recv_timeout(self.watch) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
            failures = if self.get(&VERSION).is_ok() { 0 } else { failures + 1 };
        }
        long.shutdown();
        true
    }
}

struct LoadFailure {
    /// None: there was no answer.
    status: Option<u16>,
    why: String,
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_resolve(Some(Duration::from_secs(5)))
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(Duration::from_secs(10)))
        .timeout_send_body(Some(Duration::from_secs(10)))
        .build();
    Agent::with_parts(config, DefaultConnector::new(), Names::default())
}

fn send<T: Serialize>(
    request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    body: &T,
) -> Result<Response<Body>, ureq::Error> {
    let body = serde_json::to_vec(body).map_err(|why| ureq::Error::Io(why.into()))?;
    request.content_type("application/json").send(&body[..])
}

fn small_body(reply: &mut Response<Body>) -> Result<String, ureq::Error> {
    let body = reply.body_mut().with_config().limit(MAX_SMALL).read_to_vec()?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What Ollama says in `{"error":"…"}`.
fn error_of(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Said {
        error: String,
    }
    serde_json::from_str(text).ok().map(|said: Said| said.error)
}

fn clock(reply: &Response<Body>) -> Option<i64> {
    let date = reply.headers().get("date")?.to_str().ok()?;
    let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
