//! A reverse proxy before Ollama that asks for a login. Its 401 has the form of nginx's auth_basic, its other refusals
//! are what a test gives it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::lock;

const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nServer: nginx\r\nContent-Type: text/html\r\nWWW-Authenticate: Basic realm=\"ollama\"\r\nContent-Length: 45\r\n\r\n<html><h1>401 Authorization Required</h1></ht";

#[derive(Default)]
struct State {
    /// The Authorization that is let through.
    wanted: Mutex<String>,
    /// Answers every request, with or without a login.
    instead: Mutex<Option<Vec<u8>>>,
    /// First lines of requests, each with its Authorization.
    seen: Mutex<Vec<(String, String)>>,
}

/// Its threads end with the test.
pub struct FakeLogin {
    addr: SocketAddr,
    state: Arc<State>,
}

impl FakeLogin {
    pub fn before(ollama: SocketAddr, wanted: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { addr: listener.local_addr().unwrap(), state: Arc::default() };
        proxy.want(wanted);
        let state = Arc::clone(&proxy.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&stream, ollama, &state));
            }
        });
        proxy
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn want(&self, authorization: &str) {
        authorization.clone_into(&mut lock(&self.state.wanted));
    }

    /// From now on each request is answered with these bytes.
    pub fn answer(&self, bytes: impl Into<Vec<u8>>) {
        *lock(&self.state.instead) = Some(bytes.into());
    }

    /// The logins that came with requests for this path.
    pub fn logins(&self, path: &str) -> Vec<String> {
        let seen = lock(&self.state.seen);
        seen.iter().filter(|(line, _)| line.contains(path)).map(|(_, login)| login.clone()).collect()
    }
}

/// One request and its answer; the connection ends with it.
fn serve(stream: &TcpStream, ollama: SocketAddr, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut login, mut length) = (String::new(), String::new(), 0);
    loop {
        let start = request.len();
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
        let line = request[start..].trim_end();
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => value.clone_into(&mut login),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            _ => {}
        }
        if line.is_empty() {
            break;
        }
    }
    let mut request = request.into_bytes();
    lock(&state.seen).push((String::from_utf8_lossy(&request).lines().next()?.to_owned(), login.clone()));
    reader.take(length).read_to_end(&mut request).ok()?;
    let mut out = stream;
    let instead = lock(&state.instead).clone();
    match instead {
        Some(bytes) => out.write_all(&bytes).ok()?,
        None if login != *lock(&state.wanted) => out.write_all(UNAUTHORIZED.as_bytes()).ok()?,
        None => {
            let mut inner = TcpStream::connect(ollama).ok()?;
            inner.write_all(&request).ok()?;
            // It answers, and ends with the request's end.
            inner.shutdown(Shutdown::Write).ok()?;
            std::io::copy(&mut inner, &mut out).ok()?;
        }
    }
    stream.shutdown(Shutdown::Both).ok()
}
