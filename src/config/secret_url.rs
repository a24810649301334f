//! URLs that are secrets: whoever knows the address of a webhook or a push monitor can write to it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::login::Login;
use crate::config::secret::Secret;
use crate::config::url::{HttpUrl, UrlError};

/// What is replaced when a heartbeat is sent. No other URL has braces.
pub(crate) const PLACEHOLDERS: [&str; 2] = ["{status}", "{message}"];

/// A shorter part of a path is a word, such as `api`.
const SHORTEST_SECRET: usize = 6;

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

    /// The URL of an ntfy server, and the topic that follows it. None: there is not a valid topic.
    pub(crate) fn ntfy_topic(&self) -> Option<(String, String)> {
        let (path, query) = self.url.split_at(self.url.find('?').unwrap_or(self.url.len()));
        let (root, topic) = path.trim_end_matches('/').rsplit_once('/')?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let fits = !root.ends_with(['/', ':']) && (1..=64).contains(&topic.len()) && topic.bytes().all(valid);
        fits.then(|| (format!("{root}/{query}"), topic.to_owned()))
    }

    /// Others on the network can read it: it is sent without TLS, and neither to this machine nor to a private address.
    pub(crate) fn is_exposed(&self) -> bool {
        let origin = self.shown.trim_end_matches("/…");
        HttpUrl::parse(origin).is_ok_and(|url| !url.is_https() && !url.is_private())
    }

    /// True where `text` has a part of what is secret in it: an answer may repeat what was sent.
    pub(crate) fn is_part_of(&self, text: &str) -> bool {
        let origin = self.shown.trim_end_matches('…');
        let login = self.authorization().unwrap_or_default();
        let encoded = login.split(' ').nth(1).unwrap_or_default();
        let plain = STANDARD.decode(encoded).ok().and_then(|plain| String::from_utf8(plain).ok()).unwrap_or_default();
        let path = self.url.get(origin.len()..).unwrap_or_default();
        let parts = path.split(['/', '?', '&', '=']).chain([encoded]).chain(plain.split(':'));
        parts.filter(|part| part.len() >= SHORTEST_SECRET).any(|part| text.contains(part))
    }

    /// `text` with `…` where it repeats the login as it is sent.
    pub(crate) fn without_login(&self, text: &str) -> String {
        let login = self.authorization().unwrap_or_default();
        match login.split_once(' ') {
            Some((_, secret)) if secret.len() >= SHORTEST_SECRET => text.replace(secret, "…"),
            _ => text.to_owned(),
        }
    }

    /// `host:port`, as a connection needs it.
    pub(crate) fn address(&self) -> String {
        let (scheme, rest) = self.shown.split_once("://").unwrap_or_default();
        let authority = rest.trim_end_matches("/…");
        let with_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        match (with_port, scheme) {
            (true, _) => authority.to_owned(),
            (false, "https") => format!("{authority}:443"),
            (false, _) => format!("{authority}:80"),
        }
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

#[test]
fn a_topic_is_the_end_of_the_path() {
    #[track_caller]
    fn check(text: &str, expect: Option<(&str, &str)>) {
        let found = SecretUrl::parse(text).unwrap().ntfy_topic();
        assert_eq!(found, expect.map(|(root, topic)| (root.to_owned(), topic.to_owned())), "{text}");
    }
    check("https://ntfy.sh/gpus", Some(("https://ntfy.sh/", "gpus")));
    check("https://h:8/base/path/my_gpus-1/", Some(("https://h:8/base/path/", "my_gpus-1")));
    check("https://h/gpus?auth=QmVhcmVy", Some(("https://h/?auth=QmVhcmVy", "gpus")));
    for none in ["https://ntfy.sh", "https://ntfy.sh/", "https://h//", "https://h/a.b", "https://h/?topic=x"] {
        check(none, None);
    }
}

#[test]
fn a_connection_needs_a_port() {
    let address = |text: &str| SecretUrl::parse(text).unwrap().address();
    let all = ["https://h/x", "http://h", "https://u:p@h:8443/x:1", "http://[::1]/x", "http://[::1]:80"].map(address);
    assert_eq!(all, ["h:443", "h:80", "h:8443", "[::1]:80", "[::1]:80"]);
}

#[test]
fn what_is_secret_is_recognized_in_an_answer() {
    let url = SecretUrl::parse("https://u:p4ssword@hooks/services/T0/secret99?key=abcdefgh").unwrap();
    for part in ["Cannot POST /services/T0/secret99", "abcdefgh!", "services", "dTpwNHNzd29yZA==", "not p4ssword"] {
        assert!(url.is_part_of(part), "{part}");
    }
    for other in ["no_service", "hooks is down", "T0", ""] {
        assert!(!url.is_part_of(other), "{other}");
    }
}
