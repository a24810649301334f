//! What a runner computes for a request, how long that takes, and what the answer says of it.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::client::Client;
use super::model::{Kind, Model};
use super::request::{Asked, Path};
use super::runner::Process;
use super::take::Taken;
use super::{End, Scheduler, Served, error};
use crate::dates::exact;
use crate::fake_ollama::Answer;
use crate::harness::lock;

/// No sleep is longer: a client may hang up.
const SLICE: Duration = Duration::from_millis(10);
/// What is in the total alone although nothing waited.
const OVERHEAD: Duration = Duration::from_millis(3);
/// The time of an answer of one token, whatever it took.
const ONE_TOKEN: Duration = Duration::from_nanos(1000);
/// More repetitions of one token end an answer.
const REPETITIONS: u64 = 30;
/// A request that joins others waits for this part of the token that is being computed: 0.2 s where one took 0.34 s.
const UNDER_WAY: f64 = 0.6;
/// How much longer the CPU takes.
const CPU_FACTOR: u32 = 10;
const BUSY: &str = "server busy, please try again.  maximum pending requests exceeded";
const DIED: &str = "an error was encountered while running the model: unexpected EOF";

/// Why nothing more is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Gone,
    Died,
}

/// A runner at work for one request.
struct Work<'a> {
    scheduler: &'a Scheduler,
    id: u64,
    client: &'a Client<'a>,
    /// When the last piece was due.
    due: Instant,
    load: Duration,
    queue: Duration,
}

impl Scheduler {
    /// None: a stream that has been sent.
    pub(super) fn serve(&self, asked: &Asked, model: &Model, client: &Client<'_>) -> Option<Answer> {
        let embeds = matches!(model.kind, Kind::Embedding { .. });
        if embeds && asked.path != Path::Embed {
            let what = if asked.path == Path::Chat { "chat" } else { "generate" };
            return Some(error(400, &format!("\"{}\" does not support {what}", asked.model)));
        }
        if asked.prompt.is_empty() && asked.path != Path::Embed && asked.keep_alive == Some(Duration::ZERO) {
            self.unload(model);
            return Some(self.without_prompt(asked, "unload"));
        }
        let (id, load) = match self.take(model, asked, client) {
            Taken::Runner { id, load } => (id, load),
            Taken::Refused => return Some(error(503, BUSY)),
            Taken::Gone => return Some(Answer::HangUp),
        };
        let mut work = Work { scheduler: self, id, client, due: Instant::now(), load, queue: Duration::ZERO };
        let done = if asked.prompt.is_empty() {
            work.is_alive().map(|()| Some(self.without_prompt(asked, "load")))
        } else if asked.path == Path::Embed && !embeds {
            Ok(Some(error(501, "This server does not support embeddings. Start it with `--embeddings`")))
        } else {
            work.in_a_slot(|work| if embeds { work.embed(asked, model) } else { work.generate(asked, model) })
        };
        let end = match &done {
            Ok(Some(Answer::Status(..))) | Err(Broken::Died) => End::Failed,
            Ok(_) => End::Done,
            Err(Broken::Gone) => End::Gone,
        };
        let mut runners = lock(&self.runners);
        runners.served.push(Served {
            model: model.name.clone(),
            prompt: !asked.prompt.is_empty(),
            raw: asked.raw,
            num_ctx: asked.num_ctx,
            keep_alive: asked.keep_alive,
            load,
            queue: work.queue,
            end,
        });
        runners.give_back(id);
        drop(runners);
        self.changed.notify_all();
        match done {
            Ok(answer) => answer,
            Err(Broken::Died) => Some(error(500, DIED)),
            Err(Broken::Gone) => Some(Answer::HangUp),
        }
    }

    fn unload(&self, model: &Model) {
        let mut runners = lock(&self.runners);
        let ids: Vec<u64> = runners
            .of(&model.name)
            .map(|runner| {
                runner.expires_at = Some(SystemTime::now());
                runner.id
            })
            .collect();
        for id in ids {
            runners.unload(id);
        }
        drop(runners);
        self.changed.notify_all();
    }

    /// It neither waits for the runner nor measures.
    fn without_prompt(&self, asked: &Asked, reason: &str) -> Answer {
        Answer::Json(match asked.path {
            Path::Embed => json!({"model": asked.model, "embeddings": []}).to_string(),
            _ => merged(line(asked, "", true), &json!({"done_reason": reason})).to_string(),
        })
    }
}

impl Work<'_> {
    /// A mute runner never gets here with an answer.
    fn is_alive(&mut self) -> Result<(), Broken> {
        while lock(&self.scheduler.runners).get(self.id).is_some_and(|runner| runner.process == Process::Mute) {
            if self.client.is_gone() {
                return Err(Broken::Gone);
            }
            thread::sleep(SLICE);
        }
        Ok(())
    }

    /// In its turn, as soon as one of the runner's slots is free.
    fn in_a_slot<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Broken>) -> Result<T, Broken> {
        let scheduler = self.scheduler;
        self.queue = self.wait_for_slot()?;
        self.due = Instant::now();
        let done = work(self);
        if let Some(runner) = lock(&scheduler.runners).get(self.id) {
            runner.computing -= 1;
        }
        scheduler.changed.notify_all();
        done
    }

    /// How long it waited.
    fn wait_for_slot(&self) -> Result<Duration, Broken> {
        let (scheduler, started) = (self.scheduler, Instant::now());
        let mut runners = lock(&scheduler.runners);
        let ticket = runners.next_id();
        if let Some(runner) = runners.get(self.id) {
            runner.waiting.push_back(ticket);
        }
        let mut waited = false;
        let (others, write) = loop {
            let Some(runner) = runners.get(self.id) else { return Err(Broken::Died) };
            let free = runner.computing < scheduler.parallel && runner.waiting.front() == Some(&ticket);
            let broken = match runner.process {
                Process::Killed => Some(Broken::Died),
                _ if free => None,
                _ if self.client.is_gone() => Some(Broken::Gone),
                _ => {
                    waited = true;
                    runners = scheduler.wait(runners);
                    continue;
                }
            };
            runner.waiting.retain(|waiting| *waiting != ticket);
            if let Some(broken) = broken {
                return Err(broken);
            }
            runner.computing += 1;
            break (runner.computing > 1, runner.model.write);
        };
        drop(runners);
        scheduler.changed.notify_all();
        let beside = if others { write.mul_f64(UNDER_WAY) } else { Duration::ZERO };
        thread::sleep(beside / scheduler.scale);
        Ok(beside + if waited { started.elapsed() * scheduler.scale } else { Duration::ZERO })
    }

    /// Computes for as long as this would take alone on a GPU: how long it took.
    fn compute(&mut self, time: Duration) -> Result<Duration, Broken> {
        let scheduler = self.scheduler;
        let (mut left, mut took) = (time, Duration::ZERO);
        loop {
            let (process, factor) = match lock(&scheduler.runners).get(self.id) {
                Some(runner) => {
                    let factor = u32::try_from(runner.computing).unwrap() * if runner.on_cpu { CPU_FACTOR } else { 1 };
                    (runner.process, factor)
                }
                None => (Process::Killed, 1),
            };
            if process == Process::Killed {
                return Err(Broken::Died);
            } else if self.client.is_gone() {
                return Err(Broken::Gone);
            } else if process != Process::Runs {
                thread::sleep(SLICE);
                self.due = Instant::now();
                continue;
            } else if left.is_zero() {
                return Ok(took);
            }
            let piece = left.min(SLICE * scheduler.scale / factor);
            left -= piece;
            took += piece * factor;
            self.due += piece * factor / scheduler.scale;
            thread::sleep(self.due.saturating_duration_since(Instant::now()));
        }
    }

    fn generate(&mut self, asked: &Asked, model: &Model) -> Result<Option<Answer>, Broken> {
        let prompt_tokens = asked.prompt_tokens();
        let prompt = self.compute(model.read * u32::try_from(prompt_tokens).unwrap())?;
        let most = model.answer_tokens.unwrap_or(u64::MAX).min(asked.num_predict);
        let breaks_off = model.repeats && most > REPETITIONS;
        let tokens = if breaks_off { REPETITIONS } else { most };
        let Some(eval) = self.write(asked, model, tokens)? else { return Ok(None) };
        let text = if asked.stream { String::new() } else { "a".repeat(usize::try_from(tokens).unwrap()) };
        let mut end = line(asked, &text, !breaks_off);
        if !breaks_off {
            let total = self.load + self.queue + prompt + eval + self.scheduler.about(OVERHEAD, 50);
            let reason = if most < asked.num_predict { "stop" } else { "length" };
            let statistics = json!({
                "done_reason": reason, "total_duration": nanos(total), "load_duration": nanos(self.load),
                "prompt_eval_count": prompt_tokens, "prompt_eval_duration": nanos(prompt),
                "eval_count": tokens, "eval_duration": nanos(eval),
            });
            end = merged(end, &statistics);
            if asked.path == Path::Generate && !asked.raw {
                end["context"] = json!([259, 260]);
            }
        }
        if asked.logprobs {
            let one = json!({"token": "a", "logprob": -0.5, "bytes": [97]});
            end["logprobs"] = vec![one; usize::try_from(tokens).unwrap()].into();
        }
        let untrue = lock(&self.scheduler.untrue).clone();
        if !asked.stream {
            return Ok(Some(Answer::Json(untrue.unwrap_or_else(|| end.to_string()))));
        }
        match untrue {
            Some(untrue) => self.client.line(&serde_json::from_str(&untrue).unwrap_or_default()),
            None if breaks_off => {}
            None => self.client.line(&end),
        }
        self.client.end();
        Ok(None)
    }

    /// The tokens of an answer, each on its way at once in a stream: how long they took. None: the runner died under the
    /// stream, which has ended.
    fn write(&mut self, asked: &Asked, model: &Model, tokens: u64) -> Result<Option<Duration>, Broken> {
        let write = self.scheduler.about(model.write, model.noise);
        let mut eval = ONE_TOKEN;
        for token in 0..tokens {
            // The first token is part of the prompt's time.
            match self.compute(if token == 0 { Duration::ZERO } else { write }) {
                Ok(took) => eval += took,
                Err(Broken::Died) if asked.stream && token > 0 => {
                    self.client.line(&json!({"error": DIED}));
                    self.client.end();
                    return Ok(None);
                }
                Err(broken) => return Err(broken),
            }
            if asked.stream {
                if token == 0 {
                    self.client.begin();
                }
                self.client.line(&line(asked, "a", false));
            }
        }
        if asked.stream && tokens == 0 {
            self.client.begin();
        }
        Ok(Some(eval))
    }

    fn embed(&mut self, asked: &Asked, model: &Model) -> Result<Option<Answer>, Broken> {
        let tokens = asked.prompt_tokens();
        let took = self.compute(model.read * u32::try_from(tokens).unwrap())?;
        if let Some(untrue) = lock(&self.scheduler.untrue).clone() {
            return Ok(Some(Answer::Json(untrue)));
        }
        let total = self.load + self.queue + took + self.scheduler.about(OVERHEAD, 50);
        let body = json!({
            "model": asked.model, "embeddings": [[-0.018, -0.053, -0.094, 0.158]],
            "total_duration": nanos(total), "load_duration": nanos(self.load), "prompt_eval_count": tokens,
        });
        Ok(Some(Answer::Json(body.to_string())))
    }
}

/// A line of an answer.
fn line(asked: &Asked, text: &str, done: bool) -> Value {
    let mut line = json!({"model": asked.model, "created_at": exact(SystemTime::now()), "done": done});
    match asked.path {
        Path::Chat => line["message"] = json!({"role": "assistant", "content": text}),
        _ => line["response"] = text.into(),
    }
    line
}

fn merged(mut one: Value, more: &Value) -> Value {
    if let (Some(one), Some(more)) = (one.as_object_mut(), more.as_object()) {
        one.extend(more.clone());
    }
    one
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}
