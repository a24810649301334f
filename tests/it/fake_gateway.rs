//! How go-livepeer sends a BYOC job to a worker, with all that it does wrong: kept connections that are not tried
//! again, a registry that forgets at the first failure, slots that are never released.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::fake_orchestrator::FakeOrchestrator;
use crate::harness::lock;
use crate::http::{Connection, Response};

/// What became of a job, as the gateway sees it.
#[derive(Debug)]
pub enum Outcome {
    Answer(Response),
    /// No worker is registered under the name.
    Unknown,
    /// The connection failed: the capability is gone now.
    Removed,
    /// Its client left before the answer: the slot is lost.
    Leaked,
}

/// Connections that go-livepeer keeps to one worker (Go's MaxIdleConnsPerHost is 2, recorded).
const MOST_IDLE: usize = 2;

/// The client's side of kept connections. As in Go's client, the one that was used last is used next, and one that the
/// worker has closed before the job is noticed (recorded: 0 of 240 jobs lost). A close that meets the job is not.
pub struct Gateway<'a> {
    orchestrator: &'a FakeOrchestrator,
    /// How long a connection may be idle; in life it is 60 s.
    limit: Duration,
    idle: Mutex<HashMap<SocketAddr, Vec<(Connection, Instant)>>>,
}

impl<'a> Gateway<'a> {
    pub fn new(orchestrator: &'a FakeOrchestrator, limit: Duration) -> Self {
        Self { orchestrator, limit, idle: Mutex::default() }
    }

    /// One job for `name` to `path`. `hangs_up`: its client hangs up in the middle of its upload.
    pub fn job(&self, name: &str, path: &str, body: &str, hangs_up: bool) -> Outcome {
        let Some(registration) = self.orchestrator.registered(name) else { return Outcome::Unknown };
        let url = registration["url"].as_str().expect("a URL").to_owned();
        let addr: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let token = registration["token"].as_str().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n{}\
             Content-Type: \r\nAccept-Encoding: gzip\r\n\r\n",
            body.len(),
            token.unwrap_or_default()
        );
        self.orchestrator.leak(name);
        let Ok(mut connection) = self.connection(addr) else {
            self.orchestrator.remove(name);
            return Outcome::Removed;
        };
        if hangs_up {
            let _ = connection.send(head.as_bytes());
            return Outcome::Leaked;
        }
        let sent = connection.send(head.as_bytes()).and_then(|()| connection.send(body.as_bytes()));
        let answer = sent.map_err(|why| why.to_string()).and_then(|()| connection.answer().map_err(|w| w.to_string()));
        match answer {
            Ok(answer) if answer.status != 401 => {
                self.orchestrator.give_back(name);
                let keeps = !answer.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
                let mut all = lock(&self.idle);
                let idle = all.entry(addr).or_default();
                if keeps && idle.len() < MOST_IDLE {
                    idle.push((connection, Instant::now()));
                }
                drop(all);
                Outcome::Answer(answer)
            }
            // A POST is not tried again.
            _ => {
                self.orchestrator.remove(name);
                Outcome::Removed
            }
        }
    }

    fn connection(&self, addr: SocketAddr) -> std::io::Result<Connection> {
        let mut idle = lock(&self.idle);
        let kept = idle.entry(addr).or_default();
        kept.retain(|(connection, since)| since.elapsed() < self.limit && !connection.has_ended());
        match kept.pop() {
            Some((connection, _)) => Ok(connection),
            None => Connection::try_open(addr),
        }
    }
}
