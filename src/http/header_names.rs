//! Names of the request headers that are looked at.

/// Present when an orchestrator's proxy forwarded the request of an unknown client.
pub(super) const PROXIED: &str = "Livepeer-Runner-Route";
pub(super) const ACCEPT: &str = "Accept";
pub(super) const AUTHORIZATION: &str = "Authorization";
/// Tickets, and the job that they pay for.
pub(super) const PAYMENT: &str = "Livepeer-Payment";
pub(super) const JOB: &str = "Livepeer";
/// The ETag of what a browser has already.
pub(super) const IF_NONE_MATCH: &str = "If-None-Match";
/// Headers whose values reach the handler.
pub(super) const PASSED: [&str; 5] = [ACCEPT, AUTHORIZATION, PAYMENT, JOB, IF_NONE_MATCH];
