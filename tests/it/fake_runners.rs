//! A Live Runner registry that keeps and forgets as go-livepeer's does, with its words. Its clock runs a hundred times
//! faster than life.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake_orchestrator::Request;

const HURRY: u32 = 100;
const TTL: Duration = Duration::from_secs(20);
/// An id is free again only after the next sweep.
const SWEEP: Duration = Duration::from_secs(5);

struct Record {
    secret: String,
    body: Value,
    seen: Instant,
}

impl Record {
    fn silent(&self) -> Duration {
        self.seen.elapsed() * HURRY
    }
}

/// The registry.
pub struct Runners {
    records: HashMap<String, Record>,
    /// Its -orchSecret.
    pub secret: String,
    /// -useLiveRunners.
    pub enabled: bool,
    given: u32,
}

impl Runners {
    pub fn new(secret: &str) -> Self {
        Self { records: HashMap::new(), secret: secret.into(), enabled: true, given: 0 }
    }

    /// What stands under this id, as long as jobs would be sent there.
    pub fn alive(&self, id: &str) -> Option<Value> {
        self.records.get(id).filter(|record| record.silent() <= TTL).map(|record| record.body.clone())
    }

    /// A restart: it has nothing but memory.
    pub fn forget(&mut self) {
        self.records.clear();
    }

    /// Another worker holds this id.
    pub fn put(&mut self, id: &str, body: Value) {
        self.records.insert(id.into(), Record { secret: "of a rival".into(), body, seen: Instant::now() });
    }

    /// Status and body of an answer.
    pub fn answer(&mut self, request: &Request) -> (u16, String) {
        self.records.retain(|_, record| record.silent() <= TTL + SWEEP);
        let authorization = request.header("authorization").unwrap_or_default().to_owned();
        if !self.enabled {
            return (404, "live runners are not supported\n".into());
        }
        if request.path == "/discovery" {
            return (200, "[]".into());
        }
        if request.path == "/runners/heartbeat" {
            return match check(&request.body) {
                Ok(body) => self.beat(&authorization, body),
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

    fn beat(&mut self, authorization: &str, body: Value) -> (u16, String) {
        let id = body["runner_id"].as_str().unwrap_or_default().to_owned();
        let mut answer = json!({
            "runner_id": id, "orchestrator": "https://elsewhere:8935", "heartbeat_interval": "5s",
            "heartbeat_ttl": "20s", "session_ids": []
        });
        if let Some(record) = self.records.get_mut(&id) {
            if record.silent() > TTL {
                return (404, "runner not found\n".into());
            }
            if record.secret != authorization {
                return (401, "invalid heartbeat authorization\n".into());
            }
            (record.body, record.seen) = (body, Instant::now());
            return (200, answer.to_string());
        }
        if authorization != self.secret {
            return (401, "invalid registration authorization\n".into());
        }
        self.given += 1;
        let secret = format!("heartbeat-s3cret-{}", self.given);
        answer["heartbeat_secret"] = json!(secret);
        answer["o2r"] = json!({"name": "o2r", "channel_name": "x-o2r", "url": "https://elsewhere:8935/x"});
        self.records.insert(id, Record { secret, body, seen: Instant::now() });
        (200, answer.to_string())
    }
}

/// What go-livepeer refuses, in its order and words.
fn check(body: &str) -> Result<Value, &'static str> {
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
    Ok(body)
}
