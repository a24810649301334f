//! What all outgoing requests share. A name is looked up for each new connection, not for each request. A connection
//! knows whether its peer closed it between two requests. Errors are shown in words.

mod errors;
mod login;
pub(crate) mod refusal;
mod tls;
mod watched;

use std::io;
use std::time::{Duration, Instant};

use ureq::config::{Config, ConfigBuilder};
use ureq::http::{Response, Uri};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};
use ureq::{Agent, Body, Error, Proxy, Timeout};

use crate::sys::resolver::{self, Unresolved};
pub(crate) use errors::{Cause, words};
use errors::{Stale, is, not_connected};
pub(crate) use login::Credentials;
pub(crate) use tls::tls;
use watched::{Closed, Watched};

/// For a look-up when neither the request nor the agent has a timeout.
const LOOK_UP: Duration = Duration::from_secs(10);
/// ureq has room for this many addresses of a name.
const MOST_ADDRESSES: usize = 16;

/// What all agents have: redirects are not followed, and every answer is an answer, whatever its status.
pub(crate) fn settings() -> ConfigBuilder<AgentScope> {
    Agent::config_builder().max_redirects(0).max_redirects_will_error(false).http_status_as_error(false)
}

/// An agent with these settings.
pub(crate) fn agent(config: Config) -> Agent {
    Agent::with_parts(config, ResolvingConnector { inner: DefaultConnector::new() }, DeferredResolver)
}

/// GET `url` with these headers. Sent once more, on a new connection, when a kept one is closed before the first byte of
/// the answer: the peer may have closed it while the request was on its way.
///
/// # Errors
/// ureq's own.
pub(crate) fn get(
    agent: &Agent,
    url: &str,
    headers: &[(&str, &str)],
    deadline: Duration,
) -> Result<Response<Body>, Error> {
    let start = Instant::now();
    let request = || headers.iter().fold(agent.get(url), |request, (name, value)| request.header(*name, *value));
    let first = request().config().timeout_global(Some(deadline)).build().call();
    match first {
        Err(why) if is::<Closed>(&why) => {
            let left = deadline.saturating_sub(start.elapsed());
            request().config().timeout_global(Some(left)).max_idle_age(Duration::ZERO).build().call()
        }
        answer => answer,
    }
}

/// No connection was made, so nothing was sent.
pub(crate) fn is_unsent(why: &Error) -> bool {
    match why {
        Error::ConnectionFailed | Error::HostNotFound | Error::Timeout(Timeout::Connect | Timeout::Resolve) => true,
        Error::Io(io) => io.kind() == io::ErrorKind::ConnectionRefused || is::<Unresolved>(why) || is::<Stale>(why),
        _ => false,
    }
}

/// ureq resolves names for each request, even on a kept connection: this returns no addresses, and `ResolvingConnector` finds them.
#[derive(Debug)]
struct DeferredResolver;

impl Resolver for DeferredResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Looks the name up for a new connection and opens it.
#[derive(Debug)]
struct ResolvingConnector {
    inner: DefaultConnector,
}

impl Connector for ResolvingConnector {
    type Out = Watched;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Watched>, Error> {
        let parts = details.uri.scheme().zip(details.uri.authority());
        let Some(name) = parts.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority)) else {
            return Err(Error::HostNotFound);
        };
        // A forward proxy looks the name up. Its own name is looked up when the connection to it is made.
        let proxied = |proxy: &Proxy| !proxy.is_no_proxy(details.uri) && !proxy.resolve_target();
        if details.config.proxy().is_some_and(proxied) {
            let connected = self.inner.connect(details, None)?;
            return Ok(connected.map(|transport| Watched::new(transport.boxed())));
        }
        let start = Instant::now();
        let timeouts = details.config.timeouts();
        let limits = [timeouts.resolve, timeouts.global].into_iter().flatten();
        let found = resolver::find(&name, limits.min().unwrap_or(LOOK_UP)).map_err(not_connected)?;
        let mut addrs = details.resolver.empty();
        let family = details.config.ip_family();
        let wanted = family.keep_wanted(found.addresses.iter().copied());
        wanted.take(MOST_ADDRESSES).for_each(|address| addrs.push(address));
        if addrs.is_empty() {
            return Err(Error::HostNotFound);
        }
        let mut timeout = details.timeout;
        if let Some(left) = timeouts.global.map(|global| global.saturating_sub(start.elapsed()))
            && left < *timeout.after
        {
            (timeout.after, timeout.reason) = (left.into(), Timeout::Global);
        }
        let details = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: (details.current_time)(),
            timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let connected = self.inner.connect(&details, None).map_err(|why| Stale::explain(why, found))?;
        Ok(connected.map(|transport| Watched::new(transport.boxed())))
    }
}
