//! A fake server that takes payments, and a worker that has some to submit.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Worker, agent_net, folder, lock, run, wait_for};
use crate::http::{self, Response};

/// What the fake answers to payments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Behavior {
    /// As go-livepeer: 200 to tickets that it has not seen, else 400.
    Judge,
    Say(u16),
    /// The page of a proxy, with this status.
    WebPage(u16),
    /// This to the first payment that ever came, and 200 to all others.
    ToFirst(u16),
    /// Takes the payment and never answers.
    Hang,
    /// Takes the payment and closes.
    HangUp,
}

/// A fake TICKET_SUBMIT_URL, at one port for its whole life.
pub struct TicketServer {
    pub addr: SocketAddr,
    behavior: Arc<Mutex<Behavior>>,
    /// Every payment that came, with its job header, in order.
    came: Arc<Mutex<Vec<(String, String)>>>,
    /// Payments that it has taken, and how often.
    taken: Arc<Mutex<HashMap<String, u32>>>,
}

impl TicketServer {
    pub fn new(behavior: Behavior) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), behavior)
    }

    pub fn at(listener: TcpListener, behavior: Behavior) -> Self {
        let addr = listener.local_addr().unwrap();
        let server =
            Self { addr, behavior: Arc::new(Mutex::new(behavior)), came: Arc::default(), taken: Arc::default() };
        let (behavior, came, taken) =
            (Arc::clone(&server.behavior), Arc::clone(&server.came), Arc::clone(&server.taken));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behavior, came, taken) = (Arc::clone(&behavior), Arc::clone(&came), Arc::clone(&taken));
                thread::spawn(move || serve(&stream, &behavior, &came, &taken));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/ai/stream/payment", self.addr)
    }

    pub fn set(&self, behavior: Behavior) {
        *lock(&self.behavior) = behavior;
    }

    pub fn came(&self) -> Vec<(String, String)> {
        lock(&self.came).clone()
    }

    pub fn taken(&self) -> HashMap<String, u32> {
        lock(&self.taken).clone()
    }
}

fn serve(
    stream: &TcpStream,
    behavior: &Mutex<Behavior>,
    came: &Mutex<Vec<(String, String)>>,
    taken: &Mutex<HashMap<String, u32>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    assert!(first.starts_with("POST /ai/stream/payment HTTP/1.1"), "{first}");
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let (payment, job) = (headers.remove("livepeer-payment")?, headers.remove("livepeer")?);
    lock(came).push((payment.clone(), job));
    let behavior = *lock(behavior);
    let status = match behavior {
        Behavior::Judge => {
            let times = *lock(taken).entry(payment).and_modify(|times| *times += 1).or_insert(1);
            if times == 1 { 200 } else { 400 }
        }
        Behavior::Say(status) | Behavior::WebPage(status) => status,
        Behavior::ToFirst(status) => {
            let first = lock(came)[0].0 == payment;
            if first { status } else { 200 }
        }
        Behavior::Hang => {
            thread::sleep(Duration::from_secs(60));
            return None;
        }
        Behavior::HangUp => return None,
    };
    let page = format!("<html>{}", " ".repeat(100_000));
    let text = match behavior {
        Behavior::WebPage(_) => page.as_str(),
        _ if status == 200 => "",
        _ => "no, because of\nreasons",
    };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    (&mut &*stream).write_all(answer.as_bytes()).ok()
}

/// A state folder, and the server that takes the payments.
pub struct Scene {
    pub dir: PathBuf,
    pub url: String,
}

impl Scene {
    pub fn new(name: &str, server: &TicketServer) -> Self {
        Self { dir: folder(name), url: server.url() }
    }

    pub fn start(&self) -> Worker {
        Worker::start(&[
            ("STATE_DIR", self.dir.to_str().unwrap()),
            ("TICKET_SUBMIT_URL", &self.url),
            ("AGENT_NET_FAULT", "hurry:50"),
        ])
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join("tickets.jsonl")
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!({"damaged": {}}))).collect()
    }

    pub fn entries(&self) -> Vec<String> {
        self.lines().iter().flat_map(|line| line.as_object().unwrap().keys().cloned()).collect()
    }

    /// `pm ledger --json`.
    pub fn report(&self) -> Value {
        let mut command = agent_net();
        let (status, out, err) = run(command.args(["pm", "ledger", "--json", "--state-dir"]).arg(&self.dir));
        assert!(status.success(), "{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// Tickets with this result, by the ledger.
    pub fn tickets(&self, result: &str) -> i64 {
        self.report()["totals"][result]["tickets"].as_i64().unwrap_or(0)
    }

    pub fn wait_for_tickets(&self, result: &str, count: i64) {
        wait_for(&format!("{count} tickets {result}"), || (self.tickets(result) == count).then_some(()));
    }
}

pub const JOB: &str = "eyJyZXF1ZXN0IjoiYSJ9";

pub fn pay(addr: SocketAddr, payment: &str) -> Response {
    let headers = [format!("Livepeer-Payment: {payment}"), format!("Livepeer: {JOB}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    http::request(addr, "POST", "/gpu-check", &headers, br#"{"agent_id":"payer"}"#)
}

/// The status of the answer; None: there is none, the worker may have been killed.
pub fn try_pay(addr: SocketAddr, payment: &str) -> Option<u16> {
    let request = format!(
        "POST /gpu-check HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLivepeer-Payment: {payment}\r\nLivepeer: {JOB}\r\nContent-Length: 16\r\n\r\n{{\"agent_id\":\"p\"}}"
    );
    let mut connection = http::Connection::try_open(addr).ok()?;
    connection.send(request.as_bytes()).ok()?;
    connection.answer().ok().map(|answer| answer.status)
}
