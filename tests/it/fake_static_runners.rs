//! An operator's own list of runners (-liveRunnerConfig), checked and probed as go-livepeer does, whose source was read:
//! GET health_url of one after the other, every 5 s of its faster clock, with a timeout of 3 s. It follows no redirect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::lock;

const INTERVAL: Duration = Duration::from_secs(5);
/// Not faster: the worker is not either.
const TIMEOUT: Duration = Duration::from_secs(3);

struct Row {
    entry: Value,
    health_url: String,
    ready: bool,
}

/// A list that is probed until it is dropped.
pub struct StaticRunners {
    rows: Arc<Mutex<Vec<Row>>>,
    stopping: Arc<AtomicBool>,
    prober: Option<JoinHandle<()>>,
}

impl StaticRunners {
    /// A list as go-livepeer reads it; each entry is probed once before it is shown.
    ///
    /// # Errors
    /// What go-livepeer refuses, in its words.
    pub fn new(list: &Value, on_chain: bool, time_scale: u32) -> Result<Self, String> {
        let entries = list["runners"].as_array().ok_or("runners is not a list")?;
        let mut rows: Vec<Row> = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let health_url = check(entry, on_chain).map_err(|why| format!("runners[{at}]: {why}"))?;
            if rows.iter().any(|row| row.entry["label"] == entry["label"]) {
                return Err(format!("runners[{at}]: duplicate label {}", entry["label"]));
            }
            let ready = is_healthy(entry, &health_url);
            rows.push(Row { entry: entry.clone(), health_url, ready });
        }
        let (rows, stopping) = (Arc::new(Mutex::new(rows)), Arc::new(AtomicBool::new(false)));
        let (probed, stop) = (Arc::clone(&rows), Arc::clone(&stopping));
        let prober = thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                thread::sleep(INTERVAL / time_scale);
                let entries: Vec<(Value, String)> =
                    lock(&probed).iter().map(|row| (row.entry.clone(), row.health_url.clone())).collect();
                for (at, (entry, health_url)) in entries.iter().enumerate() {
                    let ready = is_healthy(entry, health_url);
                    lock(&probed)[at].ready = ready;
                }
            }
        });
        Ok(Self { rows, stopping, prober: Some(prober) })
    }

    /// Those that are ready, by the last part of their address.
    pub fn ready(&self) -> Vec<(String, Value)> {
        let rows = lock(&self.rows);
        let ready = rows.iter().filter(|row| row.ready);
        ready.map(|row| (row.entry["label"].as_str().expect("a label").to_owned(), row.entry.clone())).collect()
    }
}

impl Drop for StaticRunners {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(prober) = self.prober.take() {
            let _ = prober.join();
        }
    }
}

/// The absolute health_url of an entry that is accepted.
fn check(entry: &Value, on_chain: bool) -> Result<String, &'static str> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let is_url =
        |url: &str| ["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
    let label = text("label");
    match text("routing") {
        "label" if label.contains('/') => return Err("label cannot contain / when routing is \"label\""),
        "" | "runner-id" | "label" => {}
        _ => return Err("routing must be \"runner-id\" or \"label\""),
    }
    if label.is_empty() || label.trim() != label {
        return Err("label is required and must be trimmed");
    }
    if !is_url(text("runner_url")) {
        return Err("invalid runner_url");
    }
    let health_url = match text("health_url") {
        path if path.starts_with('/') => text("runner_url").trim_end_matches('/').to_owned() + path,
        "" => return Err("health_url is required"),
        url => url.to_owned(),
    };
    if !is_url(&health_url) {
        return Err("invalid health_url");
    }
    if text("app").is_empty() || text("app").trim() != text("app") {
        return Err("app must be trimmed");
    }
    if !matches!(text("mode"), "" | "persistent" | "single-shot" | "single_shot") {
        return Err("mode must be \"persistent\" or \"single-shot\"");
    }
    let price = &entry["price_info"];
    let is_positive = price["price"].as_f64().is_some_and(|price| price > 0.0);
    if on_chain && !is_positive {
        return Err("price_info.price must be a positive decimal");
    }
    if on_chain && !matches!(price["unit"].as_str(), None | Some("" | "hour" | "720p" | "fixed")) {
        return Err("price_info.unit must be hour, 720p, or fixed");
    }
    Ok(health_url)
}

fn is_healthy(entry: &Value, health_url: &str) -> bool {
    let wanted = entry.get("healthy_status_code").cloned().unwrap_or(json!(200));
    status(health_url).is_some_and(|status| wanted == status)
}

/// What Go's client gets for this URL: as in the recording of such a probe, with user and password of the URL as Basic.
fn status(url: &str) -> Option<u16> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    let addr: SocketAddr = host.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let authorization = login.map(|login| format!("Authorization: Basic {}\r\n", STANDARD.encode(login)));
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\n{}Accept-Encoding: gzip\r\n\r\n",
        authorization.unwrap_or_default()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).ok()?;
    std::str::from_utf8(&start).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}
