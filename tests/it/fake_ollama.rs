//! An Ollama that answers what a test sets, or does not answer at all.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crate::dates::http_date;
use crate::harness::{lock, wait_for};
use crate::request::Request;
use crate::scheduler::Scheduler;
use crate::scheduler::client::Client;

pub const MODEL: &str = "codellama:34b-instruct-q4_k_m";
pub const VERSION: &str = r#"{"version":"0.32.4"}"#;
pub const TAGS: &str = r#"{"models":[{"name":"codellama:34b-instruct-q4_k_m","model":"codellama:34b-instruct-q4_k_m","modified_at":"2026-06-25T20:00:00.123456789Z","size":20220000000,"digest":"685be00e1532e9e3a8e9b9d2a9ce4d4c1d8e36b2a4cbd5e3c1f6f7b8a9d0c1e2","details":{"parent_model":"","format":"gguf","family":"llama","families":null,"parameter_size":"34B","quantization_level":"Q4_K_M"}}]}"#;
/// The model of `TAGS`, all of it in 6321 MiB of VRAM.
pub const PS: &str = r#"{"models":[{"name":"codellama:34b-instruct-q4_k_m","model":"codellama:34b-instruct-q4_k_m","size":6628048896,"digest":"685be00e1532e9e3a8e9b9d2a9ce4d4c1d8e36b2a4cbd5e3c1f6f7b8a9d0c1e2","details":{"parent_model":"","format":"gguf","family":"llama","families":null,"parameter_size":"34B","quantization_level":"Q4_K_M"},"expires_at":"2319-03-05T01:02:03.123456789Z","size_vram":6628048896,"context_length":4096}]}"#;

/// What one path does.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200 with this body.
    Json(String),
    /// The whole response as it is; then the connection closes, or stays.
    Raw { bytes: Vec<u8>, close: bool },
    /// This status with this body.
    Status(u16, String),
    /// Reads the request and says nothing.
    Hang,
    /// A head that announces a body which never comes.
    HangAfterHead,
    /// A head, then one byte of the body every 100 ms without end.
    SlowBytes,
    /// A good model list of this many bytes, without a length.
    Huge(usize),
    /// Closes the connection without a byte.
    HangUp,
    /// A good body that ends before its announced length.
    WrongLength,
    /// 200 with chunks, as Ollama streams them, one step after the other.
    Stream(Vec<Step>),
    /// From now on these paths answer differently; then this answer.
    Then(Vec<(&'static str, Answer)>, Box<Answer>),
    /// This answer after this many milliseconds.
    Late(u64, Box<Answer>),
    /// What follows from all that was asked of it before.
    By(Arc<Scheduler>),
}

/// Where a stream waits until a test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A step of a stream.
#[derive(Debug, Clone)]
pub enum Step {
    /// A line in a chunk of its own.
    Line(String),
    /// Milliseconds.
    Pause(u64),
    /// Until a test has seen what it wants to see.
    Gate(Gate),
    /// Bytes as they are, in a chunk of their own.
    Bytes(Vec<u8>),
    /// From now on this path answers so.
    Set(&'static str, Answer),
    /// Nothing more comes, and the connection stays.
    Hang,
    /// The connection ends without the stream's end.
    Cut,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    /// Answers to the next request only.
    once: Mutex<HashMap<String, Answer>>,
    counts: Mutex<HashMap<String, usize>>,
    bodies: Mutex<Vec<(String, String)>>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
    one_each: AtomicBool,
}

/// A running fake; it stops on drop.
pub struct FakeOllama {
    addr: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeOllama {
    /// One model, pulled and entirely in VRAM.
    pub fn new() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn at(addr: SocketAddr) -> Self {
        let mut fake = Self { addr, state: Arc::default(), acceptor: None };
        fake.set("/api/version", Answer::Json(VERSION.into()));
        fake.set("/api/tags", Answer::Json(TAGS.into()));
        fake.set("/api/ps", Answer::Json(PS.into()));
        fake.start();
        fake
    }

    /// All of it is by this scheduler.
    pub fn by(scheduler: Scheduler) -> (Self, Arc<Scheduler>) {
        let (fake, scheduler) = (Self::new(), Arc::new(scheduler));
        for path in ["/api/tags", "/api/ps", "/api/generate", "/api/chat", "/api/embed"] {
            fake.set(path, Answer::By(Arc::clone(&scheduler)));
        }
        (fake, scheduler)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on each connection is closed without a byte when its second request comes, as a server does that
    /// closes an idle one at that moment.
    pub fn hang_up_on_kept_connections(&self) {
        self.state.one_each.store(true, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From the next request on.
    pub fn set(&self, path: &str, answer: Answer) {
        lock(&self.state.answers).insert(path.to_owned(), answer);
    }

    /// For the next request only.
    pub fn set_once(&self, path: &str, answer: Answer) {
        lock(&self.state.once).insert(path.to_owned(), answer);
    }

    /// The same for all three paths that the worker polls.
    pub fn set_all(&self, answer: &Answer) {
        for path in ["/api/version", "/api/tags", "/api/ps"] {
            self.set(path, answer.clone());
        }
    }

    /// Requests for this path so far, whatever became of them.
    pub fn requests(&self, path: &str) -> usize {
        lock(&self.state.counts).get(path).copied().unwrap_or(0)
    }

    /// The bodies of requests for this path so far.
    pub fn bodies(&self, path: &str) -> Vec<String> {
        lock(&self.state.bodies).iter().filter(|(of, _)| of == path).map(|(_, body)| body.clone()).collect()
    }

    /// From now on its port refuses, and open connections are gone.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.state.stopping.store(true, Ordering::SeqCst);
        // The acceptor sees the flag at its next connection.
        let _ = TcpStream::connect(self.addr);
        let _ = acceptor.join();
        for connection in lock(&self.state.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens on its old port again.
    pub fn start(&mut self) {
        self.stop();
        self.state.stopping.store(false, Ordering::SeqCst);
        // A connection that has got the port meanwhile leaves it again.
        let listener = wait_for("the port", || TcpListener::bind(self.addr).ok());
        self.addr = listener.local_addr().expect("an address");
        let state = Arc::clone(&self.state);
        self.acceptor = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                lock(&state.connections).extend(stream.try_clone());
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    let _ = serve(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        }));
    }
}

impl Drop for FakeOllama {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers the requests of one connection until one of them ends it.
fn serve(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    let mut kept = false;
    while let Some(Request { method, target, body }) = Request::read(&mut reader)? {
        if std::mem::replace(&mut kept, true) && state.one_each.load(Ordering::SeqCst) {
            return Ok(());
        }
        let path = target.split('?').next().unwrap_or_default().to_owned();
        *lock(&state.counts).entry(path.clone()).or_default() += 1;
        if !body.is_empty() {
            lock(&state.bodies).push((path.clone(), body.clone()));
        }
        let once = lock(&state.once).remove(&path);
        let answer = once.or_else(|| lock(&state.answers).get(&path).cloned());
        let answer = answer.unwrap_or_else(|| Answer::Status(404, "404 page not found".into()));
        let answer = match answer {
            Answer::By(scheduler) => match scheduler.answer(&path, &body, &Client(stream)) {
                Some(answer) => answer,
                None => continue,
            },
            answer => answer,
        };
        match settled(answer, state) {
            Answer::Json(body) => out.write_all(&response(200, &method, body.as_bytes()))?,
            Answer::Status(status, body) => out.write_all(&response(status, &method, body.as_bytes()))?,
            Answer::Raw { bytes, close } => {
                out.write_all(&bytes)?;
                if close {
                    return Ok(());
                }
            }
            Answer::Hang => return until_gone(&mut reader),
            Answer::HangAfterHead => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n")?;
                return until_gone(&mut reader);
            }
            Answer::SlowBytes => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")?;
                loop {
                    out.write_all(b" ")?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Answer::Huge(bytes) => return huge(out, bytes),
            Answer::HangUp => return Ok(()),
            Answer::WrongLength => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", VERSION.len() + 10);
                return out.write_all(&[head.as_bytes(), VERSION.as_bytes()].concat());
            }
            Answer::Stream(steps) => {
                if !stream_steps(out, &mut reader, state, steps)? {
                    return Ok(());
                }
            }
            Answer::Then(..) | Answer::Late(..) | Answer::By(_) => unreachable!("they were resolved"),
        }
    }
    Ok(())
}

/// What is answered in the end, after what comes before it.
fn settled(answer: Answer, state: &State) -> Answer {
    match answer {
        Answer::Then(changes, then) => {
            lock(&state.answers).extend(changes.into_iter().map(|(path, answer)| (path.to_owned(), answer)));
            settled(*then, state)
        }
        Answer::Late(millis, then) => {
            thread::sleep(Duration::from_millis(millis));
            settled(*then, state)
        }
        answer => answer,
    }
}

/// Whether the stream came to its end.
fn stream_steps(mut out: &TcpStream, reader: &mut impl Read, state: &State, steps: Vec<Step>) -> std::io::Result<bool> {
    out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    for step in steps {
        match step {
            Step::Line(line) => out.write_all(&chunk(format!("{line}\n").as_bytes()))?,
            Step::Bytes(bytes) => out.write_all(&chunk(&bytes))?,
            Step::Pause(millis) => thread::sleep(Duration::from_millis(millis)),
            Step::Gate(gate) => wait_for("the gate", || gate.0.load(Ordering::SeqCst).then_some(())),
            Step::Set(path, answer) => {
                lock(&state.answers).insert(path.to_owned(), answer);
            }
            Step::Hang => return until_gone(reader).map(|()| false),
            Step::Cut => return Ok(false),
        }
    }
    out.write_all(b"0\r\n\r\n").map(|()| true)
}

/// A response as Ollama writes small ones: with a length, the connection stays.
fn response(status: u16, method: &str, body: &[u8]) -> Vec<u8> {
    let (date, length) = (http_date(SystemTime::now()), body.len());
    let head = format!(
        "HTTP/1.1 {status} Reason\r\nContent-Type: application/json; charset=utf-8\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n"
    );
    let body = if method == "HEAD" { b"" } else { body };
    [head.as_bytes(), body].concat()
}

fn huge(mut out: &TcpStream, bytes: usize) -> std::io::Result<()> {
    let start = br#"{"models":[{"name":"huge:latest"}],"filler":""#;
    out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
    out.write_all(start)?;
    let piece = vec![b'x'; 64 * 1024];
    let mut left = bytes.saturating_sub(start.len() + 2);
    while left > 0 {
        let now = left.min(piece.len());
        out.write_all(&piece[..now])?;
        left -= now;
    }
    out.write_all(b"\"}")
}

/// Holds the connection until the peer lets go of it, or the fake stops.
fn until_gone(reader: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(reader, &mut std::io::sink()).map(|_| ())
}
