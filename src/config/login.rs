//! The Authorization header of a request: a password or a token.

use crate::config::secret::Secret;

/// What is sent in the Authorization header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// user:password of OLLAMA_URL, in base64.
    Password(Secret),
    /// OLLAMA_TOKEN.
    Token(Secret),
}

impl Login {
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Password(encoded) => format!("Basic {}", encoded.expose()),
            Self::Token(token) => format!("Bearer {}", token.expose()),
        }
    }

    /// Where it was set.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::Password(_) => "the user:password of OLLAMA_URL",
            Self::Token(_) => "OLLAMA_TOKEN",
        }
    }
}
