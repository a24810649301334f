//! Loads a model, or keeps one loaded, without a prompt.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};
use ureq::Agent;

use super::{Client, error_of, send, small_body};
use crate::ollama::errors;
use crate::ollama::keeper::{LoadError, Loading, Renewal};
use crate::ollama::pull;

/// Not a byte comes before a model is loaded; from a slow disk or network that takes long. Ollama itself gives up when
/// five minutes pass without progress.
const LOAD: Duration = Duration::from_secs(3600);
/// A model that is loaded answers at once, behind a runner that hangs after 20 s, and after a load at worst. One that
/// takes longer is loaded again as if it were not.
const RENEWAL: Duration = Duration::from_secs(120);
const SHORTEST: Duration = Duration::from_secs(1);
/// A proxy that gives up sooner did not reach Ollama; one that waited so long has passed the request on, and Ollama did
/// not answer it. nginx waits 60 s, Cloudflare 100 s.
const PROXY_WAITS: Duration = Duration::from_secs(25);

/// What Ollama is asked.
#[derive(Serialize)]
struct Load<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<&'a Value>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Serialize)]
struct Options {
    num_ctx: u64,
}

struct Failure {
    /// None: there was no answer, or it is not Ollama's.
    status: Option<u16>,
    why: String,
    silent: bool,
}

impl Client {
    /// Loads a model, or keeps a loaded one from now on for `keep_alive`.
    ///
    /// # Errors
    /// Why it is not loaded.
    pub(crate) fn load(&self, model: &str, keep_alive: &Value, renewal: Option<Renewal>) -> Result<Loading, LoadError> {
        let given_up = |why| LoadError { why, damaged: false, silent: false };
        let keep_alive = Some(keep_alive).filter(|_| renewal.is_none_or(|renewal| renewal.keep_alive));
        let options = |num_ctx| Options { num_ctx };
        let deadline = renewal.map_or(LOAD, |_| (RENEWAL / self.hurry).max(SHORTEST));
        let mut ask = Load { model, keep_alive, stream: false, options: renewal.and_then(|r| r.num_ctx).map(options) };
        self.watched(given_up, |agent| match self.load_by(agent, "/api/generate", &ask, deadline) {
            // A model for embeddings only, or one whose weights are missing on disk. Its num_ctx would reload the former.
            Err(Failure { status: Some(400), why, .. }) => {
                ask.options = None;
                let embed = self.load_by(agent, "/api/embed", &ask, deadline);
                embed.map_err(|other| LoadError { why, damaged: other.status == Some(400), silent: other.silent })
            }
            // Versions before 0.12 say that a model is not found when they list it and its weights are missing.
            Err(Failure { status, why, silent }) => Err(LoadError { why, damaged: status == Some(404), silent }),
            Ok(loading) => Ok(loading),
        })
    }

    fn load_by(&self, agent: &Agent, path: &str, ask: &Load<'_>, deadline: Duration) -> Result<Loading, Failure> {
        let failure = |why: ureq::Error| {
            let silent = matches!(why, ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::RecvResponse));
            let why = match silent {
                true => format!("no answer within {} s", deadline.as_secs()),
                false => errors::trouble(&why).to_string(),
            };
            Failure { status: None, why, silent }
        };
        let started = Instant::now();
        let request = self.post(agent, path).config().timeout_global(Some(deadline)).build();
        let mut reply = send(request, ask).map_err(failure)?;
        let status = reply.status().as_u16();
        let text = small_body(&mut reply).map_err(failure)?;
        let waited = started.elapsed();
        if matches!(status, 504 | 524) && waited >= PROXY_WAITS / self.hurry {
            let why = format!(
                "no answer within {} s, after which the proxy before Ollama gave up ({status}); have it wait longer than a load takes (nginx: proxy_read_timeout)",
                waited.as_secs()
            );
            return Err(Failure { status: None, why, silent: true });
        }
        if let Some(why) = self.not_ollama(&reply, &text, path) {
            return Err(Failure { status: None, why, silent: false });
        }
        let said: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
        match (status, said, error_of(&text)) {
            (200, Some(said), None) => {
                // An answer to an empty prompt has it in no version known.
                let measured = said.get("load_duration").and_then(Value::as_u64).map(Duration::from_nanos);
                Ok(Loading { took: measured.unwrap_or(waited), by_ollama: measured.is_some() })
            }
            (_, _, error) => {
                // What Ollama refuses, it says in JSON: the status of anybody else tells nothing of the model's files.
                let status = error.is_some().then_some(status);
                let why = format!("it answered {}: {}", reply.status().as_u16(), pull::shorten(&error.unwrap_or(text)));
                Err(Failure { status, why, silent: false })
            }
        }
    }
}
