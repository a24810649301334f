//! A fake receiver of notifications. What it answers is compared with what the vendors document: Slack's `ok` and error
//! words, Discord's 204 and `retry_after` in seconds, ntfy's JSON to its root and its error codes. No live service was
//! called.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{lock, wait_for};

/// What the fake does with a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Behavior {
    /// Status, further header lines (each with its CRLF), body.
    Say(u16, String, &'static str),
    /// Takes the message and never answers.
    Hang,
    /// Takes the message and closes.
    HangUp,
    /// Says 200, and its body never ends.
    Flood,
}

impl Behavior {
    pub fn say(status: u16) -> Self {
        Self::Say(status, String::new(), if status == 200 { "ok" } else { "" })
    }

    pub fn wait(header: &str) -> Self {
        Self::Say(429, format!("Retry-After: {header}\r\n"), "")
    }
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Message {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// `started ok`, for the format json.
    pub fn words(&self) -> String {
        let json = self.json();
        let word = |name: &str| json[name].as_str().unwrap_or("-").to_owned();
        let flapping = if json["flapping"] == true { " flapping" } else { "" };
        format!("{} {}{flapping}", word("event"), word("verdict"))
    }
}

#[derive(Debug)]
struct Shared {
    behavior: Mutex<Behavior>,
    came: Mutex<Vec<Message>>,
    accepted: Mutex<Vec<Message>>,
}

/// A fake receiver at one port for its whole life.
pub struct FakeReceiver {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeReceiver {
    /// One that accepts everything.
    pub fn new() -> Self {
        Self::of(Behavior::say(200))
    }

    pub fn of(behavior: Behavior) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), behavior)
    }

    pub fn at(listener: TcpListener, behavior: Behavior) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { behavior: Mutex::new(behavior), came: Mutex::default(), accepted: Mutex::default() });
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&all);
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { addr, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn set(&self, behavior: Behavior) {
        *lock(&self.shared.behavior) = behavior;
    }

    /// All that came, in order.
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.shared.came).clone()
    }

    /// Event and verdict of each message that it accepted.
    pub fn words(&self) -> Vec<String> {
        lock(&self.shared.accepted).iter().map(Message::words).collect()
    }

    /// Waits until it has accepted these, and nothing else.
    #[track_caller]
    pub fn wait_for(&self, expect: &[&str]) {
        wait_for(&format!("{expect:?}"), || {
            let words = self.words();
            assert!(words.len() <= expect.len() && words.iter().eq(&expect[..words.len()]), "{words:?}");
            (words.len() == expect.len()).then_some(())
        });
    }
}

/// What ntfy says of a message that it took.
const NTFY: &str = r#"{"id":"xE73Iyuabi","time":1795753291,"event":"message","topic":"my-gpus","message":"m"}"#;

fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let line = |reader: &mut BufReader<&TcpStream>| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line(&mut reader)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    while let Some((name, value)) = line(&mut reader)?.split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).expect("a message is UTF-8");
    let message = Message { method, path, headers, body };
    lock(&shared.came).push(message.clone());
    let behavior = lock(&shared.behavior).clone();
    let mut writer = stream;
    match behavior {
        Behavior::Say(status, head, body) => {
            if (200..300).contains(&status) {
                lock(&shared.accepted).push(message.clone());
            }
            let is_of_ntfy = message.body.starts_with('{') && message.json()["topic"].is_string();
            let body = if body == "ok" && is_of_ntfy { NTFY } else { body };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            writer.write_all(answer.as_bytes()).ok()
        }
        Behavior::Hang => {
            // Until the other side leaves.
            stream.set_read_timeout(Some(Duration::from_secs(120))).ok()?;
            let _ = reader.read(&mut [0]);
            None
        }
        Behavior::HangUp => None,
        Behavior::Flood => {
            lock(&shared.accepted).push(message);
            writer.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            while writer.write_all(chunk.as_bytes()).is_ok() {}
            None
        }
    }
}
