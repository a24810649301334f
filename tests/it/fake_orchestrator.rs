//! An orchestrator's registry that answers with the bytes of a real one, or badly, or not at all.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::fake_runners::Runners;
use crate::harness::{lock, wait_for};

/// What it does with the next requests.
#[derive(Debug, Clone, Copy)]
pub enum Behavior {
    Ok,
    /// Ok, and its clock is that of the recordings.
    OldClock,
    BadSecret,
    BadBody,
    PlainHttpToTls,
    NoByoc,
    Error500,
    Redirect,
    /// A 200 with a page of some proxy.
    WebPage,
    /// Reads the request and says nothing.
    Hang,
    /// Ok, 400 ms later.
    Slow,
    /// Something other than HTTP.
    Garbage,
    /// The head of an answer, and no more.
    Half,
    /// Closes without a byte, as go-livepeer does when its handler panics.
    HangUp,
}

/// What GET /discovery does instead of what its registry says.
#[derive(Debug, Clone, Copy)]
pub enum Discovery {
    Hang,
    Status(u16),
    /// A page of some proxy.
    Html,
    /// A page that never ends.
    HugeHtml,
    /// A list that never ends.
    HugeList,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

struct State {
    behavior: Mutex<Behavior>,
    requests: Mutex<Vec<Request>>,
    meanwhile: Mutex<Vec<Request>>,
    /// Requests that hang.
    hanging: AtomicUsize,
    /// What was registered last under each name, and how many slots of it are taken.
    registry: Mutex<HashMap<String, (Value, u64)>>,
    /// Its Live Runner registry, if it has one.
    runners: Mutex<Option<Runners>>,
    discovery: Mutex<Option<Discovery>>,
    /// Its -orchSecret; None: it takes any.
    secret: Mutex<Option<String>>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
    /// Asked before each answer; for what must be true while a registration is under way.
    witness: Box<dyn Fn(&Request) + Send + Sync>,
}

/// A running fake; it stops on drop.
pub struct FakeOrchestrator {
    addr: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeOrchestrator {
    pub fn new(behavior: Behavior) -> Self {
        Self::with_witness(behavior, |_| ())
    }

    pub fn with_witness(behavior: Behavior, witness: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        let state = Arc::new(State {
            behavior: Mutex::new(behavior),
            requests: Mutex::default(),
            meanwhile: Mutex::default(),
            hanging: AtomicUsize::new(0),
            registry: Mutex::default(),
            runners: Mutex::default(),
            discovery: Mutex::default(),
            secret: Mutex::default(),
            connections: Mutex::default(),
            stopping: AtomicBool::new(false),
            witness: Box::new(witness),
        });
        let mut fake = Self { addr: SocketAddr::from(([127, 0, 0, 1], 0)), state, acceptor: None };
        fake.start();
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn set(&self, behavior: Behavior) {
        *lock(&self.state.behavior) = behavior;
    }

    /// Looks into its Live Runner registry, or changes it.
    pub fn runners(&self, look: impl FnOnce(&mut Option<Runners>)) {
        look(&mut lock(&self.state.runners));
    }

    /// From now on GET /discovery does this; None: what it should.
    pub fn discovery(&self, answer: Option<Discovery>) {
        *lock(&self.state.discovery) = answer;
    }

    /// The entry of a runner in GET /discovery, as the public sees it.
    pub fn listed(&self, id: &str) -> Option<Value> {
        let list = lock(&self.state.runners).as_ref().filter(|runners| runners.enabled)?.discovery(&self.url());
        let url = format!("{}/apps/{id}/app", self.url());
        list[0]["runners"].as_array()?.iter().find(|runner| runner["url"] == *url).cloned()
    }

    /// Requests that came while another one got no answer.
    pub fn meanwhile(&self) -> Vec<Request> {
        lock(&self.state.meanwhile).clone()
    }

    /// What is registered under this name.
    pub fn registered(&self, name: &str) -> Option<Value> {
        lock(&self.state.registry).get(name).map(|(body, _)| body.clone())
    }

    /// It forgets everything, as at a restart, or after a failed connection.
    pub fn forget(&self) {
        lock(&self.state.registry).clear();
    }

    /// Another worker registers this.
    pub fn put(&self, name: &str, body: Value) {
        lock(&self.state.registry).insert(name.to_owned(), (body, 0));
    }

    /// One slot more is taken and never given back.
    pub fn leak(&self, name: &str) {
        if let Some((_, load)) = lock(&self.state.registry).get_mut(name) {
            *load += 1;
        }
    }

    /// A job has ended. A count reset in between becomes negative in go-livepeer; here it stays 0.
    pub fn give_back(&self, name: &str) {
        if let Some((_, load)) = lock(&self.state.registry).get_mut(name) {
            *load = load.saturating_sub(1);
        }
    }

    /// It drops one name.
    pub fn remove(&self, name: &str) {
        lock(&self.state.registry).remove(name);
    }

    pub fn load(&self, name: &str) -> Option<u64> {
        lock(&self.state.registry).get(name).map(|(_, load)| *load)
    }

    /// From now on it wants this secret.
    pub fn demand(&self, secret: &str) {
        *lock(&self.state.secret) = Some(secret.to_owned());
    }

    /// All requests so far.
    pub fn count(&self) -> usize {
        lock(&self.state.requests).len()
    }

    /// Requests to this path so far.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        lock(&self.state.requests).iter().filter(|r| r.path == path).cloned().collect()
    }

    /// The requests to this path, once there are `count`.
    #[track_caller]
    pub fn wait_for(&self, path: &str, count: usize) -> Vec<Request> {
        wait_for(&format!("{count} requests to {path}"), || Some(self.requests(path)).filter(|all| all.len() >= count))
    }

    /// From now on its port refuses.
    pub fn stop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in lock(&self.state.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens, on the port of before if there was one.
    pub fn start(&mut self) {
        let listener = wait_for("the port", || TcpListener::bind(self.addr).ok());
        self.addr = listener.local_addr().expect("an address");
        self.state.stopping.store(false, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.acceptor = Some(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.stopping.load(Ordering::Acquire) {
                    return;
                }
                lock(&state.connections).extend(stream.try_clone());
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&stream, &state));
            }
        }));
    }
}

impl Drop for FakeOrchestrator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(stream: &TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let request = read(&mut reader)?;
    lock(&state.requests).push(request.clone());
    if state.hanging.load(Ordering::Acquire) > 0 {
        lock(&state.meanwhile).push(request.clone());
    }
    (state.witness)(&request);
    let mut behavior = *lock(&state.behavior);
    let asked = request.path.starts_with("/runners/") || request.path == "/discovery";
    let odd = *lock(&state.discovery);
    if let Some(odd) = odd.filter(|_| request.path == "/discovery") {
        return answer_oddly(odd, stream);
    }
    let known = lock(&state.runners).as_mut().filter(|_| asked).map(|runners| runners.answer(&request));
    if let Some((status, body)) = known {
        let length = body.len();
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        (&mut &*stream).write_all(text.as_bytes()).ok()?;
        return stream.shutdown(Shutdown::Write).ok();
    }
    if matches!(behavior, Behavior::Slow) {
        thread::sleep(Duration::from_millis(400));
        behavior = Behavior::Ok;
    }
    if matches!(behavior, Behavior::Ok) && request.method == "POST" {
        let wanted = lock(&state.secret).clone();
        if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
            behavior = Behavior::BadSecret;
        } else if request.path == "/capability/register" {
            let body = request.json();
            let (name, load) = (body["name"].as_str().expect("a name").to_owned(), body["load"].as_u64().unwrap_or(0));
            lock(&state.registry).insert(name, (body, load));
        } else {
            lock(&state.registry).remove(&request.body);
        }
    }
    if matches!(behavior, Behavior::Hang) {
        state.hanging.fetch_add(1, Ordering::AcqRel);
        let _ = reader.read(&mut [0]);
        state.hanging.fetch_sub(1, Ordering::AcqRel);
        return None;
    }
    let mut answer = String::from_utf8_lossy(recorded(behavior, &request)?).into_owned();
    if let (false, Some((before, rest))) = (matches!(behavior, Behavior::OldClock), answer.split_once("Date: ")) {
        let after = rest.split_once('\r').map_or("", |(_, after)| after);
        answer = format!("{before}Date: {}\r{after}", httpdate::fmt_http_date(SystemTime::now()));
    }
    (&mut &*stream).write_all(answer.as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()
}

fn answer_oddly(odd: Discovery, mut stream: &TcpStream) -> Option<()> {
    let (status, start, more) = match odd {
        Discovery::Hang => {
            let _ = stream.read(&mut [0]);
            return None;
        }
        Discovery::Status(status) => (status, "odd", ""),
        Discovery::Html => (200, "<html>welcome</html>", ""),
        Discovery::HugeHtml => (200, "<html>", "<p>more</p>"),
        Discovery::HugeList => (200, r#"[{"address":"http://o"}"#, r#",{"address":"http://o"}"#),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n{start}");
    stream.write_all(head.as_bytes()).ok()?;
    while !more.is_empty() {
        // Until the peer has had enough.
        stream.write_all(more.repeat(1000).as_bytes()).ok()?;
    }
    stream.shutdown(Shutdown::Write).ok()
}

/// What a real one answered in this behavior; None: nothing.
fn recorded(behavior: Behavior, request: &Request) -> Option<&'static [u8]> {
    Some(match behavior {
        // Without -useLiveRunners.
        Behavior::Ok | Behavior::OldClock | Behavior::BadSecret | Behavior::BadBody if request.path == "/discovery" => {
            include_bytes!("recordings/register/other-get-discovery.client_out")
        }
        // It looks at the method first.
        Behavior::Ok | Behavior::OldClock | Behavior::BadSecret | Behavior::BadBody if request.method == "GET" => {
            include_bytes!("recordings/register/reg-get.client_out")
        }
        Behavior::Ok | Behavior::OldClock if request.path == "/capability/unregister" => {
            include_bytes!("recordings/register/unreg-ok.client_out")
        }
        Behavior::Ok | Behavior::OldClock => include_bytes!("recordings/register/reg-ok.client_out"),
        Behavior::BadSecret => include_bytes!("recordings/register/reg-wrong-secret.client_out"),
        Behavior::BadBody => include_bytes!("recordings/register/reg-capacity-string.client_out"),
        Behavior::PlainHttpToTls => include_bytes!("recordings/register/reg-plain-http-to-tls-port.client_out"),
        Behavior::NoByoc => include_bytes!("recordings/register/no-byoc.client_out"),
        Behavior::Error500 => {
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
        }
        Behavior::Redirect => {
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        }
        Behavior::WebPage => {
            // Its scripts are in it.
            static PAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let page = format!("<!DOCTYPE html><h1>Sign in{}", "<br>".repeat(25_000));
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len()).into()
            });
            &PAGE
        }
        Behavior::Slow => unreachable!("it was slow already"),
        Behavior::Garbage => b"\x15\x03\x01\x00\x02\x02\x50 this is not HTTP\r\n\r\n",
        Behavior::Half => b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nhalf an",
        Behavior::Hang | Behavior::HangUp => return None,
    })
}

pub fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let method = words.next()?.to_owned();
    assert!(matches!(method.as_str(), "GET" | "POST"), "{lines:?}");
    let path = words.next()?.to_owned();
    let headers: Vec<_> = lines[1..].iter().filter_map(|line| line.split_once(':')).collect();
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, v)| v.parse().ok());
    assert!(length.is_some() || method == "GET", "a Content-Length");
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8(body).expect("a body of text") })
}
