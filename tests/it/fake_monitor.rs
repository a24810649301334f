//! A push monitor: `/ping/UUID` as Healthchecks has it, `/api/push/TOKEN` as Uptime Kuma does. Statuses and bodies are
//! those of their sources: hc/api/views.py of Healthchecks, server/routers/api-router.js of Uptime Kuma.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{TIMEOUT, lock};

const UUID: &str = "5d3e1f60-0000-4000-8000-secret-check";
const TOKEN: &str = "Kuma-secret-token";

/// How calls are answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// By their URL.
    Ordinary,
    /// This status, for any reason of a proxy or of the service.
    Status(u16),
    /// Uptime Kuma 1.x: the monitor is unknown or paused. With 200 in its place: a proxy that replaces errors.
    Paused(u16),
    /// Uptime Kuma's web application, which answers to every path that it does not know.
    Page,
    /// To another address of the same server.
    Redirects,
    Hangs,
    /// A body that does not end.
    Floods,
}

#[derive(Default)]
struct State {
    mood: Mutex<Option<Mood>>,
    calls: Mutex<Vec<String>>,
    /// The Authorization header of the last call.
    login: Mutex<Option<String>>,
}

/// Its threads end with the test.
pub struct FakeMonitor {
    addr: SocketAddr,
    state: Arc<State>,
}

impl FakeMonitor {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let monitor = Self { addr: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&monitor.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&stream, &state));
            }
        });
        monitor
    }

    /// The ping URL of a check.
    pub fn check(&self) -> String {
        format!("http://{}/ping/{UUID}", self.addr)
    }

    /// The push URL of a monitor, with both placeholders.
    pub fn kuma(&self) -> String {
        format!("http://{}/api/push/{TOKEN}?status={{status}}&msg={{message}}&ping=", self.addr)
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set(&self, mood: Mood) {
        *lock(&self.state.mood) = Some(mood);
    }

    /// Path and query of all calls.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state.calls).clone()
    }

    /// The login of the last call.
    pub fn login(&self) -> Option<String> {
        lock(&self.state.login).clone()
    }

    /// Nothing that makes a call possible is in `text`.
    #[track_caller]
    pub fn is_not_in(&self, text: &str) {
        for secret in [UUID, TOKEN] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}

/// One request and its answer; the connection ends with it.
fn serve(stream: &TcpStream, state: &State) -> Option<()> {
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut login = None;
    loop {
        let line = lines.next()?.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        login = login.or(name.eq_ignore_ascii_case("authorization").then(|| value.to_owned()));
    }
    *lock(&state.login) = login;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    lock(&state.calls).push(target.to_owned());
    let mood = lock(&state.mood).unwrap_or(Mood::Ordinary);
    let mut out = stream;
    // Its scripts are in it.
    let page = format!("<!DOCTYPE html>\n<html lang=\"en\"><title>Uptime Kuma</title>{}</html>", "<br>".repeat(25_000));
    let (status, kind, body) = match mood {
        Mood::Ordinary => answer(method, target),
        Mood::Status(status) => (status, "text/html", "<h1>a proxy's page</h1>"),
        Mood::Paused(status) => (status, "application/json", NOT_ACTIVE),
        Mood::Page => (200, "text/html", page.as_str()),
        Mood::Redirects => {
            let head = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
            return out.write_all(head.as_bytes()).ok();
        }
        Mood::Hangs => {
            thread::sleep(TIMEOUT);
            return None;
        }
        Mood::Floods => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").ok()?;
            while out.write_all(&[b'x'; 4096]).is_ok() {}
            return None;
        }
    };
    let length = body.len();
    write!(out, "HTTP/1.1 {status} S\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").ok()
}

const NOT_ACTIVE: &str = r#"{"ok":false,"msg":"Monitor not found or not active."}"#;

fn answer(method: &str, target: &str) -> (u16, &'static str, &'static str) {
    let path = target.split('?').next().unwrap_or_default();
    match path.split('/').collect::<Vec<_>>()[..] {
        // Its view takes these methods only.
        ["", "ping", UUID] if matches!(method, "GET" | "HEAD" | "POST") => (200, "text/plain", "OK"),
        ["", "ping", ..] => (404, "text/plain", "not found"),
        // All methods.
        ["", "api", "push", TOKEN] => (200, "application/json", r#"{"ok":true}"#),
        ["", "api", "push", ..] => (404, "application/json", NOT_ACTIVE),
        _ => (404, "text/html", "Not Found"),
    }
}
