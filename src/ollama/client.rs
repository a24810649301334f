//! Requests to Ollama: short ones with a deadline; pulls and loads, which may take hours.

mod load;
mod probe;

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::errors;
use super::models::{self, Entry, Model, ModelStatus};
use super::pull::{self, Pull, PullError};
use crate::config::OllamaConfig;
use crate::config::url::HttpUrl;
use crate::outgoing::refusal::{Trouble, error_of};
use crate::outgoing::{self, Credentials};
use crate::sys::json::json;
use crate::sys::limits::unix_seconds;
use crate::sys::single_flight::SingleFlight;
use crate::sys::text;

/// A route, its deadline and the largest body that is read.
pub(super) struct Route {
    path: &'static str,
    deadline: Duration,
    max_body: u64,
}

pub(super) const VERSION: Route = Route { path: "/api/version", deadline: Duration::from_secs(3), max_body: MAX_SMALL };
/// Half a KiB per model: 4,000 models fit, and what is made of them into 64 MiB.
pub(super) const TAGS: Route = Route { path: "/api/tags", deadline: Duration::from_secs(10), max_body: 2 << 20 };
/// Blocks up to 19.6 s behind a hung runner, up to 5 s behind an unload (0.32.4 and later).
pub(super) const PS: Route = Route { path: "/api/ps", deadline: Duration::from_secs(25), max_body: 1 << 20 };

const IDENTITY: &str = "identity";
/// Enough of an answer to tell a web page from JSON.
const START: usize = 4 << 10;
/// The largest version, answer to a load, or line of a pull.
const MAX_SMALL: u64 = 64 << 10;
/// A proxy that times out sooner did not reach Ollama; one that waited this long has forwarded the request. nginx waits
/// 60 s, Cloudflare 100 s.
const PROXY_WAITS: Duration = Duration::from_secs(25);
/// The least deadline of a request to a model, however fast a test wants it.
const SHORTEST: Duration = Duration::from_secs(1);
/// Bytes of a kept connection, one for each model; ureq's own are 256 KiB. The head of an answer must fit in the first, that
/// of a request, with a login of up to 6 KiB, in the second.
const READ_BUFFER: usize = 32 << 10;
const WRITE_BUFFER: usize = 16 << 10;
const CONNECT: Duration = Duration::from_secs(2);
/// A pull is silent while it verifies 40 GB or more.
const PULL_SILENCE: Duration = Duration::from_secs(600);
/// Ollama sends the head of its answer before it contacts the registry.
const PULL_HEAD: Duration = Duration::from_secs(60);
/// How often Ollama is asked for its version during a pull or a load, and after how many failures in a row that request is
/// aborted: a connection does not notice that its peer has moved to another network.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
const WATCH_FAILURES: u32 = 4;

/// An answer with status 200.
pub(super) struct OllamaAnswer {
    pub(super) body: Vec<u8>,
    clock: Option<i64>,
}

/// The models that Ollama lists now.
#[derive(Debug)]
pub(crate) struct ModelLists {
    pub(crate) models: Vec<Model>,
    /// Unix seconds by Ollama's clock; None: not sent.
    clock: Option<i64>,
}

impl ModelLists {
    /// The state of one model.
    pub(crate) fn status_of(&self, model: &str) -> ModelStatus {
        models::status_of(&self.models, model)
    }

    /// Unix seconds by Ollama's clock; by our own where it sent none.
    pub(crate) fn now(&self) -> i64 {
        self.clock.unwrap_or_else(unix_seconds)
    }
}

#[derive(Debug)]
pub(crate) struct OllamaClient {
    agent: Agent,
    base: HttpUrl,
    credentials: Credentials,
    /// From OLLAMA_TLS, or why that is invalid.
    tls: Result<TlsConfig, String>,
    time_scale: u32,
    lists: SingleFlight<Result<Arc<ModelLists>, String>>,
}

impl OllamaClient {
    /// `time_scale`: intervals and deadlines of pulls and loads are divided by it.
    pub(crate) fn new(config: &OllamaConfig, time_scale: u32) -> Self {
        let tls = outgoing::tls(&config.tls).map_err(|why| format!("OLLAMA_TLS: {why}"));
        let (agent, credentials) = (agent(tls.as_ref().ok()), Credentials::new(config));
        Self { agent, base: config.url.clone(), credentials, tls, time_scale, lists: SingleFlight::default() }
    }

    /// A POST with the login, sent once.
    fn post(&self, agent: &Agent, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let request = agent.post(self.base.join(path)).header("Accept-Encoding", IDENTITY);
        match self.credentials.header() {
            Some(login) => request.header("Authorization", login),
            None => request,
        }
    }

    /// What is wrong with an answer to `path`; None: it looks like Ollama's own.
    fn refusal(&self, reply: &Response<Body>, text: &str, path: &str) -> Option<Trouble> {
        errors::refusal(reply, text, &self.base, path, self.credentials.kind())
    }

    /// An error without the login that was sent.
    fn said(&self, error: &str) -> String {
        let login = self.credentials.header();
        text::without(error, login.as_deref().and_then(|login| Some(login.split_once(' ')?.1)))
    }

    /// What could be read of an error.
    fn error_body(&self, reply: &mut Response<Body>) -> Vec<u8> {
        self.said(&String::from_utf8_lossy(&start_of_body(reply))).into_bytes()
    }

    /// The same for routes that Ollama itself answers with JSON errors.
    fn not_ollama(&self, reply: &Response<Body>, text: &str, path: &str) -> Option<String> {
        let known = self.refusal(reply, text, path).filter(|trouble| trouble.cure.is_some());
        known.filter(|_| error_of(text).is_none()).map(|trouble| trouble.to_string())
    }

    /// A proxy forwarded the request, and Ollama did not answer it in time.
    fn proxy_timed_out(&self, status: u16, waited: Duration) -> bool {
        matches!(status, 504 | 524) && waited >= PROXY_WAITS / self.time_scale
    }

    /// The entries of a list.
    ///
    /// # Errors
    /// The route, and why its list could not be read.
    pub(super) fn list(&self, route: &Route) -> Result<Vec<Entry>, Trouble> {
        self.dated_list(route).map(|(list, _)| list)
    }

    fn dated_list(&self, route: &Route) -> Result<(Vec<Entry>, Option<i64>), Trouble> {
        let list = self.get(route).and_then(|answer| Ok((models::parse_list(&answer.body)?, answer.clock)));
        list.map_err(|trouble| Trouble { why: format!("{}: {}", route.path, trouble.why), ..trouble })
    }

    /// The answer of 200 within the route's deadline.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn get(&self, route: &Route) -> Result<OllamaAnswer, Trouble> {
        self.answered(route)?.1
    }

    /// The status of the answer, and its body or why that is unusable.
    fn answered(&self, route: &Route) -> Result<(u16, Result<OllamaAnswer, Trouble>), Trouble> {
        if let Err(why) = &self.tls {
            return Err(Trouble::new(why.clone(), "Fix OLLAMA_TLS."));
        }
        let mut reply = self.send_get(route)?;
        if reply.status() == 401 && self.credentials.renew() {
            reply = self.send_get(route)?;
        }
        let clock = clock(&reply);
        let body = if reply.status() == 200 {
            let body = reply.body_mut().with_config().limit(route.max_body).read_to_vec();
            body.map_err(|why| errors::trouble(&why))?
        } else {
            self.error_body(&mut reply)
        };
        let start = String::from_utf8_lossy(&body[..body.len().min(START)]);
        let refusal = self.refusal(&reply, &start, route.path);
        Ok((reply.status().as_u16(), refusal.map_or(Ok(OllamaAnswer { body, clock }), Err)))
    }

    fn send_get(&self, route: &Route) -> Result<Response<Body>, Trouble> {
        let login = self.credentials.header();
        let mut headers = vec![("Accept-Encoding", IDENTITY)];
        headers.extend(login.as_deref().map(|login| ("Authorization", login)));
        let url = self.base.join(route.path);
        outgoing::get(&self.agent, &url, &headers, route.deadline).map_err(|why| errors::trouble(&why))
    }

    /// The models that Ollama lists now, read once for all threads that ask at the same time.
    ///
    /// # Errors
    /// Why they are unknown.
    pub(crate) fn lists(&self) -> Result<Arc<ModelLists>, String> {
        self.lists.call(|| {
            let said = |trouble: Trouble| trouble.to_string();
            let tags = self.list(&TAGS).map_err(said)?;
            let (ps, clock) = self.dated_list(&PS).map_err(said)?;
            Ok(Arc::new(ModelLists { models: models::join(&tags, &ps), clock }))
        })
    }

    /// Pulls a model; `see` gets each line as it arrives.
    ///
    /// # Errors
    /// Why the pull did not finish.
    pub(crate) fn pull(&self, model: &str, mut see: impl FnMut(&mut Pull, &[u8])) -> Result<(), PullError> {
        #[derive(Serialize)]
        struct Body<'a> {
            model: &'a str,
            stream: bool,
        }
        let failed = |why: &ureq::Error| PullError::no_answer(errors::no_answer(why));
        self.watched(PullError::no_answer, |agent| {
            let request = self.post(agent, "/api/pull").config();
            let request = request.timeout_recv_response(Some(PULL_HEAD)).timeout_per_read(Some(PULL_SILENCE)).build();
            let mut reply = send(request, &Body { model, stream: true }).map_err(|why| failed(&why))?;
            let status = reply.status().as_u16();
            if status != 200 {
                let text = self.said(&small_body(&mut reply).map_err(|why| failed(&why))?);
                // The registry's errors come after a 200; Ollama's own are a 400 or a 500.
                if let Some(trouble) = self.refusal(&reply, &text, "/api/pull").filter(|known| known.cure.is_some()) {
                    return Err(PullError::other(trouble.to_string()));
                }
                let error = pull::explain(&error_of(&text).unwrap_or(text));
                return Err(PullError { why: format!("Ollama answered {status}: {}", error.why), ..error });
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
                    Err(why) => return Err(PullError::other(text::io_words(&why))),
                }
                if pull.has_error() {
                    return pull.finish();
                }
            }
        })
    }

    /// Runs a request that may take hours; aborts it when Ollama answers nothing else any more. `aborted` makes the error
    /// for that.
    fn watched<T, E>(
        &self,
        aborted: impl FnOnce(String) -> E,
        work: impl FnOnce(&Agent) -> Result<T, E>,
    ) -> Result<T, E> {
        let tls = match &self.tls {
            Ok(tls) => Some(tls),
            Err(why) => return Err(aborted(why.clone())),
        };
        let agent = agent(tls);
        thread::scope(|scope| {
            // Its drop ends the watch.
            let (working, done) = mpsc::channel::<()>();
            let long = agent.clone();
            // Without this thread the request still has its own deadlines.
            let watch = thread::Builder::new().name("watch".into());
            let watch = watch.spawn_scoped(scope, move || self.watch(long, &done)).ok();
            let result = work(&agent);
            drop(working);
            let was_aborted = watch.and_then(|watch| watch.join().ok()).unwrap_or(false);
            let why = || "Ollama stopped responding, even to requests for its version".to_owned();
            result.map_err(|error| if was_aborted { aborted(why()) } else { error })
        })
    }

    /// Whether it aborted `long`.
    fn watch(&self, long: Agent, done: &Receiver<()>) -> bool {
        let mut failures = 0;
        while failures < WATCH_FAILURES {
            if done.recv_timeout(WATCH_INTERVAL / self.time_scale) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
            // A proxy that rejects this request, for its login or its rate limit, does not interrupt the other one.
            let alive = |(status, answer): (u16, Result<OllamaAnswer, Trouble>)| {
                answer.is_ok() || matches!(status, 401 | 403 | 407 | 429)
            };
            failures = if self.answered(&VERSION).is_ok_and(alive) { 0 } else { failures + 1 };
        }
        long.shutdown();
        true
    }
}

fn agent(tls: Option<&TlsConfig>) -> Agent {
    let config = outgoing::settings()
        .tls_config(tls.cloned().unwrap_or_default())
        .proxy(None)
        .timeout_resolve(Some(Duration::from_secs(5)))
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(Duration::from_secs(10)))
        .timeout_send_body(Some(Duration::from_secs(10)))
        .input_buffer_size(READ_BUFFER)
        .output_buffer_size(WRITE_BUFFER)
        .build();
    outgoing::agent(config)
}

fn send<T: Serialize>(
    request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    body: &T,
) -> Result<Response<Body>, ureq::Error> {
    request.content_type("application/json").send(json(body).as_bytes())
}

fn small_body(reply: &mut Response<Body>) -> Result<String, ureq::Error> {
    let body = reply.body_mut().with_config().limit(MAX_SMALL).read_to_vec()?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What could be read of an error: its status counts, and a page that is too long or cut is not an empty one.
fn start_of_body(reply: &mut Response<Body>) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = reply.body_mut().as_reader().take(MAX_SMALL).read_to_end(&mut body);
    body
}

fn clock(reply: &Response<Body>) -> Option<i64> {
    let date = reply.headers().get("date")?.to_str().ok()?;
    let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
