//! OLLAMA_…: where Ollama is, and the login of a proxy in front of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::error::ConfigError;
use crate::config::login::Login;
use crate::config::secret::Secret;
use crate::config::tls::TlsRule;
use crate::config::url::HttpUrl;
use crate::config::values::Values;

/// Where Ollama is, and the login of a proxy in front of it.
#[derive(Debug, Clone)]
pub(crate) struct OllamaConfig {
    /// Without user and password.
    pub(crate) url: HttpUrl,
    pub(crate) login: Option<Login>,
    /// OLLAMA_TOKEN_FILE: it is read again when the token is refused.
    pub(crate) token_file: Option<String>,
    pub(crate) tls: TlsRule,
}

pub(super) fn read(values: &mut Values) -> OllamaConfig {
    let (url, password) = HttpUrl::parse_with_login(values.text("OLLAMA_URL"))
        .unwrap_or_else(|_| unreachable!("its row checks it, and its default is a URL"));
    let token = values.secret("OLLAMA_TOKEN");
    if password.is_some() && token.is_some() {
        let message =
            "OLLAMA_TOKEN cannot be combined with user:password in OLLAMA_URL: a request carries one login; remove one";
        values.refuse(ConfigError::sentence("OLLAMA_TOKEN", message.into()));
    }
    let password = password.and_then(|password| {
        let encoded = Secret::new(STANDARD.encode(password));
        if encoded.is_none() {
            values.refuse(ConfigError::sentence("OLLAMA_URL", "OLLAMA_URL: the user:password is too long".into()));
        }
        encoded
    });
    OllamaConfig {
        url,
        login: password.map(Login::Password).or(token.map(Login::Token)),
        token_file: values.optional("OLLAMA_TOKEN_FILE").map(str::to_owned),
        tls: TlsRule::parse(values.text("OLLAMA_TLS")).unwrap_or(TlsRule::Verify),
    }
}
