//! Answers requests: the router finds the route, its handler answers, and jobs are counted.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};
use std::time::Instant;

use super::router::Router;
use super::worker::Worker;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::sys::error_codes::ErrorCode;
use crate::sys::limits::unix_now;

#[derive(Debug)]
pub(crate) struct Dispatcher {
    router: Router,
    worker: Arc<Worker>,
    /// The log says that a job lacked the token.
    tokenless_logged: Once,
}

impl Dispatcher {
    pub(crate) fn new(router: Router, worker: Arc<Worker>) -> Self {
        Self { router, worker, tokenless_logged: Once::new() }
    }

    /// A panic of a handler ends this answer, not the worker.
    pub(crate) fn answer(&self, request: &Request<'_>) -> Reply {
        let now = Instant::now();
        let start = now.checked_sub(request.waited).unwrap_or(now);
        let destination = self.router.find(request);
        let compressed = destination.route.as_ref().is_ok_and(|route| route.compressed);
        let admitted = if request.surplus { Err(too_many()) } else { destination.route };
        let handle = || admitted.and_then(|route| (route.answer)(&self.worker, request, start));
        let answer = panic::catch_unwind(AssertUnwindSafe(handle)).unwrap_or_else(|_| Err(panicked()));
        let is_tokenless = request.authorization.is_none() && destination.job_route.is_some();
        if is_tokenless && matches!(&answer, Err(refusal) if refusal.code == ErrorCode::Unauthorized) {
            self.tokenless_logged.call_once(warn_of_tokenless_jobs);
        }
        let reply = match answer {
            Ok(reply) if compressed => reply.compressed(request.gzip),
            Ok(reply) => reply,
            Err(refusal) => refusal.reply(unix_now()),
        };
        if let Some(route) = destination.job_route {
            self.worker.count(route, reply.status, start.elapsed());
        }
        reply
    }
}

fn too_many() -> Refusal {
    Refusal::new(ErrorCode::AtCapacity, "too many requests are in progress; try again")
}

fn panicked() -> Refusal {
    let message = "the worker failed at this request; the next one is served. Please report its log";
    Refusal::new(ErrorCode::Internal, message)
}

fn warn_of_tokenless_jobs() {
    log::warn!(
        "a job without WORKER_TOKEN was refused (401). go-livepeer sends worker tokens since v0.8.11; older versions drop \
         the token, and every job fails. If an orchestrator sent this job: update it, or unset WORKER_TOKEN. This is \
         logged once"
    );
}
