//! ureq's errors in words for operators.

use std::io;

use ureq::{Error, Timeout};

use super::watched::SpeaksTls;
use crate::sys::resolver::{Found, Unresolved};
use crate::sys::text::io_words;

/// The cause of an error, where it is not the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Name,
    /// Plain HTTP was sent to a TLS port.
    SpeaksTls,
    /// TLS was sent to a plain port.
    SpeaksPlain,
    Untrusted,
    Other,
}

impl Cause {
    pub(crate) fn of(why: &Error) -> Self {
        // ureq wraps rustls's errors in I/O errors: only their text distinguishes them.
        let text = |part: &str| matches!(why, Error::Io(_) | Error::Rustls(_)) && why.to_string().contains(part);
        if is::<Unresolved>(why) || is::<Stale>(why) || matches!(why, Error::HostNotFound) {
            Self::Name
        } else if is::<SpeaksTls>(why) {
            Self::SpeaksTls
        } else if text("InvalidContentType") {
            Self::SpeaksPlain
        } else if text("certificate") {
            Self::Untrusted
        } else {
            Self::Other
        }
    }
}

/// The error in words, without ureq's own classes.
pub(crate) fn words(why: &Error) -> String {
    match why {
        _ if Cause::of(why) == Cause::SpeaksPlain => "its port does not speak TLS".into(),
        Error::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => format!("connection closed: {why}"),
        Error::Io(why) => io_words(why),
        Error::Other(why) => why.to_string(),
        Error::Rustls(why) => why.to_string(),
        Error::Timeout(Timeout::Connect) => "connection timed out".into(),
        Error::Timeout(Timeout::Global) => "timed out".into(),
        Error::Timeout(step) => format!("timed out ({step})"),
        Error::Protocol(why) => format!("invalid HTTP answer: {why}"),
        Error::HostNotFound => "the name has no suitable address".into(),
        why => why.to_string(),
    }
}

/// Whether the error is one of ours, of this type: ureq passes them on inside an I/O error.
pub(super) fn is<T: std::error::Error + 'static>(why: &Error) -> bool {
    matches!(why, Error::Io(io) if io.get_ref().is_some_and(|inner| inner.is::<T>()))
}

pub(super) fn not_connected(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::NotConnected, why))
}

/// The addresses of an earlier look-up do not answer, and the name cannot be resolved now.
#[derive(Debug)]
pub(super) struct Stale(String);

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stale {}

impl Stale {
    pub(super) fn explain(why: Error, found: Found) -> Error {
        let Some(unresolved) = found.old else { return why };
        let last: Vec<String> = found.addresses.iter().map(|address| address.ip().to_string()).collect();
        let last = last.join(", ");
        not_connected(Self(format!("{unresolved}. Its last address {last} does not answer: {}", words(&why))))
    }
}
