//! rouille: its request as a `route::Request`, a `Reply` as its response. The only file that names it.

use std::io::Read;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rouille::{Response, Server};

use crate::pure::body::Body;
use crate::pure::inside;
use crate::pure::reply::Reply;
use crate::pure::route::{self, Asked, Refusal};
use crate::threads;

/// What answers requests.
type Handler = dyn Fn(Asked) -> Reply + Send + Sync;

/// Where the body of an answer is put, by the number that came with its request.
type Deliver = dyn Fn(usize, Body) + Send + Sync;

/// Starts rouille on a free loopback port with `pool` threads; its address. `secret` is what the guard sends, and
/// `deliver` hands it the bodies of answers.
///
/// # Errors
/// One sentence when no port or thread is to be had.
pub(crate) fn start(
    secret: String,
    pool: usize,
    token: Option<String>,
    handler: Box<Handler>,
    deliver: Box<Deliver>,
) -> Result<SocketAddr, String> {
    let server = Server::new("127.0.0.1:0", move |request| {
        let sender = request.header(inside::SECRET).and_then(|value| value.split_once('/'));
        let Some((_, tray)) = sender.filter(|(given, _)| *given == secret) else {
            return Response::empty_404();
        };
        let mut body = Vec::new();
        if let Some(mut data) = request.data() {
            // The guard has counted it: this limit only holds if the guard is wrong.
            let _ = data.by_ref().take(route::MAX_BODY as u64 + 1).read_to_end(&mut body);
        }
        let too_large = request.header(inside::TOO_LARGE).is_some() || body.len() > route::MAX_BODY;
        let asked = route::Request {
            method: request.method(),
            target: request.raw_url(),
            accept: request.header(inside::ACCEPT),
            authorization: request.header(inside::AUTHORIZATION),
            payment: request.header(inside::PAYMENT),
            job: request.header(inside::JOB),
            if_none_match: request.header(inside::IF_NONE_MATCH),
            proxied: request.header(inside::PROXIED).is_some(),
            local: request.header(inside::LOCAL).is_some(),
            body: (!too_large).then_some(&body),
        };
        let route = route::job_route(asked.target);
        let answer = panic::catch_unwind(AssertUnwindSafe(|| {
            handler(Asked { route, job: route::parse(&asked, token.as_deref()) })
        }));
        let mut reply = answer.unwrap_or_else(|_| panicked(&handler, route));
        deliver(tray.parse().unwrap_or(usize::MAX), std::mem::take(&mut reply.body));
        response(reply)
    })
    .map_err(|why| format!("no loopback port for the server: {why}"))?;
    let addr = server.server_addr();
    let server = server.pool_size(pool);
    threads::essential("http", move || server.run()).map_err(|why| format!("no thread for the server: {why}"))?;
    Ok(addr)
}

/// A defect of ours ends one answer, not the worker.
fn panicked(handler: &Handler, route: Option<&'static str>) -> Reply {
    let message = "the worker failed at this request; the next one is served. Please report its log";
    handler(Asked { route, job: Err(Refusal::new(500, "internal", message)) })
}

/// Until the year 9999: no other date can be written in HTTP.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// All but the body. The date is ours, since tiny_http panics over a clock that stands before 1970.
fn response(reply: Reply) -> Response {
    let date = httpdate::fmt_http_date(SystemTime::now().clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_DATE));
    let mut response =
        Response::from_data(reply.content_type, "").with_status_code(reply.status).with_unique_header("Date", date);
    for (name, value) in reply.headers {
        response = response.with_additional_header(name, value);
    }
    response
}
