//! The client of one request: whether it is still there, and the chunks that it is sent.

use std::io::Write;
use std::net::TcpStream;
use std::time::SystemTime;

use rustix::net::{RecvFlags, recv};
use serde_json::Value;

use crate::dates::http_date;

#[derive(Debug)]
pub struct Client<'a>(pub &'a TcpStream);

impl Client<'_> {
    /// Whether it has hung up.
    pub fn is_gone(&self) -> bool {
        let read = recv(self.0, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        match read {
            Ok((bytes, _)) => bytes == 0,
            Err(why) => why != rustix::io::Errno::AGAIN,
        }
    }

    /// The head of a stream.
    pub fn begin(&self) {
        let date = http_date(SystemTime::now());
        self.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: {date}\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    /// A line in a chunk of its own.
    pub fn line(&self, line: &Value) {
        let line = format!("{line}\n");
        self.send(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes());
    }

    pub fn end(&self) {
        self.send(b"0\r\n\r\n");
    }

    /// A client that is gone is noticed by [`Client::is_gone`].
    fn send(&self, bytes: &[u8]) {
        let mut out = self.0;
        let _ = out.write_all(bytes);
    }
}
