//! Requests to Ollama: short ones with a deadline, and pulls and loads, which may take hours.

mod load;

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::errors;
use super::models::{self, Entry, Model, Standing};
use super::pull::{self, Pull, PullError};
use crate::config::OllamaConfig;
use crate::config::url::HttpUrl;
use crate::outgoing::refusal::Trouble;
use crate::outgoing::{self, Credentials};

/// One route, its deadline and the largest body that is read of it.
pub(super) struct Ask {
    path: &'static str,
    deadline: Duration,
    max_body: u64,
}

pub(super) const VERSION: Ask = Ask { path: "/api/version", deadline: Duration::from_secs(3), max_body: MAX_SMALL };
/// Half a KiB a model: thousands of models fit.
pub(super) const TAGS: Ask = Ask { path: "/api/tags", deadline: Duration::from_secs(10), max_body: 8 << 20 };
/// Blocks up to 19.6 s behind a runner that hangs, up to 5 s behind one that is unloaded (0.32.4 and later).
pub(super) const PS: Ask = Ask { path: "/api/ps", deadline: Duration::from_secs(25), max_body: 1 << 20 };

/// Nothing compressed is understood.
const IDENTITY: &str = "identity";
/// So much of an answer tells a web page from JSON.
const START: usize = 4 << 10;
/// Largest version, answer to a load, and line of a pull.
const MAX_SMALL: u64 = 64 << 10;
const CONNECT: Duration = Duration::from_secs(2);
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
    pub(crate) models: Vec<Model>,
    /// Unix seconds by Ollama's clock; None: it did not say.
    pub(crate) clock: Option<i64>,
}

impl Look {
    /// How a model stands.
    pub(crate) fn standing(&self, model: &str) -> Standing {
        models::standing(&self.models, model)
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: HttpUrl,
    credentials: Credentials,
    /// Of OLLAMA_TLS, or why there is none.
    tls: Result<TlsConfig, String>,
    watch: Duration,
    /// So much faster than in life.
    hurry: u32,
}

impl Client {
    /// `hurry`: pulls and loads are watched so many times more often, and renewals given up so much sooner.
    pub(crate) fn new(config: &OllamaConfig, hurry: u32) -> Self {
        let tls = outgoing::tls(&config.tls).map_err(|why| format!("OLLAMA_TLS: {why}"));
        let (agent, credentials) = (agent(tls.as_ref().ok()), Credentials::new(config));
        Self { agent, base: config.url.clone(), credentials, tls, watch: WATCH / hurry, hurry }
    }

    /// A request that is sent once; what Authorization holds goes with it.
    fn post(&self, agent: &Agent, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let request = agent.post(self.base.join(path)).header("Accept-Encoding", IDENTITY);
        match self.credentials.header() {
            Some(login) => request.header("Authorization", login),
            None => request,
        }
    }

    /// What is wrong with an answer to `path` that is not Ollama's own.
    fn refusal(&self, reply: &Response<Body>, text: &str, path: &str) -> Option<Trouble> {
        errors::refusal(reply, text, &self.base, path, self.credentials.kind())
    }

    /// The same of a request that Ollama itself would refuse with an error in JSON; None: it may be Ollama's own.
    fn not_ollama(&self, reply: &Response<Body>, text: &str, path: &str) -> Option<String> {
        let known = self.refusal(reply, text, path).filter(|trouble| trouble.cure.is_some());
        known.filter(|_| error_of(text).is_none()).map(|trouble| trouble.to_string())
    }

    /// The entries of a list.
    ///
    /// # Errors
    /// The route, and why there is none.
    pub(super) fn list(&self, ask: &Ask) -> Result<Vec<Entry>, Trouble> {
        self.dated_list(ask).map(|(list, _)| list)
    }

    fn dated_list(&self, ask: &Ask) -> Result<(Vec<Entry>, Option<i64>), Trouble> {
        let list = self.get(ask).and_then(|answer| Ok((models::parse_list(&answer.body)?, answer.clock)));
        list.map_err(|trouble| Trouble { why: format!("{}: {}", ask.path, trouble.why), ..trouble })
    }

    /// The answer of 200 within the route's deadline.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn get(&self, ask: &Ask) -> Result<Answer, Trouble> {
        self.answered(ask)?.1
    }

    /// The status of the answer, and what it is good for.
    fn answered(&self, ask: &Ask) -> Result<(u16, Result<Answer, Trouble>), Trouble> {
        if let Err(why) = &self.tls {
            return Err(Trouble::new(why.clone(), "correct OLLAMA_TLS"));
        }
        let mut reply = self.send_get(ask)?;
        if reply.status() == 401 && self.credentials.renew() {
            reply = self.send_get(ask)?;
        }
        let clock = clock(&reply);
        let good = reply.status() == 200;
        let limit = if good { ask.max_body } else { MAX_SMALL };
        let body = match reply.body_mut().with_config().limit(limit).read_to_vec() {
            Err(why) if good => return Err(errors::trouble(&why)),
            // The status says enough.
            body => body.unwrap_or_default(),
        };
        let start = String::from_utf8_lossy(&body[..body.len().min(START)]);
        let refusal = self.refusal(&reply, &start, ask.path);
        Ok((reply.status().as_u16(), refusal.map_or(Ok(Answer { body, clock }), Err)))
    }

    fn send_get(&self, ask: &Ask) -> Result<Response<Body>, Trouble> {
        let login = self.credentials.header();
        let mut headers = vec![("Accept-Encoding", IDENTITY)];
        headers.extend(login.as_deref().map(|login| ("Authorization", login)));
        let url = self.base.join(ask.path);
        outgoing::get(&self.agent, &url, &headers, ask.deadline).map_err(|why| errors::trouble(&why))
    }

    /// How all models stand now.
    ///
    /// # Errors
    /// Why nobody can tell.
    pub(crate) fn look(&self) -> Result<Look, String> {
        let said = |trouble: Trouble| trouble.to_string();
        let tags = self.list(&TAGS).map_err(said)?;
        let (ps, clock) = self.dated_list(&PS).map_err(said)?;
        Ok(Look { models: models::join(&tags, &ps), clock })
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
        let failed = |why: &ureq::Error| PullError::other(errors::trouble(why).to_string());
        self.watched(PullError::other, |agent| {
            let request = self.post(agent, "/api/pull").config();
            let request = request.timeout_recv_response(Some(PULL_HEAD)).timeout_per_read(Some(PULL_SILENCE)).build();
            let mut reply = send(request, &Body { model, stream: true }).map_err(|why| failed(&why))?;
            let status = reply.status().as_u16();
            if status != 200 {
                let text = small_body(&mut reply).map_err(|why| failed(&why))?;
                // What the registry says comes behind a 200, and Ollama's own refusals are a 400 or a 500.
                if let Some(trouble) = self.refusal(&reply, &text, "/api/pull").filter(|known| known.cure.is_some()) {
                    return Err(PullError::other(trouble.to_string()));
                }
                let error = pull::explain(&error_of(&text).unwrap_or(text));
                return Err(PullError { why: format!("it answered {status}: {}", error.why), ..error });
            }
            if let Some(why) = self.not_ollama(&reply, "", "/api/pull") {
                return Err(PullError::other(why));
            }
            let mut lines = BufReader::new(reply.body_mut().as_reader());
            let (mut pull, mut line) = (Pull::default(), Vec::new());
            loop {
                line.clear();
                match lines.by_ref().take(MAX_SMALL).read_until(b'\n', &mut line) {
                    Ok(0) => return pull.finish(),
                    Ok(_) => see(&mut pull, &line),
                    Err(why) => return Err(PullError::other(why.to_string())),
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
        let tls = match &self.tls {
            Ok(tls) => Some(tls),
            Err(why) => return Err(given_up(why.clone())),
        };
        let agent = agent(tls);
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
            // A proxy that refuses the question, for its login or its limit of requests, has cut nothing off.
            let alive = |(status, answer): (u16, Result<Answer, Trouble>)| {
                answer.is_ok() || matches!(status, 401 | 403 | 407 | 429)
            };
            failures = if self.answered(&VERSION).is_ok_and(alive) { 0 } else { failures + 1 };
        }
        long.shutdown();
        true
    }
}

fn agent(tls: Option<&TlsConfig>) -> Agent {
    let config = Agent::config_builder()
        .tls_config(tls.cloned().unwrap_or_default())
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_resolve(Some(Duration::from_secs(5)))
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(Duration::from_secs(10)))
        .timeout_send_body(Some(Duration::from_secs(10)))
        .build();
    outgoing::agent(config)
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
