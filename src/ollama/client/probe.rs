//! Asks a loaded model for a few tokens, or for an embedding. Nothing in the request changes how the model is loaded.

use std::time::{Duration, Instant};

use serde::Serialize;
use ureq::http::Response;
use ureq::{Body, Error, Timeout};

use super::{CONNECT, OllamaClient, SHORTEST, send};
use crate::ollama::errors;
use crate::ollama::probe::answer::{self, Outcome, TOKENS};
use crate::outgoing::{is_unsent, words};

/// Models go on counting.
const PROMPT: &str = "1, 2, 3, 4,";
const MAX_BODY: u64 = 1 << 20;

/// `keep_alive` is left out: the time of the last client continues. An embedding is requested without options: any option
/// would reload the model.
#[derive(Default, Serialize)]
struct ProbeRequest<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Serialize)]
struct Options {
    num_predict: u64,
    temperature: u8,
    seed: u8,
    num_ctx: u64,
}

/// The time of one probe, over all its requests.
struct Timer {
    started: Instant,
    limit: Duration,
    /// The limit before it was scaled, for messages.
    timeout: Duration,
}

impl Timer {
    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed()).max(Duration::from_millis(1))
    }
}

impl OllamaClient {
    /// Asks `model` for a few tokens, or for an embedding if it makes no text. `num_ctx`: the context length it was loaded
    /// with. The deadline of all requests together is `timeout`.
    pub(crate) fn probe(&self, model: &str, num_ctx: u64, timeout: Duration) -> Outcome {
        if let Err(why) = &self.tls {
            return Outcome::Unasked(why.clone());
        }
        let limit = (timeout / self.time_scale).max(SHORTEST);
        let timer = Timer { started: Instant::now(), limit, timeout };
        let options = Some(Options { num_predict: TOKENS, temperature: 0, seed: 1, num_ctx });
        let (prompt, raw, stream) = (Some(PROMPT), Some(true), Some(false));
        let text = ProbeRequest { model, prompt, raw, stream, options, ..ProbeRequest::default() };
        let mut embedding = false;
        let mut answer = self.ask("/api/generate", &text, &timer);
        if answer.as_ref().is_ok_and(|(status, body)| answer::makes_no_text(*status, body)) {
            embedding = true;
            let request = ProbeRequest { model, input: Some(PROMPT), ..ProbeRequest::default() };
            answer = self.ask("/api/embed", &request, &timer);
        }
        let waited = timer.started.elapsed() * self.time_scale;
        match answer {
            Ok((status, body)) => answer::parse(status, &body, waited, embedding),
            Err(outcome) => outcome,
        }
    }

    /// Status and body of Ollama's answer.
    ///
    /// # Errors
    /// What came of the probe instead.
    fn ask(&self, path: &str, request: &ProbeRequest<'_>, timer: &Timer) -> Result<(u16, Vec<u8>), Outcome> {
        let mut reply = self.send_probe(path, request, timer)?;
        if reply.status() == 401 && self.credentials.renew() {
            reply = self.send_probe(path, request, timer)?;
        }
        let status = reply.status().as_u16();
        let body = if status == 200 {
            let body = reply.body_mut().with_config().limit(MAX_BODY).read_to_vec();
            body.map_err(|why| Outcome::Failed(unfinished(&why, timer)))?
        } else {
            self.error_body(&mut reply)
        };
        if self.proxy_timed_out(status, timer.started.elapsed()) {
            return Err(Outcome::Silent);
        }
        let refused = self.not_ollama(&reply, &String::from_utf8_lossy(&body), path);
        refused.map_or(Ok((status, body)), |why| Err(Outcome::Unasked(why)))
    }

    fn send_probe(&self, path: &str, request: &ProbeRequest<'_>, timer: &Timer) -> Result<Response<Body>, Outcome> {
        let left = timer.left();
        // Once the steps before it have their own limits, only a missing answer can use up the whole time.
        let step = left / 4;
        let config = self.post(&self.agent, path).config().timeout_global(Some(left));
        let config = config.timeout_resolve(Some(step)).timeout_connect(Some(step.min(CONNECT)));
        let config = config.timeout_send_request(Some(step)).timeout_send_body(Some(step));
        // The peer may close a kept connection while the request is on its way: that would look like a failure.
        send(config.max_idle_age(Duration::ZERO).build(), request).map_err(|why| unanswered(&why))
    }
}

/// What came of a request whose answer did not begin.
fn unanswered(why: &Error) -> Outcome {
    match why {
        Error::Timeout(Timeout::Global | Timeout::RecvResponse) => Outcome::Silent,
        Error::Timeout(_) => Outcome::Unasked(errors::no_answer(why)),
        _ if is_unsent(why) || errors::trouble(why).cure.is_some() => Outcome::Unasked(errors::no_answer(why)),
        _ => Outcome::Failed(format!("the connection ended without an answer: {}", words(why))),
    }
}

/// Why an answer that began did not end.
fn unfinished(why: &Error, timer: &Timer) -> String {
    match why {
        Error::BodyExceedsLimit(_) => format!("its answer is larger than {} MiB", MAX_BODY >> 20),
        Error::Timeout(_) => format!("its answer did not end within {} s", timer.timeout.as_secs()),
        why => format!("its answer was cut: {}", words(why)),
    }
}
