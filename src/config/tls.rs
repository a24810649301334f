//! ORCH_TLS and OLLAMA_TLS.

use super::{ConfigError, Lookup, Parsed};

/// How a server's certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsRule {
    /// By the roots in this program.
    Verify,
    Insecure,
    /// Path of a PEM file with the roots to trust.
    Ca(String),
}

impl TlsRule {
    pub(super) fn parse(get: &Lookup<'_>, name: &str) -> Parsed<Self> {
        let text = get.with_default(name);
        match (text.as_str(), text.strip_prefix("ca:")) {
            ("verify", _) => Ok(Self::Verify),
            ("insecure", _) => Ok(Self::Insecure),
            (_, Some(path)) if !path.is_empty() => Ok(Self::Ca(path.to_owned())),
            _ => Err(ConfigError::new(name, &text, "verify, insecure or ca:/path.pem is accepted")),
        }
    }
}
