//! What the error of a pull means for the operator. The whole text is judged: its cause stands at the end, behind a URL
//! of several hundred characters.

/// Characters of an error that are shown.
const MAX_ERROR: usize = 300;
/// A URL up to this length is shown as it is, less its query.
const MAX_URL: usize = 80;
/// What is shown of a longer one's host and of its last part.
const MAX_PART: usize = 64;

/// Why a pull came to no good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullError {
    pub(crate) why: String,
    pub(crate) cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// What came has another digest: Ollama throws it away, and the next try loads all of it again.
    WrongBytes,
    /// The registry ended the transfer; the next try goes on where it stopped.
    Cut,
    Other,
}

impl PullError {
    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: Cause::Other }
    }
}

/// An error of Ollama's with what it means for the operator. The texts are those of public reports.
pub(crate) fn explain(error: &str) -> PullError {
    let shown = crate::sys::text::middle(&with_short_urls(error), MAX_ERROR);
    // Neither a URL nor a digest says anything of the cause, but both can hold its words.
    let opaque = |word: &str| is_url(word) || is_digest(word);
    let plain: Vec<&str> = words(error).map(|word| if opaque(word) { "…:" } else { word }).collect();
    let plain = plain.join(" ");
    let status = status(&plain);
    let hint = HINTS.iter().find(|hint| {
        hint.statuses.iter().any(|known| Some(*known) == status) || hint.words.iter().any(|word| plain.contains(word))
    });
    let server_fault = status.is_some_and(|status| status >= 500);
    match hint {
        Some(hint) => PullError { why: format!("{} ({shown})", hint.meaning), cause: hint.cause },
        None if server_fault => PullError::other(format!("the registry has a fault of its own: wait ({shown})")),
        None => PullError::other(shown),
    }
}

struct Hint {
    /// Any of these in the text without its URLs.
    words: &'static [&'static str],
    statuses: &'static [u16],
    cause: Cause,
    meaning: &'static str,
}

/// The first that fits holds.
const HINTS: &[Hint] = &[
    Hint {
        words: &["digest mismatch"],
        statuses: &[],
        cause: Cause::WrongBytes,
        meaning: "wrong bytes arrive: a proxy, the disk or the RAM of Ollama's machine changes them; Ollama throws them away, and each try downloads everything again",
    },
    Hint {
        words: &["no space left on device", "disk quota exceeded", "not enough space"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "Ollama's disk is full: free space where its models are, the pull then goes on where it stopped",
    },
    Hint {
        words: &["read-only file system"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "the disk with Ollama's models is read-only: mount the volume for writing; if it was writable before, look at dmesg for disk errors",
    },
    Hint {
        words: &["permission denied"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "Ollama may not write where its models are: look at the owner of that folder",
    },
    Hint {
        words: &["newer version of Ollama"],
        statuses: &[412],
        cause: Cause::Other,
        meaning: "this model needs a newer Ollama",
    },
    Hint {
        words: &["manifest: file does not exist", "manifest unknown", "MANIFEST_UNKNOWN"],
        statuses: &[404],
        cause: Cause::Other,
        meaning: "the registry has no such model: look at its name and tag",
    },
    Hint {
        words: &["file does not exist"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "the registry lacks a part of this model: try another tag, or wait until the model is complete there",
    },
    Hint {
        words: &[
            "first record does not look like a TLS handshake",
            "server gave HTTP response to HTTPS client",
            "insecure protocol http",
        ],
        statuses: &[],
        cause: Cause::Other,
        meaning: "the registry speaks plain http, which the worker never asks for: pull the model once yourself, with \"insecure\": true in the body of Ollama's POST /api/pull",
    },
    Hint {
        words: &["certificate has expired", "is not yet valid"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "the registry's certificate is not valid at this time: look at the clock of Ollama's machine first",
    },
    Hint {
        words: &["x509:", "failed to verify certificate"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "Ollama does not trust the registry's certificate: if a proxy or firewall inspects TLS, give Ollama's container the certificate of that authority",
    },
    Hint {
        words: &["does not match original host", "invalid realm"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "the registry sends Ollama to another host for its sign-in (realm), and Ollama refuses that: name the model by the registry's own host, or look for a proxy in between",
    },
    Hint {
        words: &["Proxy Authentication Required", "proxyconnect"],
        statuses: &[407],
        cause: Cause::Other,
        meaning: "the proxy does not let Ollama out: look at HTTPS_PROXY of Ollama's container",
    },
    Hint {
        words: &["unauthorized", "access denied", "denied:"],
        statuses: &[401, 403],
        cause: Cause::Other,
        meaning: "the registry does not let Ollama have this model: look at its name, and whether it is private or gated",
    },
    Hint {
        words: &["Too Many Requests", "too many requests", "TOOMANYREQUESTS", "rate limit"],
        statuses: &[429],
        cause: Cause::Other,
        meaning: "the registry limits how much is asked of it: wait, the tries become rarer by themselves; other machines behind this address count as well",
    },
    Hint {
        words: &["no Location header in response"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "this Ollama takes models only from registries that redirect downloads to a storage host: use another registry, or copy the model's files",
    },
    Hint {
        words: &["no such host", "server misbehaving", "read udp", "Temporary failure in name resolution"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "Ollama cannot resolve the registry's name: look at the DNS of Ollama's container",
    },
    Hint {
        words: &["connection refused", "no route to host", "network is unreachable", "host is down"],
        statuses: &[],
        cause: Cause::Other,
        meaning: "Ollama does not reach the registry: look at its network, firewall and HTTPS_PROXY",
    },
    Hint {
        words: &[
            "i/o timeout",
            "TLS handshake timeout",
            "context deadline exceeded",
            "Client.Timeout",
            "connection timed out",
            "timeout awaiting",
        ],
        statuses: &[],
        cause: Cause::Cut,
        meaning: "the registry does not answer Ollama in time: look at the network, a firewall or a VPN; what has come is kept",
    },
    Hint {
        words: &[
            ": EOF",
            "unexpected EOF",
            "connection reset by peer",
            "broken pipe",
            "connection was forcibly closed",
            "stream error",
            "GOAWAY",
        ],
        statuses: &[],
        cause: Cause::Cut,
        meaning: "the connection to the registry was cut: look for a proxy, firewall or VPN in between; what has come is kept, and the next try goes on from there",
    },
];

/// The words of a text, with the quotes around them taken off.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|word| word.trim_start_matches(['"', '\'', '(', '\\']))
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

/// A hash as such or in a path.
fn is_digest(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_hexdigit()).any(|part| part.len() >= 12)
}

/// An HTTP status that is named as one: `401: {…}`, `status code 503`, or alone. `443:` in `127.0.0.1:443:` is a port.
fn status(plain: &str) -> Option<u16> {
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let number = word.trim_end_matches([':', ',', ';', '.', ')', '"']).rsplit(['=', '(']).next()?;
        let status = number.parse::<u16>().ok().filter(|n| number.len() == 3 && (400..600).contains(n))?;
        let before = at.checked_sub(1).map_or(":", |at| words[at]);
        let named =
            ["status", "code", "HTTP", "HTTP/1.1", "HTTP/2", "HTTP/2.0"].contains(&before) || word.contains('=');
        // `16 404 MB` is a size: a status stands behind a colon, or before one.
        (named || before.ends_with(':') || word.ends_with(':')).then_some(status)
    })
}

/// The text with each URL shortened. Queries are left out whole: they hold signatures.
fn with_short_urls(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = ["http://", "https://"].iter().filter_map(|scheme| rest.find(scheme)).min() {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| c.is_whitespace() || "\"'\\<>`".contains(c)).unwrap_or(from.len());
        let url = from[..end].trim_end_matches([':', ',', ';', '.', ')']);
        shown.push_str(before);
        shown.push_str(&short_url(url));
        rest = &from[url.len().max(1)..];
    }
    shown + rest
}

fn short_url(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A password does not belong there, but may be.
    let host = host.rsplit('@').next().unwrap_or_default();
    let slash = if rest.contains('/') { "/" } else { "" };
    let whole = format!("{scheme}://{host}{slash}{path}");
    if whole.chars().count() <= MAX_URL {
        return whole;
    }
    let last = crate::sys::text::middle(path.rsplit('/').next().unwrap_or_default(), MAX_PART);
    let between = if path.contains('/') { "…/" } else { "" };
    format!("{scheme}://{}/{between}{last}", crate::sys::text::middle(host, MAX_PART))
}

#[cfg(test)]
mod tests;
