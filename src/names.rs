//! Host names for ureq. Its own resolver starts a thread for each lookup and panics where there is none to be had; here
//! some wait from the start, and a lookup that fails is an error like any other.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::counters::Gauge;
use crate::threads::Crew;

/// The C library's own lookup needs no more.
const STACK: usize = 128 * 1024;
const STAYING: usize = 2;
/// Lookups that have not come back: while none does, more of them help nobody.
const MOST: usize = 16;
/// ureq has room for so many addresses of a name.
const MOST_ADDRESSES: usize = 16;
/// Where the caller has no patience of its own.
const PATIENCE: Duration = Duration::from_secs(10);

static CREW: Mutex<Option<Arc<Crew>>> = Mutex::new(None);

/// Looks names up with the C library, as /etc/hosts and the DNS have them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    under_way: Gauge,
}

/// Starts the threads that look names up; before that the first lookup does.
///
/// # Errors
/// The kernel's, when it gives no threads.
pub(crate) fn start() -> io::Result<Arc<Crew>> {
    let mut crew = CREW.lock().unwrap_or_else(PoisonError::into_inner);
    match &*crew {
        Some(crew) => Ok(Arc::clone(crew)),
        None => Ok(Arc::clone(crew.insert(Crew::start("names", STACK, STAYING)?))),
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let parts = uri.scheme().zip(uri.authority());
        let Some(name) = parts.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority)) else {
            return Err(Error::HostNotFound);
        };
        // Mostly it is an address already.
        let found = match name.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.look_up(name, timeout)?,
        };
        let mut all = self.empty();
        for address in config.ip_family().keep_wanted(found.into_iter()).take(MOST_ADDRESSES) {
            all.push(address);
        }
        if all.is_empty() { Err(Error::HostNotFound) } else { Ok(all) }
    }
}

impl Names {
    fn look_up(&self, name: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        let Some(ticket) = self.under_way.enter(MOST) else {
            let why = format!("{MOST} lookups have not come back: is the name server reachable?");
            return Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)));
        };
        let (sender, found) = mpsc::sync_channel(1);
        start()?.give(move || {
            let addresses = name.to_socket_addrs().map(Iterator::collect);
            // Nobody waits for it any more.
            let _ = sender.send(addresses);
            drop(ticket);
        });
        match found.recv_timeout((*timeout.after).min(PATIENCE)) {
            Ok(addresses) => Ok(addresses?),
            Err(_) => Err(Error::Timeout(timeout.reason)),
        }
    }
}
