//! The base URLs of the settings: absolute, http or https, without query and fragment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `http[s]://host[:port][/path]` without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl(String);

/// Why a text is not a usable base URL. Display goes on after the URL: `must …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UrlError {
    Scheme,
    Host,
    /// An IPv6 address without brackets: how it should be written.
    Brackets(String),
    Port,
    UserInfo,
    Login,
    QueryOrFragment,
    Characters,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brackets(should) => return write!(f, "must have its IPv6 address in brackets: {should}"),
            Self::Scheme => "must be a URL with http:// or https://, such as http://host:9876",
            Self::Host => "must have a valid host name, such as http://host:9876",
            Self::Port => "must have a port from 1 to 65535",
            Self::UserInfo => "must not hold user:password, which would be sent as a second credential",
            Self::Login => {
                "must have the special characters of its user:password as %XX, such as %40 for @ and %2F for /"
            }
            Self::QueryOrFragment => "must not have a query (?) or fragment (#): it is a base URL, paths are appended",
            Self::Characters => "must be a URL of visible ASCII characters",
        })
    }
}

impl HttpUrl {
    /// # Errors
    /// What is wrong with `text`, as one sentence by Display.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        if !text.bytes().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        }) {
            return Err(UrlError::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(UrlError::Scheme);
        }
        if rest.contains(['?', '#']) {
            return Err(UrlError::QueryOrFragment);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        if let Some(should) = bracketed(authority) {
            return Err(UrlError::Brackets(format!("{scheme}://{should}{path}")));
        }
        // A Kubernetes manifest cannot know which family a node's address has: `http://[$(NODE_ADDRESS)]:9876` fits both.
        let authority = &without_brackets(authority);
        // Only a bracketed IPv6 address has colons of its own.
        let host_end = authority.rfind(']').map_or(0, |end| end + 1);
        let port_at = authority[host_end..].find(':').map(|at| at + host_end);
        let (host, port) = authority.split_at(port_at.unwrap_or(authority.len()));
        let bracketed =
            host.starts_with('[') && host.ends_with(']') && host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok();
        let named =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !(bracketed || named) {
            return Err(UrlError::Host);
        }
        if let Some(port) = port.strip_prefix(':')
            && !port.parse::<u16>().is_ok_and(|p| p != 0)
        {
            return Err(UrlError::Port);
        }
        Ok(Self(format!("{scheme}://{authority}{}", path.trim_end_matches('/'))))
    }

    /// The same with `user:password@` in front of the host: the URL without it, and its bytes.
    ///
    /// # Errors
    /// What is wrong with `text`.
    pub(crate) fn parse_with_login(text: &str) -> Result<(Self, Option<Vec<u8>>), UrlError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok((Self::parse(text)?, None)) };
        let Some((login, host)) = rest.rsplit_once('@') else { return Ok((Self::parse(text)?, None)) };
        let url = Self::parse(&format!("{scheme}://{host}"))?;
        let mut parts = login.splitn(2, ':').map(percent_decoded);
        let user = parts.next().flatten().filter(|user| !user.is_empty() && !user.contains(&b':'));
        let password = parts.next().unwrap_or(Some(Vec::new()));
        let (user, password) = user.zip(password).ok_or(UrlError::Login)?;
        Ok((url, Some([&user[..], b":", &password[..]].concat())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of `path` (with its leading slash) below this base.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The path: empty, or with a leading slash and without one at its end.
    pub(crate) fn path(&self) -> &str {
        self.parts().2
    }

    /// Scheme, host and port alone.
    pub(crate) fn origin(&self) -> &str {
        &self.0[..self.0.len() - self.path().len()]
    }

    /// Scheme, host with port, and path.
    fn parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        (scheme, authority, path)
    }

    /// Why other machines cannot send anything there; None: the URL shows no reason.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        match self.scope() {
            Scope::Anywhere => None,
            Scope::ThisMachine => Some("only orchestrators on this machine can send jobs there"),
            Scope::Nowhere => Some("it stands for all addresses of a machine: an orchestrator would call itself"),
        }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// True when both name the same server and path.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let ((scheme, own, path), (other_scheme, theirs, other_path)) = (self.parts(), other.parts());
        let usual = if scheme == "https" { ":443" } else { ":80" };
        let bare = |authority: &str| authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase();
        (scheme, bare(own), path) == (other_scheme, bare(theirs), other_path)
    }

    /// Without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let authority = self.parts().1;
        match authority.strip_prefix('[') {
            Some(address) => address.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        }
    }

    /// Judging by the host itself: names are not resolved.
    pub(crate) fn scope(&self) -> Scope {
        let host = self.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
        match address {
            Ok(address) if address.is_unspecified() => Scope::Nowhere,
            Ok(address) if address.is_loopback() => Scope::ThisMachine,
            Ok(_) => Scope::Anywhere,
            Err(_) if host == "localhost" || host.ends_with(".localhost") => Scope::ThisMachine,
            // The C library's short forms of addresses.
            Err(_) if host == "0" => Scope::Nowhere,
            Err(_) if host.starts_with("127.") && host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                Scope::ThisMachine
            }
            Err(_) => Scope::Anywhere,
        }
    }

    /// An address or a name of this machine or of a private network. A name without a dot is one of a container or a
    /// local network.
    pub(crate) fn is_private(&self) -> bool {
        let host = self.host();
        match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
            }
            Err(_) => self.scope() == Scope::ThisMachine || !host.trim_end_matches('.').contains('.'),
        }
    }

    /// A link-local address, where clouds have their metadata servers.
    pub(crate) fn is_link_local(&self) -> bool {
        match self.host().parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
            Err(_) => false,
        }
    }
}

/// Who can reach a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Anywhere,
    /// A loopback address.
    ThisMachine,
    /// The unspecified address: a server can listen there, no client can connect to it.
    Nowhere,
}

/// How an IPv6 address without brackets should be written. Whether its last part is a port cannot be determined: it is
/// read as one if the part before it is an address.
fn bracketed(authority: &str) -> Option<String> {
    let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let with_port = authority.rsplit_once(':').filter(|(host, port)| is_v6(host) && port.parse::<u16>().is_ok());
    match with_port {
        Some((host, port)) => Some(format!("[{host}]:{port}")),
        None => is_v6(authority).then(|| format!("[{authority}]")),
    }
}

/// `[10.0.0.5]:9876` as `10.0.0.5:9876`; everything else as it is.
fn without_brackets(authority: &str) -> String {
    let parts = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match parts.filter(|(host, _)| host.parse::<Ipv4Addr>().is_ok()) {
        Some((host, port)) => format!("{host}{port}"),
        None => authority.to_owned(),
    }
}

/// None: a character in it must be written as %XX.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok().filter(|two| !two.contains('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'/' | b'?' | b'#' | b'@' => return None,
            _ if byte.is_ascii_graphic() => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

/// A URL without what is in front of its host, which may be a password.
pub(crate) fn masked(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}

#[test]
fn base_urls() {
    #[track_caller]
    fn check(text: &str, expect: Result<&str, UrlError>) {
        assert_eq!(HttpUrl::parse(text).map(|url| url.0), expect.map(str::to_owned), "{text}");
    }
    let path = |text| HttpUrl::parse(text).map(|url| url.path().to_owned());
    assert_eq!((path("http://h:1/"), path("http://h/a/b/")), (Ok(String::new()), Ok("/a/b".into())));
    check("http://h", Ok("http://h"));
    check("HTTPS://h:8935/", Ok("https://h:8935"));
    check("http://h/base/v1//", Ok("http://h/base/v1"));
    check("http://[::1]:80", Ok("http://[::1]:80"));
    check("http://[10.0.0.5]:9876/", Ok("http://10.0.0.5:9876"));
    check("http://[10.0.0.5]", Ok("http://10.0.0.5"));
    let brackets = |should: &str| Err(UrlError::Brackets(should.into()));
    check("http://2600:1f13:abcd:1::a:9876", brackets("http://[2600:1f13:abcd:1::a]:9876"));
    check("https://2600:1f13:abcd:1::a/x", brackets("https://[2600:1f13:abcd:1::a]/x"));
    check("http://1:2:3:4:5:6:7:8:9876", brackets("http://[1:2:3:4:5:6:7:8]:9876"));
    check("http://::1", brackets("http://[::1]"));
    check("http://[10.0.0.5", Err(UrlError::Host));
    check("http://[10.0.0]:1", Err(UrlError::Host));
    check("http://[h]:1", Err(UrlError::Host));
    check("h:80", Err(UrlError::Scheme));
    check("ftp://h", Err(UrlError::Scheme));
    check("http://", Err(UrlError::Host));
    check("http://[zz]", Err(UrlError::Host));
    check("http://a,b", Err(UrlError::Host));
    check("http://h:0", Err(UrlError::Port));
    check("http://h:x", Err(UrlError::Port));
    check("http://h:", Err(UrlError::Port));
    assert_eq!(HttpUrl::parse("https://h:1/a/b").unwrap().origin(), "https://h:1");
    check("http://u:p@h", Err(UrlError::UserInfo));
    check("http://h/?a", Err(UrlError::QueryOrFragment));
    check("http://h#a", Err(UrlError::QueryOrFragment));
    check(" http://h", Err(UrlError::Characters));
    check("http://ü", Err(UrlError::Characters));
}

#[test]
fn where_a_url_leads() {
    #[track_caller]
    fn check(host: &str, expect: Scope) {
        for url in [format!("http://{host}"), format!("https://{host}:9876/base")] {
            assert_eq!(HttpUrl::parse(&url).unwrap().scope(), expect, "{url}");
        }
    }
    for host in ["localhost", "LOCALHOST.", "gpu.localhost", "127.0.0.1", "127.9.9.9", "127.1", "[::1]"] {
        check(host, Scope::ThisMachine);
    }
    for host in ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]"] {
        check(host, Scope::ThisMachine);
    }
    for host in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "0"] {
        check(host, Scope::Nowhere);
    }
    for host in ["gpu-1", "127.example.com", "10.0.0.1", "[fe80::1]", "[::2]", "localhost.example"] {
        check(host, Scope::Anywhere);
    }
}

#[test]
fn the_same_server_in_other_words() {
    let url = |text: &str| HttpUrl::parse(text).unwrap();
    assert!(url("https://O.example:443/").is_same(&url("https://o.example")));
    assert!(url("http://o:80/base").is_same(&url("http://o/base")));
    for (one, other) in [("http://o", "https://o"), ("https://o:80", "https://o"), ("http://o/a", "http://o/A")] {
        assert!(!url(one).is_same(&url(other)), "{one} {other}");
    }
    assert!(url("http://169.254.169.254").is_link_local() && url("http://[fe80::1]:1").is_link_local());
    assert!(!url("http://o").is_link_local());
}

#[test]
fn private_addresses_and_names_are_known() {
    let private = |host: &str| HttpUrl::parse(&format!("http://{host}")).unwrap().is_private();
    for host in ["127.0.0.1", "10.1.2.3:80", "192.168.0.1", "[::1]", "[fd00::1]", "localhost", "ntfy", "a.localhost"] {
        assert!(private(host), "{host}");
    }
    for host in ["8.8.8.8", "ntfy.sh", "[2001:db8::1]"] {
        assert!(!private(host), "{host}");
    }
}
