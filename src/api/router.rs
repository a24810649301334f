//! Which route answers a request, and whether the client may use it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::capability_names;
use super::routes::{Access, JOB_PATH, ROUTES, Route};
use crate::http::refusal::Refusal;
use crate::http::request::Request;
use crate::livepeer::runner::HEALTH_URL;
use crate::sys::error_codes::ErrorCode;

/// The table of routes, with what the settings add to it.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// `/NAME` for each CAPABILITY_NAME that is not a path of the table. Metrics count by these, so they live as long as
    /// the process.
    named: Vec<&'static str>,
    /// The path of CAPABILITY_URL, which precedes that of each job unless a reverse proxy removes it.
    base: String,
    /// WORKER_TOKEN.
    token: Option<String>,
}

/// Where a request leads.
#[derive(Debug)]
pub(crate) struct Destination {
    /// The job route that the request counts for, whatever its answer; None: it is not a job.
    pub(crate) job_route: Option<&'static str>,
    /// Or 404, 405 or 401, checked in this order.
    pub(crate) route: Result<&'static Route, Refusal>,
}

/// A path of a request.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The name under which its jobs are counted.
    name: &'static str,
    /// Its path in the table.
    path: &'static str,
    /// Below the path of CAPABILITY_URL: only jobs are there, and the health_url of a static runner.
    below: bool,
}

impl Place {
    fn shows(&self, route: &Route, proxied: bool) -> bool {
        let visible = match route.access {
            Access::Jobs => true,
            Access::Redirected => proxied,
            Access::Open | Access::Token => !proxied && (!self.below || route.path == HEALTH_URL),
        };
        visible && route.path == self.path
    }
}

impl Router {
    pub(crate) fn new(capabilities: &[String], base: &str, token: Option<String>) -> Self {
        let is_new = |name: &&String| !ROUTES.iter().any(|route| route.path[1..] == **name);
        let named = capabilities.iter().filter(is_new).map(|name| &*Box::leak(format!("/{name}").into_boxed_str()));
        Self { named: named.collect(), base: base.to_owned(), token }
    }

    pub(crate) fn find(&self, request: &Request<'_>) -> Destination {
        let place = self.place(request.path());
        let is_shown = |route: &&Route| place.is_some_and(|place| place.shows(route, request.proxied));
        let routes = || ROUTES.iter().filter(is_shown);
        let method = if request.method == "HEAD" { "GET" } else { request.method };
        let found = routes().find(|route| route.method == method);
        // A wrong method counts where only jobs are.
        let is_job = found.map_or_else(|| routes().all(|route| route.access.is_job()), |route| route.access.is_job());
        let is_shown = routes().next().is_some();
        Destination {
            job_route: place.filter(|_| is_job && is_shown).map(|place| place.name),
            route: match found {
                Some(route) => self.admit(route, request).map(|()| route),
                None if is_shown => Err(wrong_method(routes())),
                None => {
                    let message = "not found. Jobs: POST /gpu-check. All routes: GET /openapi.json";
                    Err(Refusal::new(ErrorCode::NotFound, message))
                }
            },
        }
    }

    fn place(&self, path: &str) -> Option<Place> {
        let of_table = |path: &str, below| {
            let route = ROUTES.iter().find(|route| route.path == path)?;
            Some(Place { name: route.path, path: route.path, below })
        };
        let named = |path: &str, below| {
            let name = capability_names::find(&self.named, path)?;
            Some(Place { name, path: JOB_PATH, below })
        };
        of_table(path, false).or_else(|| named(path, false)).or_else(|| {
            let rest = path.strip_prefix(self.base.as_str()).filter(|_| !self.base.is_empty())?;
            of_table(if rest.is_empty() { "/" } else { rest }, true).or_else(|| named(rest, true))
        })
    }

    fn admit(&self, route: &Route, request: &Request<'_>) -> Result<(), Refusal> {
        match &self.token {
            Some(token) if route.access != Access::Open && !has_token(request, token) => {
                let message = "token required; send Authorization: Bearer TOKEN";
                let realm = "Basic realm=\"agent-net\"";
                Err(Refusal::new(ErrorCode::Unauthorized, message).with("WWW-Authenticate", realm))
            }
            _ => Ok(()),
        }
    }
}

fn wrong_method<'a>(routes: impl Iterator<Item = &'a Route>) -> Refusal {
    let methods: Vec<&str> =
        routes.map(|route| if route.method == "GET" { "GET, HEAD" } else { route.method }).collect();
    let allow = methods.join(", ");
    Refusal::new(ErrorCode::MethodNotAllowed, format!("method not allowed here; use {allow}")).with("Allow", allow)
}

/// As Bearer, or as the password of Basic (any user), since browsers send nothing else.
fn has_token(request: &Request<'_>, token: &str) -> bool {
    let parts = request.authorization.and_then(|value| value.trim().split_once(' '));
    let Some((scheme, value)) = parts else { return false };
    if scheme.eq_ignore_ascii_case("bearer") {
        return is_same(value.trim().as_bytes(), token.as_bytes());
    }
    let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
    let password = decoded.iter().position(|b| *b == b':').map(|at| &decoded[at + 1..]);
    scheme.eq_ignore_ascii_case("basic") && password.is_some_and(|p| is_same(p, token.as_bytes()))
}

/// Equality in a time that does not depend on how many bytes are right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests;
