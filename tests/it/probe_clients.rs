//! A client beside a worker that probes: its own context and keep-alive, streams and pauses. None of its requests may be
//! reloaded, wait for more than one probe, or lose its keep-alive because of the worker.
//!
//! `AGENT_NET_BESIDE=SECONDS cargo test --locked --test it -- --nocapture beside_the_probes` does the same at full speed
//! for that long, and prints its counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dates::unix_seconds;
use crate::fake_ollama::FakeOllama;
use crate::harness::{Worker, wait_for};
use crate::model_store::{MODEL, becomes};
use crate::ollama_client::Call;
use crate::scheduler::model::Model;
use crate::scheduler::{End, Scheduler, Served};

/// How many times faster the short form is. The keeper sees a client's use by the second.
const HURRY: u32 = 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For a stream of four seconds, and for one that outlasts the time for which a worker leaves a client's model alone.
const TOKENS: u64 = 200;
const MANY: u64 = 2500;
const WRITE: Duration = Duration::from_millis(20);
/// Too short for a probe, and long enough.
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(70);

/// What became of one request of the client. Times are Ollama's own.
#[derive(Debug)]
pub struct Record {
    pub failed: bool,
    pub reloaded: bool,
    pub load: Duration,
    pub first_token: Duration,
    pub queue: Duration,
    /// Probes that ended between the request and its end.
    pub probes: usize,
    /// Probes in the pause that follows.
    pub probes_after: usize,
    /// After it, or in the pause that follows, the model was kept for less time than this client has asked for.
    pub shortened: bool,
}

/// A client of one model.
pub struct Client<'a> {
    pub fake: &'a FakeOllama,
    pub scheduler: &'a Scheduler,
    pub options: Value,
    /// Of each answer.
    pub tokens: u64,
}

impl Client<'_> {
    fn addr(&self) -> SocketAddr {
        self.fake.addr()
    }

    /// When the model expires; None: it is not listed.
    fn expires_at(&self) -> Option<f64> {
        let ps = Call::send(self.addr(), "/api/ps", None).reply();
        let models = ps.last()["models"].as_array().unwrap();
        let model = models.iter().find(|model| model["name"] == MODEL)?;
        Some(unix_seconds(model["expires_at"].as_str().unwrap()))
    }

    fn probes(&self) -> usize {
        self.scheduler.served().iter().filter(|served| served.is_probe()).count()
    }

    /// One stream, and then a pause. Without a pause it does not see what became of its keep-alive.
    pub fn ask(&self, pause: Duration) -> Record {
        let (scale, before) = (self.scheduler.scale, self.probes());
        let mut body = json!({
            "model": MODEL, "prompt": "tell me", "keep_alive": format!("{}s", KEEP_ALIVE.as_secs()),
            "options": self.options,
        });
        body["options"]["num_predict"] = self.tokens.into();
        let reply = Call::send(self.addr(), "/api/generate", Some(&body)).try_reply();
        let probes = self.probes() - before;
        let good = reply.ok().filter(|reply| reply.status == 200 && reply.last()["done"] == true);
        let Some(reply) = good else {
            thread::sleep(pause / scale);
            return Record { failed: true, ..Record::default() };
        };
        let shortened = !pause.is_zero() && {
            // While a probe runs, the expiry stands still.
            wait_for("the end of a probe", || (!self.scheduler.is_busy(MODEL)).then_some(()));
            let ended = unix_seconds(reply.last()["created_at"].as_str().unwrap());
            let least = self.expires_at().filter(|at| *at > ended + KEEP_ALIVE.as_secs_f64() - 1.0);
            thread::sleep(pause / scale);
            least.is_none_or(|least| self.expires_at().is_none_or(|at| at < least - 1.0))
        };
        Record {
            failed: false,
            reloaded: reply.reloaded(),
            load: reply.time("load_duration"),
            first_token: reply.first * scale,
            queue: reply.queue(),
            probes,
            probes_after: self.probes() - before - probes,
            shortened,
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        let none = Duration::ZERO;
        Self {
            failed: false,
            reloaded: false,
            load: none,
            first_token: none,
            queue: none,
            probes: 0,
            probes_after: 0,
            shortened: false,
        }
    }
}

/// How many requests there were, and how many of them had which trouble.
fn counts(records: &[Record]) -> String {
    let count = |which: fn(&Record) -> bool| records.iter().filter(|record| which(record)).count();
    let longest = |what: fn(&Record) -> Duration| records.iter().map(what).max().unwrap_or_default().as_secs_f64();
    format!(
        "requests {} failed {} reloaded {} behind_a_probe {} shortened {} probes_in_pauses {} longest_load_s {:.3} longest_queue_s {:.3} longest_first_token_s {:.3}",
        records.len(),
        count(|record| record.failed),
        count(|record| record.reloaded),
        count(|record| record.probes > 0),
        count(|record| record.shortened),
        records.iter().map(|record| record.probes_after).sum::<usize>(),
        longest(|record| record.load),
        longest(|record| record.queue),
        longest(|record| record.first_token),
    )
}

/// A worker that keeps and probes the model of this Ollama, both this many times faster.
pub fn probed(hurry: u32, change: impl FnOnce(&mut Model)) -> (FakeOllama, Arc<Scheduler>, Worker) {
    let mut model = Model { write: WRITE, load: Duration::from_secs(3), ..Model::generating(MODEL) };
    change(&mut model);
    let mut scheduler = Scheduler::new(3, vec![model]);
    scheduler.scale = hurry;
    let (fake, scheduler) = FakeOllama::by(scheduler);
    let (url, fault) = (fake.url(), format!("hurry:{hurry}"));
    let settings = [
        ("OLLAMA_URL", url.as_str()),
        ("MODEL", MODEL),
        ("EXPECTED_GPUS", "0"),
        ("PROBE_INTERVAL", "30s"),
        ("AGENT_NET_FAULT", &fault),
    ];
    let worker = Worker::start(&settings);
    becomes(&worker, "loaded");
    (fake, scheduler, worker)
}

#[test]
fn a_client_is_left_alone_beside_the_probes() {
    let seconds = std::env::var("AGENT_NET_BESIDE").ok().map(|text| text.parse().expect("AGENT_NET_BESIDE: seconds"));
    let hurry = if seconds.is_some() { 1 } else { HURRY };
    let (fake, scheduler, worker) = probed(hurry, |_| {});
    let client = Client { fake: &fake, scheduler: &scheduler, options: json!({"num_ctx": 8192}), tokens: TOKENS };
    let pauses = [SHORT, SHORT, LONG, SHORT, LONG, SHORT, SHORT, LONG];
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    // At first it is loaded with the client's context.
    let first = client.ask(SHORT);
    assert!(first.reloaded && !first.failed, "{first:?}");
    let mut records: Vec<Record> = pauses.iter().map(|pause| client.ask(*pause)).collect();
    for pause in pauses.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        records.push(client.ask(*pause));
    }
    println!("{}", counts(&records));
    let bad = |which: fn(&Record) -> bool| records.iter().filter(|record| which(record)).collect::<Vec<_>>();
    assert!(bad(|record| record.failed || record.reloaded || record.shortened).is_empty(), "{records:#?}");
    assert!(bad(|record| record.probes > 1).is_empty(), "{records:#?}");
    assert!(bad(|record| record.probes_after > 0).len() >= pauses.len() / 4, "{records:#?}\n{}", worker.log());
    let served = scheduler.served();
    let probes: Vec<_> = served.iter().filter(|served| served.is_probe()).collect();
    assert!(probes.iter().all(|probe| probe.end == End::Done && probe.keep_alive.is_none()), "{probes:#?}");
}

/// Slower than the others: a client's use is seen by the second, and the worker waits for 30 s after it.
#[test]
fn a_client_that_comes_again_soon_never_meets_a_probe_beside_the_probes() {
    let (fake, scheduler, worker) = probed(HURRY / 2, |_| {});
    let client = Client { fake: &fake, scheduler: &scheduler, options: json!({"num_ctx": 8192}), tokens: TOKENS };
    let records: Vec<Record> = (0..12).map(|_| client.ask(SHORT)).collect();
    let probes: usize = records.iter().skip(1).map(|record| record.probes + record.probes_after).sum();
    assert_eq!(probes, 0, "{records:#?}\n{}", worker.log());
    // It stays away: probes come.
    assert!(client.ask(LONG).probes_after > 0, "{}", worker.log());
}

/// A probe waits for the stream, and goes before the request that follows at once.
#[test]
fn a_client_that_never_rests_waits_for_one_probe_beside_the_probes() {
    let (fake, scheduler, worker) = probed(HURRY, |_| {});
    let client = Client { fake: &fake, scheduler: &scheduler, options: json!({"num_ctx": 8192}), tokens: MANY };
    client.ask(Duration::ZERO);
    let pauses = [Duration::ZERO, Duration::ZERO, Duration::ZERO, SHORT];
    let records: Vec<Record> = pauses.into_iter().map(|pause| client.ask(pause)).collect();
    println!("{}", counts(&records));
    let untouched = |record: &Record| !record.failed && !record.reloaded && !record.shortened && record.probes <= 1;
    assert!(records.iter().all(untouched), "{records:#?}\n{}", worker.log());
    let served = scheduler.served();
    let waited = |served: &&Served| served.is_probe() && served.queue > Duration::from_secs(1);
    assert!(served.iter().filter(waited).count() > 0, "{served:#?}\n{}", worker.log());
}

/// Ollama lists no num_thread: the first request of ours reloads it, and then the client has it for itself.
#[test]
fn options_that_are_not_listed_cost_one_reload_beside_the_probes() {
    let (fake, scheduler, worker) = probed(HURRY, |_| {});
    let client = Client { fake: &fake, scheduler: &scheduler, options: json!({"num_thread": 8}), tokens: TOKENS };
    client.ask(LONG);
    wait_for("the reload", || worker.log().contains("reloaded").then_some(()));
    let records: Vec<Record> = [LONG, LONG].into_iter().map(|pause| client.ask(pause)).collect();
    assert!(records.iter().all(|record| !record.failed), "{records:#?}");
    assert!(!records[1].reloaded, "{records:#?}\n{}", worker.log());
    assert_eq!(records[0].probes_after + records[1].probes_after, 0, "{records:#?}\n{}", worker.log());
}
