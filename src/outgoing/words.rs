//! ureq's errors, as an operator may read them.

use std::io;

use ureq::{Error, Timeout};

use super::watched::SpeaksTls;
use super::{Stale, is};
use crate::sys::resolver::Unresolved;

/// What an error comes from, where something other than the peer is the cause.
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
        // ureq passes rustls's errors on inside of I/O errors: their text is all that tells them apart.
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

/// One sentence without ureq's own classes.
pub(crate) fn words(why: &Error) -> String {
    match why {
        _ if Cause::of(why) == Cause::SpeaksPlain => "its port does not speak TLS".into(),
        Error::Io(why) if why.kind() == io::ErrorKind::UnexpectedEof => format!("the connection was closed: {why}"),
        Error::Io(why) => why.to_string(),
        Error::Other(why) => why.to_string(),
        Error::Rustls(why) => why.to_string(),
        Error::Timeout(Timeout::Connect) => "no connection in time".into(),
        Error::Timeout(step) => format!("no answer in time ({step})"),
        Error::Protocol(why) => format!("its answer is not HTTP as it should be: {why}"),
        Error::HostNotFound => "the name has no address of the wanted kind".into(),
        why => why.to_string(),
    }
}
