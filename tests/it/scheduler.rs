//! An Ollama whose models are really loaded, kept, reloaded and unloaded: what a request finds depends on what others
//! asked for before. Compared with the recordings of 0.33.0-rc2 (no GPU): another num_ctx or num_thread reloads, the
//! same one answers in a few milliseconds (003, 014, 062); an empty prompt is answered without durations and without
//! waiting for the runner (062, 063); keep_alive left out goes on with the model's own time (004), given it replaces
//! that (006), and a reload begins with five minutes; `expires_at` stands still while a request is served (032);
//! /api/ps lists neither what is being loaded nor what was unloaded for it (025); embeddings take no num_ctx (013, 014).

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fake_ollama::Answer;
use crate::harness::lock;
use crate::model_store::rfc3339;

/// Ollama's default.
const DEFAULT_CTX: u64 = 4096;
const DEFAULT_TIME: Duration = Duration::from_secs(300);
const FOREVER: Duration = Duration::from_secs(292 * 365 * 86_400);
const SAME_RUNNER: Duration = Duration::from_millis(2);

/// A request that was served.
#[derive(Debug, Clone)]
pub struct Served {
    pub model: String,
    /// With a prompt: a client's.
    pub prompt: bool,
    pub num_ctx: Option<u64>,
    pub load: Duration,
}

/// What makes a runner another one.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    num_ctx: u64,
    num_thread: u64,
}

#[derive(Debug)]
struct Runner {
    model: String,
    options: Options,
    stored: Duration,
    expires_at: SystemTime,
    busy: usize,
    hangs: bool,
}

#[derive(Debug, Default)]
struct Runners {
    loaded: Vec<Runner>,
    loading: bool,
    served: Vec<Served>,
}

/// The scheduler of one Ollama.
#[derive(Debug)]
pub struct Scheduler {
    /// OLLAMA_MAX_LOADED_MODELS.
    pub most_loaded: AtomicUsize,
    pub load_time: Duration,
    /// Whether /api/ps lists the context: not before mid-2025.
    pub reports_context: bool,
    runners: Mutex<Runners>,
    changed: Condvar,
}

impl Scheduler {
    pub fn new(most_loaded: usize, load_time: Duration) -> Self {
        let (runners, changed) = (Mutex::default(), Condvar::new());
        Self { most_loaded: most_loaded.into(), load_time, reports_context: true, runners, changed }
    }

    /// What was served so far.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.runners).served.clone()
    }

    /// From now on all runners answer nothing, and their time has been up for long; or Ollama was started again.
    pub fn hang(&self, hang: bool) {
        let mut runners = lock(&self.runners);
        for runner in &mut runners.loaded {
            runner.hangs = hang;
            runner.expires_at = SystemTime::now() - Duration::from_secs(600);
        }
    }

    /// /api/ps.
    pub fn ps(&self) -> Answer {
        let mut runners = lock(&self.runners);
        runners.expire();
        let entry = |runner: &Runner| {
            let at = runner.expires_at.duration_since(UNIX_EPOCH).unwrap().as_secs();
            let mut entry = json!({
                "name": runner.model, "model": runner.model, "digest": runner.model, "size": 9, "size_vram": 9,
                "expires_at": rfc3339(i64::try_from(at).unwrap()),
            });
            if self.reports_context {
                entry["context_length"] = json!(runner.options.num_ctx);
            }
            entry
        };
        let models: Vec<Value> = runners.loaded.iter().map(entry).collect();
        Answer::Json(json!({"models": models}).to_string())
    }

    /// /api/generate; a prompt is a number of milliseconds that its answer takes.
    pub fn generate(&self, body: &str) -> Answer {
        let Ok(asked) = serde_json::from_str::<Value>(body) else { return Answer::Status(400, "{}".into()) };
        let model = asked["model"].as_str().unwrap_or_default().to_owned();
        let options = Options {
            num_ctx: asked["options"]["num_ctx"].as_u64().unwrap_or(DEFAULT_CTX),
            num_thread: asked["options"]["num_thread"].as_u64().unwrap_or(0),
        };
        let started = Instant::now();
        let keep_alive = duration(&asked["keep_alive"]);
        let Some(load) = self.take(&model, &options, keep_alive) else { return Answer::Hang };
        let prompt = asked["prompt"].as_str().map(|millis| Duration::from_millis(millis.parse().unwrap()));
        thread::sleep(prompt.unwrap_or_default());
        self.give_back(&model);
        let num_ctx = asked["options"]["num_ctx"].as_u64();
        lock(&self.runners).served.push(Served { model: model.clone(), prompt: prompt.is_some(), num_ctx, load });
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
        Answer::Json(
            match prompt {
                None => json!({"model": model, "response": "", "done": true, "done_reason": "load"}),
                Some(_) => json!({
                    "model": model, "response": "a", "done": true, "done_reason": "stop",
                    "total_duration": nanos(started.elapsed()), "load_duration": nanos(load),
                }),
            }
            .to_string(),
        )
    }

    /// Takes the runner of a model, loading it where that is needed: how long that took. None: it hangs.
    fn take(&self, model: &str, options: &Options, keep_alive: Option<Duration>) -> Option<Duration> {
        let started = Instant::now();
        let mut runners = lock(&self.runners);
        let mut waited = false;
        loop {
            runners.expire();
            match runners.loaded.iter().position(|runner| runner.model == model) {
                Some(at) if runners.loaded[at].hangs => return None,
                Some(at) if runners.loaded[at].options == *options => {
                    let runner = &mut runners.loaded[at];
                    runner.busy += 1;
                    runner.stored = keep_alive.unwrap_or(runner.stored);
                    // Not what a busy machine makes of it.
                    return Some(if waited { started.elapsed() } else { SAME_RUNNER });
                }
                // Another one is needed, and its users are waited for.
                Some(at) if runners.loaded[at].busy == 0 => drop(runners.loaded.remove(at)),
                None if !runners.loading && runners.loaded.len() < self.most_loaded.load(SeqCst) => break,
                None if !runners.loading && runners.evict() => {}
                _ => {
                    let woken = self.changed.wait_timeout(runners, Duration::from_millis(50));
                    runners = woken.unwrap_or_else(std::sync::PoisonError::into_inner).0;
                }
            }
            waited = true;
        }
        runners.loading = true;
        drop(runners);
        thread::sleep(self.load_time);
        let mut runners = lock(&self.runners);
        runners.loading = false;
        let stored = keep_alive.unwrap_or(DEFAULT_TIME);
        runners.loaded.push(Runner {
            model: model.to_owned(),
            options: options.clone(),
            stored,
            expires_at: SystemTime::now() + stored,
            busy: 1,
            hangs: false,
        });
        self.changed.notify_all();
        Some(started.elapsed())
    }

    fn give_back(&self, model: &str) {
        let mut runners = lock(&self.runners);
        for runner in runners.loaded.iter_mut().filter(|runner| runner.model == model) {
            runner.busy -= 1;
            if runner.busy == 0 {
                runner.expires_at = SystemTime::now() + runner.stored;
            }
        }
        self.changed.notify_all();
    }
}

impl Runners {
    fn expire(&mut self) {
        let now = SystemTime::now();
        self.loaded.retain(|runner| runner.busy > 0 || runner.hangs || runner.expires_at > now);
    }

    /// Makes room; the idle one that is kept for the shortest time goes first.
    fn evict(&mut self) -> bool {
        let idle = self.loaded.iter().enumerate().filter(|(_, runner)| runner.busy == 0 && !runner.hangs);
        let Some((at, _)) = idle.min_by_key(|(_, runner)| runner.stored) else { return false };
        self.loaded.remove(at);
        true
    }
}

/// keep_alive as Ollama reads it; None: left out.
fn duration(json: &Value) -> Option<Duration> {
    if let Some(seconds) = json.as_f64() {
        return Some(if seconds < 0.0 { FOREVER } else { Duration::from_secs_f64(seconds) });
    }
    let text = json.as_str()?;
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = ["ms", "s", "m", "h"].iter().zip([1, 1000, 60_000, 3_600_000]).find(|(name, _)| **name == unit)?.1;
    Some(Duration::from_millis(number.parse::<u64>().ok()? * unit))
}
