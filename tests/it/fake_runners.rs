//! A Live Runner registry that keeps and forgets as go-livepeer's does, with its words; compared with the recordings of
//! one. Its clock runs a hundred times faster by default.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_orchestrator::Request;
use crate::fake_static_runners::StaticRunners;

const TIME_SCALE: u32 = 100;
/// Missed beats after which a runner is gone.
const MISSED: u32 = 4;
/// An id is free again only after the next sweep.
const SWEEP: Duration = Duration::from_secs(5);

struct Record {
    secret: String,
    body: Value,
    seen: Instant,
}

/// How it differs from go-livepeer's on its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Usual,
    /// Every runner needs a price.
    OnChain,
    /// livepeer/node: one text for every 401, no unit 720p. Read in its source, not compared.
    Node,
}

/// The registry.
pub struct Runners {
    records: HashMap<String, Record>,
    /// Its -orchSecret.
    pub secret: String,
    /// -useLiveRunners.
    pub enabled: bool,
    pub kind: Kind,
    /// What it names for further beats; None: where it was asked (-liveRunnerAddr, or the service address).
    pub orchestrator: Option<String>,
    /// How many times faster its clock runs.
    pub time_scale: u32,
    /// Between beats.
    pub interval: Duration,
    /// -liveRunnerConfig.
    pub listed: Option<StaticRunners>,
    given: u32,
}

impl Runners {
    pub fn new(secret: &str) -> Self {
        Self {
            records: HashMap::new(),
            secret: secret.into(),
            enabled: true,
            kind: Kind::Usual,
            orchestrator: None,
            time_scale: TIME_SCALE,
            interval: Duration::from_secs(5),
            listed: None,
            given: 0,
        }
    }

    /// What stands under this id, as long as jobs would be sent there.
    pub fn alive(&self, id: &str) -> Option<Value> {
        self.records.get(id).filter(|record| self.silent(record) <= self.ttl()).map(|record| record.body.clone())
    }

    fn silent(&self, record: &Record) -> Duration {
        record.seen.elapsed() * self.time_scale
    }

    fn ttl(&self) -> Duration {
        self.interval * MISSED
    }

    /// A restart: it has nothing but memory.
    pub fn forget(&mut self) {
        self.records.clear();
    }

    /// Another worker holds this id.
    pub fn put(&mut self, id: &str, body: Value) {
        self.records.insert(id.into(), Record { secret: "of a rival".into(), body, seen: Instant::now() });
    }

    /// It knows a runner that has registered elsewhere, as behind another address of the same process.
    pub fn adopt(&mut self, secret: &str, id: &str) {
        let body = json!({"app": "x"});
        self.records.insert(id.into(), Record { secret: secret.into(), body, seen: Instant::now() });
    }

    /// Status and body of an answer.
    pub fn answer(&mut self, request: &Request) -> (u16, String) {
        let (scale, longest) = (self.time_scale, self.ttl() + SWEEP);
        self.records.retain(|_, record| record.seen.elapsed() * scale <= longest);
        let authorization = request.header("authorization").unwrap_or_default().to_owned();
        if !self.enabled {
            return (404, "live runners are not supported\n".into());
        }
        let own = format!("http://{}", request.header("host").unwrap_or_default());
        if request.path == "/discovery" {
            return (200, self.discovery(&own).to_string());
        }
        if request.path == "/runners/heartbeat" {
            return match check(&request.body, self.kind) {
                Ok(body) => self.beat(&authorization, body, &own),
                Err(why) => (400, format!("{why}\n")),
            };
        }
        let id = request.path.trim_start_matches("/runners/").trim_end_matches("/unregister");
        match self.records.get(id) {
            None => (404, "runner not found\n".into()),
            Some(record) if record.secret != authorization => (401, "invalid authorization\n".into()),
            Some(_) => {
                self.records.remove(id);
                (204, String::new())
            }
        }
    }

    /// The runners that are ready, as everybody may see them.
    pub fn discovery(&self, own: &str) -> Value {
        let live = self.records.iter().filter(|(_, record)| self.silent(record) <= self.ttl());
        let mut ready: Vec<(String, Value)> = live.map(|(id, record)| (id.clone(), record.body.clone())).collect();
        ready.retain(|(_, body)| matches!(body["status"].as_str(), None | Some("" | "ready")));
        ready.extend(self.listed.iter().flat_map(StaticRunners::ready));
        ready.sort_by_key(|(id, _)| id.clone());
        let entry = |(id, body): &(String, Value)| {
            let mut entry = json!({"url": format!("{own}/apps/{id}/app")});
            for key in ["gpu", "app", "version", "metadata", "mode", "capacity"] {
                if !body[key].is_null() {
                    entry[key] = body[key].clone();
                }
            }
            entry["capacity_used"] = json!(0);
            entry["capacity_available"] = body["capacity"].clone();
            if self.kind != Kind::Usual && !body["price_info"].is_null() {
                entry["price_info"] = body["price_info"].clone();
            }
            entry
        };
        let mut list = json!([{"address": own}]);
        if !ready.is_empty() {
            list[0]["runners"] = ready.iter().map(entry).collect();
        }
        list
    }

    /// A 401 in its words.
    fn unauthorized(&self, words: &str) -> (u16, String) {
        (401, if self.kind == Kind::Node { "invalid runner credential\n".into() } else { format!("{words}\n") })
    }

    fn beat(&mut self, authorization: &str, body: Value, own: &str) -> (u16, String) {
        let id = body["runner_id"].as_str().unwrap_or_default().to_owned();
        let mut answer = json!({
            "runner_id": id, "orchestrator": self.orchestrator.as_deref().unwrap_or(own), "heartbeat_interval": format!("{}s", self.interval.as_secs()),
            "heartbeat_ttl": format!("{}s", self.ttl().as_secs()), "session_ids": []
        });
        if let Some(record) = self.records.get(&id) {
            if self.silent(record) > self.ttl() {
                return (404, "runner not found\n".into());
            }
            if record.secret != authorization {
                return self.unauthorized("invalid heartbeat authorization");
            }
            let secret = record.secret.clone();
            self.records.insert(id, Record { secret, body, seen: Instant::now() });
            return (200, answer.to_string());
        }
        if authorization != self.secret {
            return self.unauthorized("invalid registration authorization");
        }
        self.given += 1;
        let secret = format!("heartbeat-s3cret-{}", self.given);
        answer["heartbeat_secret"] = json!(secret);
        answer["o2r"] = json!({"name": "o2r", "channel_name": "x-o2r", "url": format!("{own}/x")});
        self.records.insert(id, Record { secret, body, seen: Instant::now() });
        (200, answer.to_string())
    }
}

/// What go-livepeer refuses, in its order and words.
fn check(body: &str, kind: Kind) -> Result<Value, &'static str> {
    let body: Value = serde_json::from_str(body).map_err(|_| "unexpected EOF")?;
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    if !text("runner_url").starts_with("http") {
        return Err("invalid runner_url");
    }
    if text("app").is_empty() || text("app").trim() != text("app") {
        return Err("app must be trimmed");
    }
    if !matches!(text("mode"), "" | "persistent" | "single-shot") {
        return Err("mode must be \"persistent\" or \"single-shot\"");
    }
    if !body["capacity"].is_u64() {
        return Err("capacity must be >= 0");
    }
    if text("status").to_lowercase().trim() != text("status") {
        return Err("status must be lowercase and trimmed");
    }
    if text("metadata").len() > 1024 {
        return Err("metadata must be at most 1024 bytes");
    }
    if kind == Kind::OnChain && body["price_info"].is_null() {
        return Err("price_info.price is required");
    }
    if kind == Kind::Node && body["price_info"]["unit"] == "720p" {
        return Err("price_info.unit must be hour or fixed");
    }
    Ok(body)
}
