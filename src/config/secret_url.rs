//! URLs that are secrets: whoever knows the address of a webhook or a push monitor can write to it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::ollama::Login;
use crate::config::secret::Secret;
use crate::config::url::{HttpUrl, UrlError};

/// What is replaced when a heartbeat is sent. No other URL has braces.
pub(crate) const PLACEHOLDERS: [&str; 2] = ["{status}", "{message}"];

/// `http[s]://[login@]host[:port][/path][?query]`. Its Debug form and [`SecretUrl::shown`] have only the host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretUrl {
    /// Without the login.
    url: String,
    shown: String,
    login: Option<Login>,
}

impl SecretUrl {
    /// `user:password@` in front of the host is sent as Basic, `:token@` as Bearer.
    ///
    /// # Errors
    /// What is wrong with `text`; it does not repeat it.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let plain = PLACEHOLDERS.iter().fold(text.to_owned(), |text, word| text.replace(word, "x"));
        if plain.contains('#') {
            return Err(UrlError::QueryOrFragment);
        }
        let (base, query) = plain.split_once('?').unwrap_or((&plain, ""));
        if !query.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Characters);
        }
        // `:token@` is read as a login whose user is `-`.
        let bearer = base.contains("://:") && base.contains('@');
        let base = if bearer { base.replacen("://:", "://-:", 1) } else { base.to_owned() };
        let (parsed, login) = HttpUrl::parse_with_login(&base)?;
        let login = match login {
            None => None,
            Some(bytes) => Some(login_of(&bytes, bearer).ok_or(UrlError::Login)?),
        };
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        Ok(Self {
            url: format!("{}{}", parsed.origin(), &rest[path_at..]),
            shown: format!("{}/…", parsed.origin()),
            login,
        })
    }

    /// The whole URL, for the one request that needs it. It has placeholders where the setting has them.
    pub(crate) fn expose(&self) -> &str {
        &self.url
    }

    /// Scheme, host and port, for logs and reports.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The Authorization header; None: it is not sent.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.login.as_ref().map(Login::header)
    }
}

/// `bytes`: `user:password`, percent-decoded. None: a header cannot carry it.
fn login_of(bytes: &[u8], bearer: bool) -> Option<Login> {
    match bytes.strip_prefix(b"-:").filter(|_| bearer) {
        Some(token) => Secret::new(String::from_utf8(token.to_vec()).ok()?).map(Login::Token),
        None => Secret::new(STANDARD.encode(bytes)).map(Login::Password),
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[test]
fn only_the_host_is_shown() {
    #[track_caller]
    fn check(text: &str, url: &str, shown: &str, header: Option<&str>) {
        let read = SecretUrl::parse(text).unwrap();
        assert_eq!((read.expose(), read.shown(), read.authorization().as_deref()), (url, shown, header));
        assert_eq!(format!("{read:?}"), shown);
    }
    check("https://h/services/T/B/k", "https://h/services/T/B/k", "https://h/…", None);
    check("HTTPS://h:8443/hook/?a=b", "https://h:8443/hook/?a=b", "https://h:8443/…", None);
    check("http://h?a=b", "http://h?a=b", "http://h/…", None);
    check(
        "https://:tk_1@ntfy.example/gpus",
        "https://ntfy.example/gpus",
        "https://ntfy.example/…",
        Some("Bearer tk_1"),
    );
    check("https://u:p@h/x", "https://h/x", "https://h/…", Some("Basic dTpw"));
    check("https://-:p@h/x", "https://h/x", "https://h/…", Some("Basic LTpw"));
    let kuma = "https://k/api/push/T?status={status}&msg={message}&ping=";
    check(kuma, kuma, "https://k/…", None);
    for wrong in
        ["h/x", "ftp://h", "https://h/#x", "https://h/{other}", "https://h/a b", "https://:@h/", "https://h?q=\u{fc}"]
    {
        assert!(SecretUrl::parse(wrong).is_err(), "{wrong}");
    }
}
