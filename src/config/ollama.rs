//! Where Ollama is, and what a proxy before it wants.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{ConfigError, Lookup, Parsed, Secret, TlsRule};
use crate::config::url::HttpUrl;

/// Where Ollama is, and what a proxy before it wants.
#[derive(Debug, Clone)]
pub(crate) struct OllamaConfig {
    /// Without user and password.
    pub(crate) url: HttpUrl,
    pub(crate) login: Option<Login>,
    /// OLLAMA_TOKEN_FILE: it is read again when the token is refused.
    pub(crate) token_file: Option<String>,
    pub(crate) tls: TlsRule,
}

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

pub(super) fn parse(get: &Lookup<'_>) -> Parsed<OllamaConfig> {
    let text = get.with_default("OLLAMA_URL");
    let (url, password) = HttpUrl::parse_with_login(&text).map_err(|why| get.url_error("OLLAMA_URL", &text, &why))?;
    let token = get.secret("OLLAMA_TOKEN")?;
    let login = match (password, token) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::plain(
                "OLLAMA_TOKEN and a user:password in OLLAMA_URL are both set, but a request carries one login: keep one"
                    .into(),
            ));
        }
        (Some(password), None) => Some(Login::Password(
            Secret::new(STANDARD.encode(password))
                .ok_or_else(|| ConfigError::plain("OLLAMA_URL: the user:password is too long".into()))?,
        )),
        (None, token) => token.map(Login::Token),
    };
    Ok(OllamaConfig {
        url,
        login,
        token_file: get.optional("OLLAMA_TOKEN_FILE"),
        tls: TlsRule::parse(get, "OLLAMA_TLS")?,
    })
}
