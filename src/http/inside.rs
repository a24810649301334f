//! The headers by which the guard and the server behind it speak to each other.

/// Present when the body was larger than the limit and has been thrown away.
pub(crate) const TOO_LARGE: &str = "X-Agent-Net-Too-Large";
/// Present when the request began after SIGTERM.
pub(crate) const LATE: &str = "X-Agent-Net-Late";
/// Present when an orchestrator's proxy sent the request on for a stranger.
pub(crate) const PROXIED: &str = "Livepeer-Runner-Route";
/// Headers of a request that are looked at, and passed on.
pub(crate) const ACCEPT: &str = "Accept";
pub(crate) const AUTHORIZATION: &str = "Authorization";
/// Tickets, and the job that they pay for.
pub(crate) const PAYMENT: &str = "Livepeer-Payment";
pub(crate) const JOB: &str = "Livepeer";
/// The ETag of what a browser has already.
pub(crate) const IF_NONE_MATCH: &str = "If-None-Match";
pub(crate) const PASSED: [&str; 5] = [ACCEPT, AUTHORIZATION, PAYMENT, JOB, IF_NONE_MATCH];
