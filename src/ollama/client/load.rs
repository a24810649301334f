//! Loads a model, or keeps one loaded, without a prompt.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};
use ureq::Agent;

use super::{OllamaClient, SHORTEST, send, small_body};
use crate::ollama::errors;
use crate::ollama::keeper::request::{LoadError, Loading, Renewal};
use crate::ollama::{pull, runner};
use crate::outgoing::refusal::error_of;

/// The answer begins once the model is loaded, which takes long from a slow disk or network. Ollama itself stops after
/// five minutes without progress.
const LOAD: Duration = Duration::from_secs(3600);
/// A loaded model answers immediately, behind a hung runner after 20 s, at worst after a load. One that takes longer is
/// treated as not loaded.
const RENEWAL: Duration = Duration::from_secs(120);
/// It is answered immediately, whatever the model does.
const UNLOAD: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct LoadRequest<'a> {
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
    /// None: no answer, or one that is not Ollama's.
    status: Option<u16>,
    why: String,
    silent: bool,
    died: bool,
}

impl OllamaClient {
    /// Loads a model, or keeps a loaded one for another `keep_alive`.
    ///
    /// # Errors
    /// Why it is not loaded.
    pub(crate) fn load(&self, model: &str, keep_alive: &Value, renewal: Option<Renewal>) -> Result<Loading, LoadError> {
        let aborted = |why| LoadError { why, damaged: false, silent: false, died: false };
        let keep_alive = Some(keep_alive).filter(|_| renewal.is_none_or(|renewal| renewal.keep_alive));
        let options = |num_ctx| Options { num_ctx };
        let deadline = renewal.map_or(LOAD, |_| (RENEWAL / self.time_scale).max(SHORTEST));
        let mut ask =
            LoadRequest { model, keep_alive, stream: false, options: renewal.and_then(|r| r.num_ctx).map(options) };
        self.watched(aborted, |agent| match self.load_by(agent, "/api/generate", &ask, deadline) {
            // An embedding-only model, which num_ctx would reload, or one whose weights are missing on disk.
            Err(Failure { status: Some(400), why, .. }) => {
                ask.options = None;
                let embed = self.load_by(agent, "/api/embed", &ask, deadline);
                embed.map_err(|other| {
                    let Failure { status, silent, died, .. } = other;
                    LoadError { why, damaged: status == Some(400), silent, died }
                })
            }
            // Versions before 0.12 answer 404 for a listed model whose weights are missing.
            Err(Failure { status, why, silent, died }) => {
                Err(LoadError { why, damaged: status == Some(404), silent, died })
            }
            Ok(loading) => Ok(loading),
        })
    }

    /// Unloads a model; one that is in use ends first. Returns before it is gone.
    ///
    /// # Errors
    /// Why it is still loaded.
    pub(crate) fn unload(&self, model: &str) -> Result<(), String> {
        let now = Value::from(0);
        let ask = LoadRequest { model, keep_alive: Some(&now), stream: false, options: None };
        let unloaded = self.load_by(&self.agent, "/api/generate", &ask, UNLOAD);
        unloaded.map(|_| ()).map_err(|failure| failure.why)
    }

    fn load_by(
        &self,
        agent: &Agent,
        path: &str,
        ask: &LoadRequest<'_>,
        deadline: Duration,
    ) -> Result<Loading, Failure> {
        let failure = |why: ureq::Error| {
            let silent = matches!(why, ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::RecvResponse));
            let why = match silent {
                true => format!("no answer within {} s", deadline.as_secs()),
                false => errors::trouble(&why).to_string(),
            };
            Failure { status: None, why, silent, died: false }
        };
        let started = Instant::now();
        let request = self.post(agent, path).config().timeout_global(Some(deadline)).build();
        let mut reply = send(request, ask).map_err(failure)?;
        let status = reply.status().as_u16();
        let mut text = small_body(&mut reply).map_err(failure)?;
        if status != 200 {
            text = self.said(&text);
        }
        let waited = started.elapsed();
        if self.proxy_timed_out(status, waited) {
            let why = format!(
                "the proxy in front of Ollama timed out after {} s ({status}). Set its timeout longer than a load takes (nginx: proxy_read_timeout)",
                waited.as_secs()
            );
            return Err(Failure { status: None, why, silent: true, died: false });
        }
        if let Some(why) = self.not_ollama(&reply, &text, path) {
            return Err(Failure { status: None, why, silent: false, died: false });
        }
        let said: Option<Map<String, Value>> = serde_json::from_slice(text.as_bytes()).ok();
        match (status, said, error_of(&text)) {
            (200, Some(said), None) => {
                // No known version sends it for an empty prompt.
                let measured = said.get("load_duration").and_then(Value::as_u64).map(Duration::from_nanos);
                Ok(Loading { took: measured.unwrap_or(waited), by_ollama: measured.is_some() })
            }
            (_, _, error) => {
                // Ollama's own errors are JSON: another server's status says nothing about the model's files.
                let died = status == 500 && error.as_deref().is_some_and(runner::died);
                let status = error.is_some().then_some(status);
                let why =
                    format!("Ollama answered {}: {}", reply.status().as_u16(), pull::shortened(&error.unwrap_or(text)));
                Err(Failure { status, why, silent: false, died })
            }
        }
    }
}
