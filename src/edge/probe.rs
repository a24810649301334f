//! Asks a running worker whether it serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The address at which a worker that listens on `host` can be reached from this machine.
pub(crate) fn reachable(host: IpAddr, port: u16) -> SocketAddr {
    let host = match host {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, port)
}

/// The status of GET /health, within 2 s.
///
/// # Errors
/// One sentence when nobody answers.
pub(crate) fn health(addr: SocketAddr) -> Result<u16, String> {
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(2)));
    let answer = ureq::Agent::new_with_config(config.build()).get(format!("http://{addr}/health")).call();
    answer.map(|reply| reply.status().as_u16()).map_err(|why| format!("http://{addr}/health does not answer: {why}"))
}
