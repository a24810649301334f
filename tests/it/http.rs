//! A client that sends exactly the bytes it is given, and reads answers strictly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::TIMEOUT;

#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The code of an error that has all fields of the contract.
    #[track_caller]
    pub fn code(&self) -> String {
        let body = self.json();
        assert_eq!(body["status"], "error", "{self:?}");
        assert_eq!(body["capability"], "gpu-check", "{self:?}");
        assert!(body["timestamp"].is_f64(), "{self:?}");
        assert!(body["error"].as_str().is_some_and(|e| !e.is_empty()), "{self:?}");
        body["code"].as_str().expect("a code").to_owned()
    }
}

/// One connection that stays open between requests.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).expect("the worker accepts")
    }

    /// Where perhaps no server listens.
    pub fn try_open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn of(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Bytes as they are; a peer that is gone already is the reader's finding.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The next final answer, `100 Continue` skipped.
    pub fn answer(&mut self) -> std::io::Result<Response> {
        loop {
            let answer = self.any_answer(false)?;
            if answer.status != 100 {
                return Ok(answer);
            }
        }
    }

    /// The next answer to a HEAD: its length is announced, its body not sent.
    pub fn answer_to_head(&mut self) -> std::io::Result<Response> {
        self.any_answer(true)
    }

    /// The next answer, an interim one included.
    pub fn any_answer(&mut self, head_only: bool) -> std::io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status: u16 = status.ok_or_else(|| bad(format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("no header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if head_only || status < 200 || status == 204 {
            return Ok(response);
        }
        // Every answer of the worker has a length: chunks or a body until the end would be a finding.
        // A 304 has no body, and no length of one.
        let length = if response.status == 304 {
            Some(0)
        } else {
            response.header("content-length").and_then(|l| l.parse().ok())
        };
        let length: usize = length.ok_or_else(|| bad(format!("no Content-Length: {response:?}")))?;
        response.body.resize(length, 0);
        self.0.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// True when the peer has closed and sent nothing more.
    pub fn closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 1]), Ok(0))
    }

    /// The same without waiting.
    pub fn has_ended(&self) -> bool {
        let stream = self.0.get_ref();
        stream.set_nonblocking(true).expect("it can be set");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("it can be set");
        !seen.is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.0.by_ref().take(1 << 20).read_until(b'\n', &mut line)?;
        let text = line.strip_suffix(b"\r\n").ok_or_else(|| bad(format!("the answer ends in a line: {line:?}")))?;
        String::from_utf8(text.to_vec()).map_err(|why| bad(why.to_string()))
    }
}

fn bad(why: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

/// One request on a connection of its own.
#[track_caller]
pub fn request(addr: SocketAddr, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
    let mut connection = Connection::open(addr);
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    connection.send(&bytes).expect("the worker reads");
    let answer = if method == "HEAD" { connection.answer_to_head() } else { connection.answer() };
    answer.unwrap_or_else(|why| panic!("{method} {target}: {why}"))
}

/// Sends the bytes as they are and reads one answer.
#[track_caller]
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> Response {
    let mut connection = Connection::open(addr);
    connection.send(bytes).expect("the worker reads");
    connection
        .answer()
        .unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)])))
}
