//! A request's head: read whole, checked strictly, reduced to what is passed on.

use httparse::{Header, Request, Status};

use super::gzip::Accepted;
use super::refusal::Refusal;
use crate::sys::error_codes::ErrorCode;
use crate::sys::header_names;

/// Largest head, in bytes.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// The budget for large requests, or that for large answers, is spent.
pub(super) fn out_of_memory() -> Refusal {
    Refusal::new(ErrorCode::AtCapacity, "too many large requests are in progress; try again")
}

fn bad_request(message: &str) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, message)
}

fn bad_framing(message: &str) -> Refusal {
    Refusal::new(ErrorCode::BadFraming, message)
}

/// How the body is delimited.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// What of a head is used; nothing else is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Origin form in visible ASCII.
    pub(super) target: String,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
    /// The connection stays open after the answer.
    pub(super) keep_alive: bool,
    /// HTTP/1.0: a connection that stays open has to be announced.
    pub(super) old: bool,
    /// Those of [`header_names::PASSED`] that it has.
    pub(super) passed: Vec<(String, String)>,
    /// It carries the header of an orchestrator's proxy.
    pub(super) proxied: bool,
    /// The client takes answers that are compressed with gzip.
    pub(super) gzip: bool,
}

/// Bytes of the whole head at the start of `buf`, looking from `from` on; None when more must be read.
///
/// # Errors
/// Bytes that can never become a head, so that the connection does not wait for its end.
pub(super) fn end(buf: &[u8], from: usize) -> Result<Option<usize>, Refusal> {
    for at in from..buf.len() {
        match buf[at] {
            b'\n' if at == 0 || buf[at - 1] != b'\r' => {
                return Err(bad_request("a line of the request does not end in CR LF"));
            }
            b'\n' if at >= 3 && buf[at - 2] == b'\n' => return Ok(Some(at + 1)),
            b'\n' | b'\t' => {}
            b'\r' if at + 1 < buf.len() && buf[at + 1] != b'\n' => {
                return Err(bad_request("there is a CR without LF in the request"));
            }
            b'\r' => {}
            control if control < b' ' || control == 0x7f => {
                return Err(bad_request("this is not an HTTP/1 request; this port speaks plain HTTP, not TLS"));
            }
            _ => {}
        }
    }
    if buf.len() > MAX_HEAD { Err(too_large()) } else { Ok(None) }
}

fn too_large() -> Refusal {
    let message = format!("the request's headers are larger than {MAX_HEAD} bytes; send fewer");
    Refusal::new(ErrorCode::HeadTooLarge, message)
}

/// Parses a whole head.
///
/// # Errors
/// 400 or 431, with what is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    if bytes.len() > MAX_HEAD {
        return Err(too_large());
    }
    let mut few = [httparse::EMPTY_HEADER; 64];
    match reduce(bytes, &mut few) {
        // Rare, and bounded by MAX_HEAD: a header line has four bytes at least.
        Err(None) => {
            let mut many = vec![httparse::EMPTY_HEADER; MAX_HEAD / 4];
            reduce(bytes, &mut many).map_err(|why| why.unwrap_or_else(too_large))
        }
        done => done.map_err(|why| why.unwrap_or_else(too_large)),
    }
}

/// `Err(None)`: there are more headers than `headers` has room for.
fn reduce<'a>(bytes: &'a [u8], headers: &mut [Header<'a>]) -> Result<Head, Option<Refusal>> {
    let mut request = Request::new(headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(Some(bad_request("the request's head is incomplete"))),
        Err(httparse::Error::TooManyHeaders) => return Err(None),
        Err(why) => return Err(Some(bad_request(&format!("this is not an HTTP/1 request: {why}")))),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Some(bad_request("the request's head is incomplete")));
    };
    headline(method, target, version, request.headers).map_err(Some)
}

fn headline(method: &str, target: &str, version: u8, headers: &[Header<'_>]) -> Result<Head, Refusal> {
    let old = version == 0;
    let (mut hosts, mut close, mut stay, mut expects, mut proxied) = (0, false, false, false, false);
    let mut accepted = Accepted::default();
    let mut body = BodyHeaders::default();
    let mut passed = Vec::new();
    let mut seen = [false; header_names::PASSED.len()];
    for Header { name, value } in headers {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let has = |token: &str| tokens(value).any(|t| t.eq_ignore_ascii_case(token.as_bytes()));
        if is("host") {
            hosts += 1;
        } else if is("content-length") {
            body.lengths += 1;
            body.length = value;
        } else if is("transfer-encoding") {
            body.codings += tokens(value).count();
            body.chunked = has("chunked");
        } else if is("connection") {
            close |= has("close");
            stay |= has("keep-alive");
        } else if is("expect") {
            expects |= has("100-continue");
        } else if is(header_names::PROXIED) {
            proxied = true;
        } else if is("accept-encoding") {
            // Not passed on as text: most jobs have it, and need no copy of it.
            tokens(value).for_each(|element| accepted.see(element));
        } else if let Some(at) = header_names::PASSED.iter().position(|known| is(known))
            && !std::mem::replace(&mut seen[at], true)
            && let Some(value) = ascii(value)
        {
            passed.push((header_names::PASSED[at].to_owned(), value));
        }
    }
    if hosts > 1 || (hosts == 0 && !old) {
        return Err(bad_request("an HTTP/1.1 request has exactly one Host header"));
    }
    Ok(Head {
        method: method.to_owned(),
        target: origin_form(target)?,
        framing: body.framing(old)?,
        expects_continue: !old && expects,
        keep_alive: !close && (!old || stay),
        old,
        passed,
        proxied,
        gzip: accepted.takes_gzip(),
    })
}

/// The elements of a header that is a list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// What the headers say about the body.
#[derive(Default)]
struct BodyHeaders<'a> {
    lengths: usize,
    length: &'a [u8],
    codings: usize,
    /// One of the codings is.
    chunked: bool,
}

impl BodyHeaders<'_> {
    fn framing(&self, old: bool) -> Result<Framing, Refusal> {
        match (self.lengths, self.codings) {
            (0, 0) => Ok(Framing::Length(0)),
            (1, 0) => {
                let digits = std::str::from_utf8(self.length).ok();
                let digits = digits.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
                let length = digits.and_then(|v| v.parse().ok());
                length.map(Framing::Length).ok_or_else(|| bad_framing("Content-Length is not a number of bytes"))
            }
            (0, 1) if self.chunked && !old => Ok(Framing::Chunked),
            (0, _) => Err(bad_framing("the only transfer coding supported is HTTP/1.1's chunked")),
            // Even equal ones: another reader on the way may have taken the other.
            (_, 0) => Err(bad_framing("there is more than one Content-Length")),
            _ => Err(bad_framing("there are both Content-Length and Transfer-Encoding")),
        }
    }
}

/// Path and query of a target; what is not visible ASCII is percent-encoded, nothing is resolved.
fn origin_form(target: &str) -> Result<String, Refusal> {
    if target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(target.to_owned());
    }
    let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    let path = match lower.find("://") {
        Some(at) if matches!(&lower[..at], "http" | "https") => {
            let rest = &target[at + 3..];
            match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
                Some(at) => format!("/{}", &rest[at..]),
                None => "/".to_owned(),
            }
        }
        _ => target.to_owned(),
    };
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() { out.push(char::from(byte)) } else { out.push_str(&format!("%{byte:02X}")) }
    }
    if out.is_empty() { Err(bad_request("the request has no target")) } else { Ok(out) }
}

/// A header's value if it is printable ASCII; nothing else can match.
fn ascii(value: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(value).ok()?;
    value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)).then(|| value.trim().to_owned())
}

#[test]
fn ends_are_found_and_rubbish_is_refused_immediately() {
    #[track_caller]
    fn check(bytes: &[u8], expect: Result<Option<usize>, u16>) {
        assert_eq!(end(bytes, 0).map_err(|r| r.code.row().status), expect, "{:?}", String::from_utf8_lossy(bytes));
    }
    check(b"GET / HTTP/1.1\r\n\r\n", Ok(Some(18)));
    check(b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\n", Ok(Some(24)));
    check(b"GET / HTTP/1.1\r\nA: b\r", Ok(None));
    check(b"", Ok(None));
    check(b"GET / HTTP/1.1\n", Err(400));
    check(b"\x16\x03\x01\x02\x00", Err(400));
    check(b"GET /\0", Err(400));
    check(b"GET / HTTP/1.1\rA", Err(400));
    check(&vec![b'a'; MAX_HEAD + 1], Err(431));
}

#[test]
fn framing_has_no_second_reading() {
    #[track_caller]
    fn check(headers: &str, expect: Result<Framing, &str>) {
        let head = parse(format!("POST /x HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes());
        assert_eq!(head.map(|h| h.framing).map_err(|r| r.code.row().name), expect, "{headers}");
    }
    check("", Ok(Framing::Length(0)));
    check("Content-Length: 5\r\n", Ok(Framing::Length(5)));
    check("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked));
    for bad in ["+5", "-1", "5 5", "0x5", "", "5,5", "99999999999999999999"] {
        check(&format!("Content-Length: {bad}\r\n"), Err("bad_framing"));
    }
    check("Content-Length: 5\r\nContent-Length: 5\r\n", Err("bad_framing"));
    check("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err("bad_framing"));
    check("Transfer-Encoding: gzip, chunked\r\n", Err("bad_framing"));
    check("Transfer-Encoding: identity\r\n", Err("bad_framing"));
    check("Transfer-Encoding : chunked\r\n", Err("bad_request"));
    check(" folded\r\n", Err("bad_request"));
    check("Host: other\r\n", Err("bad_request"));
}

#[test]
fn targets_become_origin_form() {
    #[track_caller]
    fn check(target: &str, expect: &str) {
        assert_eq!(origin_form(target).unwrap(), expect);
    }
    check("/a?b=c", "/a?b=c");
    check("http://h:1/a/../b", "/a/../b");
    check("HTTP://h", "/");
    check("https://h?x", "/?x");
    check("/é", "/%C3%A9");
    check("httpx://h/a", "httpx://h/a");
    check("*", "*");
}

#[test]
fn a_connection_stays_open_as_each_version_says() {
    #[track_caller]
    fn check(version: &str, header: &str, stays: bool) {
        let head = parse(format!("GET / {version}\r\nHost: h\r\n{header}\r\n").as_bytes()).unwrap();
        assert_eq!(head.keep_alive, stays, "{version} {header}");
    }
    check("HTTP/1.1", "", true);
    check("HTTP/1.1", "Connection: TE, Close\r\n", false);
    check("HTTP/1.0", "", false);
    check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
    check("HTTP/1.0", "Connection: keep-alive\r\nConnection: TE\r\n", true);
    check("HTTP/1.0", "Connection: keep-alive\r\nConnection: close\r\n", false);
}

#[test]
fn a_header_that_comes_twice_is_passed_on_once() {
    let lines = "Authorization: Bearer a\r\nauthorization: Bearer b\r\n";
    let head = parse(format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n").as_bytes()).unwrap();
    assert_eq!(head.passed, [(header_names::AUTHORIZATION.to_owned(), "Bearer a".to_owned())]);
}

#[test]
fn only_http_1_1_waits_for_100_continue() {
    let expects = |version: &str| {
        parse(format!("POST / {version}\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").as_bytes())
            .unwrap()
            .expects_continue
    };
    assert_eq!((expects("HTTP/1.1"), expects("HTTP/1.0")), (true, false));
}

#[test]
fn many_small_headers_fit() {
    let lines = "a: b\r\n".repeat(2000);
    let head = parse(format!("GET / HTTP/1.0\r\n{lines}Connection: keep-alive\r\n\r\n").as_bytes()).unwrap();
    assert!(head.keep_alive && head.old);
}

#[cfg(test)]
mod junk {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::{config, outside};

    const HEADS: &[&str] = &[
        "GET /gpu?format=text HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n",
        "POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nExpect: 100-continue\r\nLivepeer-Runner-Route: y\r\n\r\n",
        "POST http://h/gpu-check HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer t\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ];

    proptest! {
        #![proptest_config(config())]

        /// Nothing of a head can end a line of what is passed on, and there is one way to read it.
        #[test]
        fn heads(bytes in outside(HEADS), parts in 1..20_usize) {
            let whole = end(&bytes, 0);
            // It comes in parts, and is looked at again after each.
            let mut from = 0;
            for upto in (0..=bytes.len()).step_by(bytes.len() / parts + 1).chain([bytes.len()]) {
                let found = end(&bytes[..upto], from);
                match (&found, &whole) {
                    (Ok(None), _) => from = upto.saturating_sub(1),
                    (Ok(Some(at)), Ok(Some(whole))) => { prop_assert_eq!(at, whole); break }
                    (Err(_), Err(_)) => break,
                    _ => prop_assert!(false, "{:?} of {} bytes, {:?} of all", found, upto, whole),
                }
            }
            let Ok(Some(length)) = whole else { return Ok(()) };
            match parse(&bytes[..length]) {
                Ok(head) => {
                    prop_assert!(head.method.bytes().all(|b| b.is_ascii_graphic()) && !head.method.is_empty());
                    prop_assert!(head.target.bytes().all(|b| b.is_ascii_graphic()) && !head.target.is_empty());
                    let printable = |value: &str| value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
                    prop_assert!(head.passed.iter().all(|(_, value)| printable(value)), "{:?}", head);
                }
                Err(refusal) => prop_assert!((400..=505).contains(&refusal.code.row().status)),
            }
        }
    }
}
