//! Names of the request headers that are looked at, and of those that a payment is sent with.

/// Present when an orchestrator's proxy forwarded the request of an unknown client.
pub(crate) const PROXIED: &str = "Livepeer-Runner-Route";
pub(crate) const ACCEPT: &str = "Accept";
pub(crate) const AUTHORIZATION: &str = "Authorization";
/// Tickets, and the job that they pay for.
pub(crate) const PAYMENT: &str = "Livepeer-Payment";
pub(crate) const JOB: &str = "Livepeer";
/// The ETag of what a browser has already.
pub(crate) const IF_NONE_MATCH: &str = "If-None-Match";
/// Headers whose values reach the handler.
pub(crate) const PASSED: [&str; 5] = [ACCEPT, AUTHORIZATION, PAYMENT, JOB, IF_NONE_MATCH];
