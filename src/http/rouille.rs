//! rouille: a request that was read whole becomes a `rouille::Request`, and the `rouille::Response` of its handler the
//! answer to write. The only file that names it.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rouille::{Request, Response, ResponseBody};

use super::refusal::Refusal;
use super::reply::Reply;
use super::request;
use crate::sys::header_names;
use crate::sys::limits::unix_now;

/// A request that was read whole.
#[derive(Debug)]
pub(crate) struct WholeRequest {
    /// The client's address.
    pub(crate) from: SocketAddr,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Those of [`header_names::PASSED`] that it has.
    pub(crate) headers: Vec<(String, String)>,
    /// None: larger than the limit, and thrown away.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) marks: Marks,
}

/// What the connection knows about a request beside its text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks {
    /// An orchestrator's proxy forwarded it for an unknown client.
    pub(crate) proxied: bool,
    /// The client takes answers that are compressed with gzip.
    pub(crate) gzip: bool,
    /// It began after SIGTERM.
    pub(crate) late: bool,
    /// From its last byte to the handler.
    pub(crate) waited: Duration,
    /// As many requests are in progress as may be.
    pub(crate) surplus: bool,
}

/// An answer, to be written with the framing that the connection needs.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    pub(crate) body: Box<dyn Read + Send>,
    /// Length of the body in bytes.
    pub(crate) length: usize,
}

/// Answers requests on the thread that read them.
pub(crate) struct Service {
    handler: Box<Handler>,
    is_probe: fn(&str) -> bool,
}

/// Does not panic, and does not block for more than 2 s.
type Handler = dyn Fn(&request::Request<'_>) -> Reply + Send + Sync;

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// `is_probe`: a target asks only whether the worker lives or is ready.
    pub(crate) fn new(handler: Box<Handler>, is_probe: fn(&str) -> bool) -> Self {
        Self { handler, is_probe }
    }

    pub(super) fn is_probe(&self, target: &str) -> bool {
        (self.is_probe)(target)
    }

    pub(crate) fn answer(&self, request: WholeRequest) -> HttpAnswer {
        let WholeRequest { from, method, target, headers, body, marks } = request;
        let too_large = body.is_none();
        let request = Request::fake_http_from(from, method, target, headers, body.unwrap_or_default());
        HttpAnswer::of(self.respond(&request, marks, too_large))
    }

    fn respond(&self, request: &Request, marks: Marks, too_large: bool) -> Response {
        let mut body = Vec::new();
        if let Some(mut data) = request.data() {
            // It is in memory: reading it cannot fail.
            let _ = data.read_to_end(&mut body);
        }
        response((self.handler)(&request::Request {
            method: request.method(),
            target: request.raw_url(),
            accept: request.header(header_names::ACCEPT),
            authorization: request.header(header_names::AUTHORIZATION),
            payment: request.header(header_names::PAYMENT),
            job: request.header(header_names::JOB),
            if_none_match: request.header(header_names::IF_NONE_MATCH),
            proxied: marks.proxied,
            gzip: marks.gzip,
            late: marks.late,
            waited: marks.waited,
            surplus: marks.surplus,
            body: (!too_large && body.len() <= request::MAX_BODY).then_some(&body),
        }))
    }
}

impl HttpAnswer {
    fn of(response: Response) -> Self {
        let Response { status_code, headers, data, .. } = response;
        let (body, length) = data.into_reader_and_size();
        // Only a stream has no size, and no handler of ours makes one.
        Self { status: status_code, headers, body, length: length.unwrap_or_default() }
    }

    /// The answer to a request that no handler sees.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self::of(response(refusal.reply(unix_now())))
    }
}

/// Until the year 9999: no other date can be written in HTTP.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// The date is ours, whatever the clock says: httpdate panics before 1970 and after its last date.
fn response(reply: Reply) -> Response {
    let date = httpdate::fmt_http_date(SystemTime::now().clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_DATE));
    let length = reply.body.len();
    let mut headers: Vec<(Cow<'static, str>, Cow<'static, str>)> = Vec::with_capacity(2 + reply.headers.len());
    headers.push(("Content-Type".into(), reply.content_type.into()));
    headers.push(("Date".into(), date.into()));
    headers.extend(reply.headers.into_iter().map(|(name, value)| (name.into(), value.into())));
    Response {
        status_code: reply.status,
        headers,
        data: ResponseBody::from_reader_and_size(reply.body.into_reader(), length),
        upgrade: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::error_codes::ErrorCode;

    fn request(method: &str, target: &str, body: Option<&str>) -> WholeRequest {
        WholeRequest {
            from: "127.0.0.1:1".parse().unwrap(),
            method: method.into(),
            target: target.into(),
            headers: vec![("accept".into(), "text/plain".into())],
            body: body.map(Into::into),
            marks: Marks { late: true, ..Marks::default() },
        }
    }

    fn text(answer: HttpAnswer) -> (u16, String) {
        let mut text = String::new();
        let HttpAnswer { status, mut body, length, .. } = answer;
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), length);
        (status, text)
    }

    #[test]
    fn a_request_reaches_the_handler_with_its_marks_on_the_thread_that_brings_it() {
        let here = std::thread::current().id();
        let handler = move |request: &request::Request<'_>| {
            assert_eq!(std::thread::current().id(), here);
            assert!(request.late && !request.proxied && request.authorization.is_none());
            Reply::json(200, format!("{} {} {:?} {:?}", request.method, request.target, request.accept, request.body))
        };
        let service = Service::new(Box::new(handler), |_| false);
        let (status, get) = text(service.answer(request("GET", "/gpu?x=1", Some(""))));
        assert_eq!((status, get.as_str()), (200, "GET /gpu?x=1 Some(\"text/plain\") Some([])"));
        let (_, post) = text(service.answer(request("POST", "/gpu-check", Some("ab"))));
        assert!(post.ends_with("Some([97, 98])"), "{post}");
        let (_, large) = text(service.answer(request("POST", "/gpu-check", None)));
        assert!(large.ends_with("None"), "{large}");
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let (status, body) = text(HttpAnswer::refused(Refusal::new(ErrorCode::AtCapacity, "try again")));
        assert!(status == 503 && body.contains("\"code\":\"at_capacity\""), "{status} {body}");
    }
}
