//! A fake Ollama and orchestrator as programs, for containers that a test can kill and disconnect.
//!
//! Usage: fakes serve|list|orchestrator [PORT]
//!   serve         an Ollama on port 11434; a pulled model is a file in /root/.ollama, a loaded one is lost on exit
//!   list          exits with 0 if that Ollama responds: the health check of Ollama's image
//!   orchestrator  go-livepeer's registry on port 8935, or PORT; POST /job and /process/request/…, to which a
//!                 gateway's clients send jobs, forward a job to the worker that registered last; GET /registered
//!                 counts the registrations since the start

#[path = "request.rs"]
mod request;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use request::Request;
use serde_json::{Value, json};

const PULLED: &str = "/root/.ollama/pulled";
const DIGEST: &str = "685be00e1532e9e3a8e9b9d2a9ce4d4c1d8e36b2a4cbd5e3c1f6f7b8a9d0c1e2";
const SIZE: u64 = 14_000_000_000;
/// A pull takes two seconds, a load one.
const PULL_STEPS: u64 = 20;
const STEP: Duration = Duration::from_millis(100);
const LOAD: Duration = Duration::from_secs(1);
/// To a prompt.
const ANSWER: Duration = Duration::from_millis(200);
/// The timeout of a read.
const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // SIGTERM has no default handler for PID 1.
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).expect("signals");
    thread::spawn(move || {
        signals.forever().next();
        std::process::exit(0);
    });
    let mode = std::env::args().nth(1).unwrap_or_default();
    let port = std::env::args().nth(2).map_or(8935, |port| port.parse().expect("a port"));
    let served = match mode.as_str() {
        "serve" => ollama(),
        "orchestrator" => orchestrator(port),
        "list" => call("127.0.0.1:11434", "GET", "/api/tags", "").map(drop),
        _ => Err(io::Error::other("usage: fakes serve|list|orchestrator [PORT]")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "fakes: {why}");
            ExitCode::FAILURE
        }
    }
}

fn json_of(request: &Request) -> Value {
    serde_json::from_str(&request.body).unwrap_or_default()
}

fn answer(mut out: &TcpStream, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(out, "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Serves every connection on its own thread.
fn listen(
    port: u16,
    handle: impl Fn(&TcpStream, &Request) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let handle = Arc::new(handle);
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let (stream, handle) = (stream?, Arc::clone(&handle));
        thread::spawn(move || {
            let mut reader = BufReader::new(&stream);
            while let Ok(Some(request)) = Request::read(&mut reader) {
                let _ = writeln!(io::stdout(), "{} {}", request.method, request.target);
                if handle(&stream, &request).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// The body of a 200.
fn call(to: &str, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    if !status.contains(" 200 ") {
        return Err(io::Error::other(format!("{to}{path} answered {status}")));
    }
    request::rest(&mut reader)
}

fn ollama() -> io::Result<()> {
    let loaded: Mutex<Option<(String, Instant)>> = Mutex::new(None);
    listen(11434, move |out, request| {
        let model = json_of(request)["model"].as_str().unwrap_or_default().to_owned();
        let lock = || loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |name: Option<String>| {
            let one = |name| {
                json!({
                    "name": name, "model": name, "size": SIZE, "size_vram": SIZE, "digest": DIGEST,
                    "expires_at": "2319-03-05T01:02:03.123456789Z", "context_length": 4096
                })
            };
            json!({"models": name.into_iter().map(one).collect::<Vec<_>>()}).to_string()
        };
        let pulled = || std::fs::read_to_string(PULLED).ok();
        match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/api/version") => answer(out, 200, r#"{"version":"0.32.15"}"#),
            ("GET", "/api/tags") => answer(out, 200, &list(pulled())),
            ("GET", "/api/ps") => answer(out, 200, &list(lock().clone().map(|(name, _)| name))),
            ("POST", "/api/pull") => pull(out, &model),
            ("POST", "/api/generate") if !json_of(request)["prompt"].is_null() => {
                // 16 tokens in a fifth of a second.
                thread::sleep(ANSWER);
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let answered = json!({
                    "model": model, "created_at": "2026-11-26T19:34:50.501286175Z", "response": " 5, 6, 7, 8", "done": true,
                    "done_reason": "length", "total_duration": nanos(ANSWER), "load_duration": 2_000_000,
                    "prompt_eval_count": 12, "prompt_eval_duration": 8_000_000, "eval_count": 16,
                    "eval_duration": nanos(ANSWER) - 10_000_000
                });
                answer(out, 200, &answered.to_string())
            }
            ("POST", "/api/generate") if pulled().as_ref() == Some(&model) => {
                thread::sleep(LOAD);
                *lock() = Some((model.clone(), Instant::now()));
                let done = json!({"model": model, "response": "", "done": true, "done_reason": "load"});
                answer(out, 200, &done.to_string())
            }
            ("POST", "/api/generate") => {
                answer(out, 404, &json!({"error": format!("model '{model}' not found")}).to_string())
            }
            _ => answer(out, 404, "404 page not found"),
        }
    })
}

fn pull(mut out: &TcpStream, model: &str) -> io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut line = |line: Value| {
        let text = format!("{line}\n");
        write!(out, "{:x}\r\n{text}\r\n", text.len())
    };
    line(json!({"status": "pulling manifest"}))?;
    for step in 0..=PULL_STEPS {
        let completed = SIZE / PULL_STEPS * step;
        line(
            json!({"status": "pulling 685be00e1532", "digest": format!("sha256:{DIGEST}"), "total": SIZE, "completed": completed}),
        )?;
        thread::sleep(STEP);
    }
    if let Some(folder) = Path::new(PULLED).parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(PULLED, model)?;
    line(json!({"status": "success"}))?;
    write!(out, "0\r\n\r\n")
}

fn orchestrator(port: u16) -> io::Result<()> {
    let registered: Mutex<(u64, Option<String>)> = Mutex::new((0, None));
    listen(port, move |out, request| {
        let lock = || registered.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/capability/register") => {
                let url = json_of(request)["url"].as_str().map(str::to_owned);
                let mut registered = lock();
                *registered = (registered.0 + 1, url);
                answer(out, 200, "ok")
            }
            ("POST", "/capability/unregister") => {
                lock().1 = None;
                answer(out, 200, "ok")
            }
            ("GET", "/registered") => {
                let registered = lock().clone();
                answer(out, 200, &json!({"times": registered.0, "url": registered.1}).to_string())
            }
            ("POST", path) if path == "/job" || path.starts_with("/process/request/") => {
                let url = lock().1.clone().unwrap_or_default();
                match call(url.trim_start_matches("http://"), "POST", "/gpu-check", &request.body) {
                    Ok(body) => answer(out, 200, &body),
                    Err(why) => answer(out, 503, &json!({"error": why.to_string()}).to_string()),
                }
            }
            _ => answer(out, 404, "404 page not found"),
        }
    })
}
