//! A connection that notices how its peer ended it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

/// The peer closed a kept connection before the first byte of an answer.
#[derive(Debug)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer closed a kept connection without an answer")
    }
}

impl StdError for Closed {}

/// The peer answered plain HTTP with a TLS alert.
#[derive(Debug)]
pub(super) struct SpeaksTls;

impl fmt::Display for SpeaksTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its port expects TLS")
    }
}

impl StdError for SpeaksTls {}

/// The first bytes of a TLS alert record.
const ALERT: [u8; 2] = [0x15, 3];

#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn Transport>,
    /// Requests answered with at least one byte.
    answered: usize,
    /// Bytes were received since the last ones were sent.
    received: bool,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Transport>) -> Self {
        Self { inner, answered: 0, received: false }
    }

    /// What an error means while the first byte of an answer is awaited.
    fn closed_error(&self, why: Error) -> Error {
        let gone = matches!(&why, Error::Io(io) if matches!(
            io.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
        ));
        if gone && self.awaits_answer_on_kept_connection() { closed() } else { why }
    }

    fn awaits_answer_on_kept_connection(&self) -> bool {
        self.answered > 0 && !self.received
    }
}

fn closed() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::ConnectionReset, Closed))
}

impl Transport for Watched {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if std::mem::take(&mut self.received) {
            self.answered += 1;
        }
        self.inner.transmit_output(amount, timeout).map_err(|why| self.closed_error(why))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let more = self.inner.await_input(timeout).map_err(|why| self.closed_error(why))?;
        if !more && self.awaits_answer_on_kept_connection() {
            return Err(closed());
        }
        if more && !self.received {
            let plain = !self.inner.is_tls();
            if plain && self.inner.buffers().input().starts_with(&ALERT) {
                return Err(Error::Io(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls)));
            }
            self.received = true;
        }
        Ok(more)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
