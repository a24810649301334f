//! The values of ORCH_TLS, OLLAMA_TLS, NOTIFY_TLS and PEERS_TLS.

use crate::config::setting::Kind;

/// How a server's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsRule {
    /// With the roots in this program.
    Verify,
    Insecure,
    /// Path of a PEM file with the roots to trust.
    Ca(String),
}

impl TlsRule {
    pub(super) const KIND: Kind = Kind::Other("verify, insecure or ca:/path.pem", |text| Self::parse(text).is_some());

    pub(super) fn parse(text: &str) -> Option<Self> {
        match (text, text.strip_prefix("ca:")) {
            ("verify", _) => Some(Self::Verify),
            ("insecure", _) => Some(Self::Insecure),
            (_, Some(path)) if !path.is_empty() => Some(Self::Ca(path.to_owned())),
            _ => None,
        }
    }
}
