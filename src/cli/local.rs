//! Requests to a running worker's own routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::outgoing;

/// A report of 128 GPUs and thousands of models fits.
const MAX_BODY: u64 = 16 << 20;

/// Why a worker gave no usable response; Display says what to do.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection was refused.
    Refused(String),
    Other(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Refused(why) | Self::Other(why)) = self;
        f.write_str(why)
    }
}

/// The address at which a worker that listens on `host` can be reached from this machine. One that listens on `::` takes
/// IPv4 as well, and where IPv6 is off it listens on IPv4 alone.
pub(crate) fn reachable(host: IpAddr, port: u16) -> SocketAddr {
    let host = if host.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { host };
    SocketAddr::new(host, port)
}

fn agent(deadline: Duration) -> ureq::Agent {
    let config = outgoing::settings().proxy(None).timeout_global(Some(deadline));
    outgoing::agent(config.build())
}

fn no_answer(url: &str, why: &ureq::Error) -> NoAnswer {
    let refused = matches!(why, ureq::Error::Io(why) if why.kind() == io::ErrorKind::ConnectionRefused);
    let said = format!("{url} does not respond: {}", outgoing::words(why));
    if refused { NoAnswer::Refused(said) } else { NoAnswer::Other(said) }
}

/// How long a command waits for /health.
pub(crate) const HEALTH: Duration = Duration::from_secs(2);

/// The status of GET /health.
///
/// # Errors
/// A sentence, if there is no response in time.
pub(crate) fn health(addr: SocketAddr, deadline: Duration) -> Result<u16, NoAnswer> {
    let url = format!("http://{addr}/health");
    let answer = agent(deadline).get(&url).call();
    answer.map(|reply| reply.status().as_u16()).map_err(|why| no_answer(&url, &why))
}

/// The body of GET /gpu at the base URL `base`, within `deadline`. `authorization`: that header. `text`: as `key=value`
/// lines.
///
/// # Errors
/// There is no response, or it is not a report.
pub(crate) fn report(
    base: &str,
    authorization: Option<&str>,
    text: bool,
    deadline: Duration,
) -> Result<String, NoAnswer> {
    let url = format!("{base}/gpu{}", if text { "?format=text" } else { "" });
    let mut request = agent(deadline).get(&url);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    body(&url, request.call())
}

type Reply = ureq::http::Response<ureq::Body>;

fn body(url: &str, reply: Result<Reply, ureq::Error>) -> Result<String, NoAnswer> {
    let mut reply = reply.map_err(|why| no_answer(url, &why))?;
    let status = reply.status().as_u16();
    let read = reply.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
    let body = read.map_err(|why| no_answer(url, &why))?;
    match status {
        200 => Ok(body),
        401 => Err(NoAnswer::Other(format!("{url} requires the worker's token: set WORKER_TOKEN"))),
        300..=399 => Err(NoAnswer::Other(format!("{url} responded with {status}: redirects are not followed"))),
        _ => {
            let start: String = crate::sys::text::one_line(&body).chars().take(200).collect();
            let colon = if start.is_empty() { "" } else { ": " };
            Err(NoAnswer::Other(format!("{url} responded with {status}{colon}{start}")))
        }
    }
}
