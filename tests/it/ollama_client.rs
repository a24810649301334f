//! A client of Ollama: it reads streams line by line, and may hang up before the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::TIMEOUT;

/// A request that was sent; dropped, it hangs up.
#[derive(Debug)]
pub struct Call {
    reader: BufReader<TcpStream>,
    started: Instant,
}

/// The whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// One for each line of a stream, or one.
    pub lines: Vec<Value>,
    /// Until the first line.
    pub first: Duration,
    pub total: Duration,
}

impl Reply {
    pub fn last(&self) -> &Value {
        self.lines.last().expect("an answer has a line")
    }

    /// Ollama's own time of this name.
    pub fn time(&self, name: &str) -> Duration {
        Duration::from_nanos(self.last()[name].as_u64().unwrap_or_else(|| panic!("{name}: {self:?}")))
    }

    pub fn reloaded(&self) -> bool {
        self.time("load_duration") >= Duration::from_millis(200)
    }

    /// How long it waited for others.
    pub fn queue(&self) -> Duration {
        ["load_duration", "prompt_eval_duration", "eval_duration"]
            .iter()
            .fold(self.time("total_duration"), |rest, part| rest.saturating_sub(self.time(part)))
    }
}

impl Call {
    /// Without a body it is a GET.
    pub fn send(addr: SocketAddr, path: &str, body: Option<&Value>) -> Self {
        let started = Instant::now();
        let mut stream = TcpStream::connect(addr).expect("Ollama accepts");
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).unwrap();
        Self { reader: BufReader::new(stream), started }
    }

    /// Waits for the first byte.
    pub fn begins(&mut self) {
        assert!(!self.reader.fill_buf().expect("a byte in time").is_empty(), "the answer ends before its first byte");
    }

    /// Reads the answer to its end.
    #[track_caller]
    pub fn reply(self) -> Reply {
        self.try_reply().expect("a whole answer")
    }

    pub fn try_reply(mut self) -> std::io::Result<Reply> {
        let head = self.line()?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("not a status line: {head:?}")))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            length = header.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut lines = Vec::new();
        let mut first = None;
        loop {
            if chunked {
                let size = self.line()?;
                length = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
            }
            let mut bytes = vec![0; length];
            self.reader.read_exact(&mut bytes)?;
            if chunked {
                self.line()?;
            }
            if length == 0 {
                break;
            }
            first.get_or_insert_with(|| self.started.elapsed());
            lines.push(serde_json::from_slice(&bytes).map_err(std::io::Error::other)?);
            if !chunked {
                break;
            }
        }
        let total = self.started.elapsed();
        Ok(Reply { status, lines, first: first.unwrap_or(total), total })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| std::io::Error::other("it was cut"))?;
        Ok(line.to_owned())
    }
}
