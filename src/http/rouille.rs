//! rouille: its request as a `route::Request`, a `Reply` as its response. The only file that names it.

use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rouille::{Response, ResponseBody, Server};

use super::inside;
use super::reply::Reply;
use crate::api::route::{self, Asked, Refusal, Routes};

/// Compiles only where rouille stands on our tiny_http: without Cargo.toml's [patch] nobody would take its requests.
const _: fn(Box<dyn tiny_http::ReadWrite>) -> Box<dyn rouille::ReadWrite> = |same| same;

/// What answers requests.
type Handler = dyn Fn(Asked) -> Reply + Send + Sync;

/// rouille wants an address; nothing listens there.
const NOWHERE: &str = "127.0.0.1:0";

/// A rouille server with `pool` threads: what is returned has it take the requests that were put into tiny_http.
///
/// # Errors
/// One sentence when there is no server.
pub(crate) fn start(pool: usize, routes: Routes, handler: Box<Handler>) -> Result<Box<dyn Fn() + Send + Sync>, String> {
    let server = Server::new(NOWHERE, move |request| {
        let mut body = Vec::new();
        // The guard has counted it: this limit only holds if the guard is wrong.
        let read = request.data().map(|data| data.take(route::MAX_BODY as u64 + 1).read_to_end(&mut body));
        if !matches!(read, Some(Ok(_))) {
            // The guard has given it up: nothing may be done that nobody hears of.
            return Response::text("").with_status_code(503);
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
            late: request.header(inside::LATE).is_some(),
            body: (!too_large).then_some(&body),
        };
        let route = routes.job_route(&asked);
        let of = |job| Asked { route, late: asked.late, tokenless: asked.authorization.is_none(), job };
        let answer = panic::catch_unwind(AssertUnwindSafe(|| handler(of(routes.parse(&asked)))));
        response(answer.unwrap_or_else(|_| handler(of(Err(panicked())))))
    })
    .map_err(|why| format!("no server: {why}"))?;
    let server = server.pool_size(pool);
    Ok(Box::new(move || server.poll()))
}

/// A defect of ours ends one answer, not the worker.
fn panicked() -> Refusal {
    Refusal::new(500, "internal", "the worker failed at this request; the next one is served. Please report its log")
}

/// Until the year 9999: no other date can be written in HTTP.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// The date is ours, whatever the clock says: httpdate panics before 1970 and after its last date.
fn response(reply: Reply) -> Response {
    let date = httpdate::fmt_http_date(SystemTime::now().clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_DATE));
    let length = reply.body.len();
    let headers = [("Content-Type", reply.content_type.to_owned()), ("Date", date)].into_iter().chain(reply.headers);
    Response {
        status_code: reply.status,
        headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
        data: ResponseBody::from_reader_and_size(reply.body.into_reader(), length),
        upgrade: None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tiny_http::Answer;

    use super::*;

    /// One test, since a process has one queue of requests.
    #[test]
    fn what_has_been_given_up_is_not_done_and_what_fails_is_heard_of() {
        let put = || tiny_http::put("GET".into(), "/gpu".into(), Vec::new(), Vec::new());
        let failure = |answer: io::Result<Answer>| answer.map(|answer| answer.status).unwrap_err().kind();

        let server = tiny_http::Server::http(NOWHERE).unwrap();
        let next = || server.try_recv().unwrap().expect("it was put in");
        let pending = put();
        drop(next());
        assert_eq!(failure(pending.answer(Duration::from_secs(60))), io::ErrorKind::ConnectionAborted);
        let pending = put();
        let mut begun = next();
        assert_eq!(begun.as_reader().read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(failure(pending.answer(Duration::ZERO)), io::ErrorKind::TimedOut);
        begun.respond(tiny_http::Response::empty(200)).unwrap();

        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let handler = move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Reply::json(200, "{}")
        };
        let poll = start(1, Routes::default(), Box::new(handler)).unwrap();
        assert_eq!(failure(put().answer(Duration::ZERO)), io::ErrorKind::WouldBlock);
        let pending = put();
        poll();
        // One thread does one after the other.
        assert_eq!(pending.answer(Duration::from_secs(60)).unwrap().status, 200);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
