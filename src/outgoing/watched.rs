//! A connection that knows how the peer ended it.

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

/// A TLS alert came where HTTP was spoken.
#[derive(Debug)]
pub(super) struct SpeaksTls;

impl fmt::Display for SpeaksTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its port speaks TLS")
    }
}

impl StdError for SpeaksTls {}

/// How the TLS record of an alert begins.
const ALERT: [u8; 2] = [0x15, 3];

#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn Transport>,
    /// Requests that were answered with a byte at least.
    answered: usize,
    /// Bytes have come since the last ones were sent.
    heard: bool,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Transport>) -> Self {
        Self { inner, answered: 0, heard: false }
    }

    /// What an error means to the one who waits for the first byte of an answer.
    fn judge(&self, why: Error) -> Error {
        let gone = matches!(&why, Error::Io(io) if matches!(
            io.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
        ));
        if gone && self.waits_on_a_kept_one() { closed() } else { why }
    }

    fn waits_on_a_kept_one(&self) -> bool {
        self.answered > 0 && !self.heard
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
        if std::mem::take(&mut self.heard) {
            self.answered += 1;
        }
        self.inner.transmit_output(amount, timeout).map_err(|why| self.judge(why))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let more = self.inner.await_input(timeout).map_err(|why| self.judge(why))?;
        if !more && self.waits_on_a_kept_one() {
            return Err(closed());
        }
        if more && !self.heard {
            let plain = !self.inner.is_tls();
            if plain && self.inner.buffers().input().starts_with(&ALERT) {
                return Err(Error::Io(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls)));
            }
            self.heard = true;
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
