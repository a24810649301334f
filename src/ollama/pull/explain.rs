//! What the error of a pull means for the operator. The whole text is searched: its cause comes last, after a URL of
//! several hundred characters.

/// Characters of an error that are shown.
const MAX_ERROR: usize = 300;
/// A URL up to this length is shown whole, without its query.
const MAX_URL: usize = 80;
/// Characters shown of a longer one's host and last part.
const MAX_PART: usize = 64;

/// Why a pull failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullError {
    pub(crate) why: String,
    pub(crate) cause: PullCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullCause {
    /// The digest does not match: Ollama discards the download, and the next try starts over.
    WrongBytes,
    /// The transfer was interrupted; the next try resumes.
    Cut,
    /// Ollama itself could not be reached, or stopped answering.
    NoAnswer,
    Other,
}

impl PullError {
    pub(crate) fn other(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: PullCause::Other }
    }

    pub(crate) fn no_answer(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: PullCause::NoAnswer }
    }
}

/// What an error of Ollama's means. The texts are from public reports.
pub(crate) fn explain(error: &str) -> PullError {
    let shown = crate::sys::text::middle(&with_short_urls(without_page(error)), MAX_ERROR);
    // URLs and digests say nothing about the cause, but may contain its words.
    let opaque = |word: &str| is_url(word) || is_digest(word);
    let plain: Vec<&str> = words(error).map(|word| if opaque(word) { "…:" } else { word }).collect();
    let plain = format!("\n{}\n", plain.join(" "));
    let status = status(&plain);
    let hint = HINTS.iter().find(|hint| {
        hint.statuses.iter().any(|known| Some(*known) == status) || hint.words.iter().any(|word| plain.contains(word))
    });
    let server_fault = status.is_some_and(|status| status >= 500);
    match hint {
        Some(hint) => PullError { why: format!("{} ({shown})", hint.meaning), cause: hint.cause },
        None if server_fault => PullError::other(format!("the registry has an internal error. Wait ({shown})")),
        None => PullError::other(shown),
    }
}

struct Hint {
    /// Any of these in the text, URLs left out. A line break is its start or its end.
    words: &'static [&'static str],
    statuses: &'static [u16],
    cause: PullCause,
    meaning: &'static str,
}

/// The first match counts.
const HINTS: &[Hint] = &[
    Hint {
        words: &["digest mismatch"],
        statuses: &[],
        cause: PullCause::WrongBytes,
        meaning: "the download is corrupted by a proxy, or by the disk or RAM of Ollama's machine. Ollama discards it, and each try downloads everything again",
    },
    Hint {
        words: &["no space left on device", "disk quota exceeded", "not enough space"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama's disk is full. Free space in its models directory; the pull will resume",
    },
    Hint {
        words: &["read-only file system"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama's models directory is read-only. Mount it writable; if it was writable before, check dmesg for disk errors",
    },
    Hint {
        words: &["input/output error", "stale NFS file handle", "structure needs cleaning"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "the disk of Ollama's models directory fails. Check dmesg, or the file server",
    },
    // Ollama signs its requests with it.
    Hint {
        words: &["id_ed25519", "ssh: no key found"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama cannot read its key, .ollama/id_ed25519. Check HOME and the file's owner, delete it if it is empty, and restart Ollama, which writes a missing one",
    },
    Hint {
        words: &["permission denied"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama may not write to its models directory. Check the owner of that directory",
    },
    // The name of a model that is there already, or nothing but the end of what was read.
    Hint {
        words: &["\nregistry.ollama.ai/", "\nhf.co/", "\nEOF\n"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama cannot read the manifest of a model, which may be another one's. Delete empty files in manifests/ of its models directory, or upgrade Ollama",
    },
    Hint {
        words: &["no such file or directory", "not a directory", "unexpected end of JSON input"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "a file in Ollama's models directory is gone or incomplete. Look for a second Ollama or a clean-up job there; if it happens again, delete the *-partial* files in blobs/",
    },
    Hint {
        words: &["newer version of Ollama"],
        statuses: &[412],
        cause: PullCause::Other,
        meaning: "this model needs a newer Ollama. Upgrade Ollama",
    },
    Hint {
        words: &["manifest: file does not exist", "manifest unknown", "MANIFEST_UNKNOWN"],
        statuses: &[404],
        cause: PullCause::Other,
        meaning: "the registry does not have this model. Check its name and tag",
    },
    Hint {
        words: &["file does not exist"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "the registry lacks a part of this model. Try another tag, or wait until the model is complete",
    },
    Hint {
        words: &[
            "first record does not look like a TLS handshake",
            "server gave HTTP response to HTTPS client",
            "insecure protocol http",
        ],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "the registry speaks plain HTTP, which the worker never requests. Pull the model once yourself: POST /api/pull to Ollama with \"insecure\": true",
    },
    Hint {
        words: &["certificate has expired", "is not yet valid"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "the registry's certificate is not valid at this time. Check the clock of Ollama's machine first",
    },
    Hint {
        words: &["x509:", "failed to verify certificate"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama does not trust the registry's certificate. If a proxy or firewall inspects TLS, add its CA certificate to Ollama's container",
    },
    Hint {
        words: &["does not match original host", "invalid realm"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "the registry redirects Ollama's sign-in to another host (realm), which Ollama rejects. Name the model by the registry's own host, or look for a proxy in between",
    },
    Hint {
        words: &["Proxy Authentication Required", "proxyconnect", "malformed HTTP"],
        statuses: &[407],
        cause: PullCause::Other,
        meaning: "the proxy does not serve Ollama. Check HTTPS_PROXY in Ollama's container, its http:// or https:// too",
    },
    // A web page where JSON is expected, or a 401 without the realm that a registry names.
    Hint {
        words: &["looking for beginning of value", "unsupported protocol scheme"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "a proxy, firewall or login page answers Ollama in the registry's place. Allow registry.ollama.ai and *.r2.cloudflarestorage.com there, or set HTTPS_PROXY in Ollama's container",
    },
    Hint {
        words: &["unauthorized", "access denied", "denied:"],
        statuses: &[401, 403],
        cause: PullCause::Other,
        meaning: "the registry denies Ollama this model. Check its name, and whether it is private or gated",
    },
    Hint {
        words: &["Too Many Requests", "too many requests", "TOOMANYREQUESTS", "rate limit"],
        statuses: &[429],
        cause: PullCause::Other,
        meaning: "the registry's rate limit is reached. Wait: retries become less frequent. Other machines behind this address count too",
    },
    Hint {
        words: &["no Location header in response"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "this Ollama supports only registries that redirect downloads to a storage host. Use another registry, or copy the model's files",
    },
    Hint {
        words: &["no such host", "server misbehaving", "read udp", "Temporary failure in name resolution"],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama cannot resolve the registry's name. Check DNS in Ollama's container",
    },
    Hint {
        words: &[
            "connection refused",
            "no route to host",
            "network is unreachable",
            "host is down",
            "cannot assign requested address",
        ],
        statuses: &[],
        cause: PullCause::Other,
        meaning: "Ollama cannot reach the registry. Check its network, firewall and HTTPS_PROXY",
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
        cause: PullCause::Cut,
        meaning: "the registry does not answer Ollama in time. Check the network, firewall and VPN; what was downloaded is kept",
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
            "max retries exceeded\n",
        ],
        statuses: &[],
        cause: PullCause::Cut,
        meaning: "the connection to the registry was cut. Look for a proxy, firewall or VPN in between; what was downloaded is kept, and the next try resumes",
    },
];

/// The text up to a web page in it.
fn without_page(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let page = ["<!doctype html", "<html"].iter().filter_map(|start| lower.find(start)).min();
    page.map_or(text, |at| text[..at].trim_end_matches([' ', ':', '\n', '\r']))
}

/// The words of a text, without leading quotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().map(|word| word.trim_start_matches(['"', '\'', '(', '\\']))
}

fn is_url(word: &str) -> bool {
    word.starts_with("http://") || word.starts_with("https://")
}

/// A hash, alone or in a path.
fn is_digest(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_hexdigit()).any(|part| part.len() >= 12)
}

/// An HTTP status named as such: `401: {…}`, `status code 503`, or alone. `443:` in `127.0.0.1:443:` is a port.
fn status(plain: &str) -> Option<u16> {
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let number = word.trim_end_matches([':', ',', ';', '.', ')', '"']).rsplit(['=', '(']).next()?;
        let status = number.parse::<u16>().ok().filter(|n| number.len() == 3 && (400..600).contains(n))?;
        let before = at.checked_sub(1).map_or(":", |at| words[at]);
        let named =
            ["status", "code", "HTTP", "HTTP/1.1", "HTTP/2", "HTTP/2.0"].contains(&before) || word.contains('=');
        // `16 404 MB` is a size: a status comes after a colon or before one.
        (named || before.ends_with(':') || word.ends_with(':')).then_some(status)
    })
}

/// The text with each URL shortened. Queries are left out: they contain signatures.
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
    // It may contain a password.
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
