//! Host names from /etc/hosts and DNS. A look-up never blocks its caller for long, and the last good addresses stay in
//! use while DNS fails or is slow: the server behind a name outlives its DNS.

mod cache;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Gauge;
use super::text::io_words;
use super::threads::ThreadPool;
use cache::{Cache, WITH_ADDRESSES};

/// Enough for the C library's own look-up.
const STACK: usize = 128 * 1024;
const STAYING: usize = 2;
/// Look-ups under way: while none returns, more do not help.
const MOST: usize = 16;

static POOL: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);
static RESOLVER: LazyLock<Arc<Resolver>> = LazyLock::new(Arc::default);

type Resolve = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Starts the threads that look names up; otherwise the first look-up does.
///
/// # Errors
/// The kernel's, when it gives no threads.
pub(crate) fn start() -> io::Result<Arc<ThreadPool>> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match &*pool {
        Some(pool) => Ok(Arc::clone(pool)),
        None => Ok(Arc::clone(pool.insert(ThreadPool::start("resolver", STACK, STAYING)?))),
    }
}

/// A name that could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// Without the port.
    name: String,
    why: String,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve {}: {}", self.name, self.why)
    }
}

impl Error for Unresolved {}

/// The addresses of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) addresses: Vec<SocketAddr>,
    /// Set where the addresses are those of an earlier look-up: why the new one failed.
    pub(crate) old: Option<Unresolved>,
}

#[derive(Debug, Default)]
struct Resolver {
    cache: Mutex<Cache>,
    answered: Condvar,
    under_way: Gauge,
}

/// The addresses of `host:port` within `timeout`, or those of the last good look-up.
///
/// # Errors
/// Why it has none.
pub(crate) fn find(name: &str, timeout: Duration) -> Result<Found, Unresolved> {
    match name.parse() {
        Ok(address) => Ok(Found { addresses: vec![address], old: None }),
        Err(_) => RESOLVER.find(name, timeout, |name| name.to_socket_addrs().map(Iterator::collect)),
    }
}

impl Resolver {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(self: &Arc<Self>, name: &str, timeout: Duration, resolve: Resolve) -> Result<Found, Unresolved> {
        let (heard, before) = self.lock().heard(name);
        let timeout = if before.is_empty() { timeout } else { timeout.min(WITH_ADDRESSES) };
        let answer = self.ask(name, resolve).and_then(|()| {
            let silent = |cache: &mut Cache| cache.heard(name).0 == heard;
            let (mut cache, waited) =
                self.answered.wait_timeout_while(self.lock(), timeout, silent).unwrap_or_else(PoisonError::into_inner);
            match cache.failure(name) {
                _ if waited.timed_out() => Err(format!("no answer from DNS within {timeout:.1?}")),
                Some(why) => Err(why),
                None => Ok(()),
            }
        });
        let mut cache = self.lock();
        let addresses = cache.heard(name).1;
        let Err(why) = answer else { return Ok(Found { addresses, old: None }) };
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        let why = Unresolved { name: host.to_owned(), why };
        if addresses.is_empty() {
            return Err(why);
        }
        if cache.log_failure(name) {
            log::warn!("{why}. Its last known addresses stay in use");
        }
        Ok(Found { addresses, old: Some(why) })
    }

    /// Starts a look-up unless a recent one is under way.
    fn ask(self: &Arc<Self>, name: &str, resolve: Resolve) -> Result<(), String> {
        let Some(number) = self.lock().ask(name, Instant::now()) else { return Ok(()) };
        let not_asked = |why: String| {
            self.lock().answer(name, number, Err(why.clone()), Instant::now());
            Err(why)
        };
        let Some(permit) = self.under_way.enter(MOST) else {
            return not_asked(format!("{MOST} look-ups are still without an answer: is the DNS server reachable?"));
        };
        let pool = match start() {
            Ok(pool) => pool,
            Err(why) => return not_asked(format!("cannot start a thread: {}", io_words(&why))),
        };
        let (resolver, name) = (Arc::clone(self), name.to_owned());
        pool.submit(move || {
            let answer = match resolve(&name) {
                Ok(addresses) if addresses.is_empty() => Err("it has no address".into()),
                Ok(addresses) => Ok(addresses),
                Err(why) => Err(in_words(&why.to_string())),
            };
            if resolver.lock().answer(&name, number, answer, Instant::now()) {
                log::info!("{name} can be resolved again");
            }
            resolver.answered.notify_all();
            drop(permit);
        });
        Ok(())
    }
}

/// One set of words for what glibc and musl say differently.
fn in_words(said: &str) -> String {
    let said = said.strip_prefix("failed to lookup address information: ").unwrap_or(said);
    let meaning = match said {
        "Try again" | "Temporary failure in name resolution" => "the DNS server fails or does not answer",
        "Name does not resolve" | "Name or service not known" => "DNS does not know this name",
        "Name has no usable address" | "No address associated with hostname" => "it has no address",
        "Non-recoverable error" | "Unrecoverable error" | "Non-recoverable failure in name resolution" => {
            "the DNS server refuses to answer"
        }
        other => other,
    };
    meaning.to_owned()
}

#[cfg(test)]
mod tests;
