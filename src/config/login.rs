//! The Authorization header of a request: a password or a token.

use crate::config::secret::Secret;

/// What is sent in the Authorization header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// `user:password`, in base64; sent as Basic.
    Password(Secret),
    /// Sent as Bearer.
    Token(Secret),
}

impl Login {
    pub(crate) fn header(&self) -> String {
        match self {
            Self::Password(encoded) => format!("Basic {}", encoded.expose()),
            Self::Token(token) => format!("Bearer {}", token.expose()),
        }
    }

    /// The setting that a login at Ollama comes from.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::Password(_) => "the user:password of OLLAMA_URL",
            Self::Token(_) => "OLLAMA_TOKEN",
        }
    }
}
