//! What rouille 3.6 uses of tiny_http 0.12, without sockets: whoever owns the connections [`put`]s requests in and takes
//! their answers out. Names and types are tiny_http's, so that rouille compiles with it; Cargo.toml's `[patch]` gives it to
//! rouille.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, Cursor, Empty, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests that no server has taken yet. A process has one queue, since rouille makes its server itself.
static REQUESTS: LazyLock<(Sender<Request>, Mutex<Receiver<Request>>)> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    (sender, Mutex::new(receiver))
});

/// Puts a request in, for the next one who asks a [`Server`] for one: `url` is path and query, `body` is whole.
pub fn put(method: String, url: String, headers: Vec<Header>, body: Vec<u8>) -> Pending {
    let exchange = Arc::new(Exchange { state: Mutex::new(State::Queued), ended: Condvar::new() });
    let body = Body { bytes: Cursor::new(body), exchange: Arc::clone(&exchange), begun: false };
    // The other end is never dropped.
    let _ = REQUESTS.0.send(Request { method: Method(method), url, headers, body });
    Pending(exchange)
}

/// A request on its way.
#[derive(Debug)]
pub struct Pending(Arc<Exchange>);

/// What a server answers.
pub type Answer = Response<Box<dyn Read + Send>>;

#[derive(Debug)]
struct Exchange {
    state: Mutex<State>,
    /// It is answered or over.
    ended: Condvar,
}

#[derive(Debug)]
enum State {
    /// No thread of the server has looked at it.
    Queued,
    Begun,
    Answered(Answer),
    /// One side has given up.
    Over,
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Waits for the answer: so long for the server to begin, and then so long again.
    ///
    /// # Errors
    /// `WouldBlock`: the server has not begun, and will not. `TimedOut`: it has begun, and nobody knows how far it comes.
    /// `ConnectionAborted`: it failed.
    pub fn answer(self, patience: Duration) -> io::Result<Answer> {
        let Exchange { ended, .. } = &*self.0;
        let mut state = self.0.lock();
        // Who begins wakes nobody: mostly the answer is there long before the first time is over.
        let is_open = |state: &mut State| matches!(state, State::Queued | State::Begun);
        for _ in 0..2 {
            (state, _) = ended.wait_timeout_while(state, patience, is_open).unwrap_or_else(PoisonError::into_inner);
            if !matches!(*state, State::Begun) {
                break;
            }
        }
        match std::mem::replace(&mut *state, State::Over) {
            State::Answered(answer) => Ok(answer),
            State::Queued => Err(io::ErrorKind::WouldBlock.into()),
            State::Begun => Err(io::ErrorKind::TimedOut.into()),
            State::Over => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Takes requests out.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
}

impl Server {
    /// Listens nowhere: `addr` is only what [`Self::server_addr`] gives.
    ///
    /// # Errors
    /// When it is no address.
    pub fn http<A: ToSocketAddrs>(addr: A) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let addr = addr.to_socket_addrs()?.next().ok_or("no address")?;
        Ok(Self { addr })
    }

    #[must_use]
    pub fn server_addr(&self) -> ListenAddr {
        ListenAddr(self.addr)
    }

    fn requests() -> MutexGuard<'static, Receiver<Request>> {
        REQUESTS.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every request, as it comes.
    pub fn incoming_requests(&self) -> impl Iterator<Item = Request> {
        std::iter::from_fn(|| Self::requests().recv().ok())
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// None; tiny_http has some.
    pub fn try_recv(&self) -> io::Result<Option<Request>> {
        Ok(Self::requests().try_recv().ok())
    }

    /// The next request, if one comes in time.
    ///
    /// # Errors
    /// None; tiny_http has some.
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<Request>> {
        Ok(Self::requests().recv_timeout(timeout).ok())
    }
}

/// Where a server would listen.
#[derive(Debug)]
pub struct ListenAddr(SocketAddr);

impl ListenAddr {
    #[must_use]
    pub fn to_ip(self) -> Option<SocketAddr> {
        Some(self.0)
    }
}

/// A header line of a request or of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub field: Cow<'static, str>,
    pub value: String,
}

impl Header {
    /// # Errors
    /// When it is no line of text.
    pub fn from_bytes(field: &[u8], value: &[u8]) -> Result<Self, &'static str> {
        let line = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).ok()?;
            (!text.contains(['\r', '\n'])).then(|| text.to_owned())
        };
        let field = line(field).filter(|field| !field.is_empty() && !field.contains(':'));
        let (field, value) = field.zip(line(value)).ok_or("not a line of text")?;
        Ok(Self { field: field.into(), value })
    }
}

/// A request that was read whole.
#[derive(Debug)]
pub struct Request {
    method: Method,
    url: String,
    headers: Vec<Header>,
    body: Body,
}

#[derive(Debug)]
pub struct Method(String);

impl Method {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reading from it, be it empty, begins the exchange.
#[derive(Debug)]
struct Body {
    bytes: Cursor<Vec<u8>>,
    exchange: Arc<Exchange>,
    begun: bool,
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            let mut state = self.exchange.lock();
            if !matches!(*state, State::Queued) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            *state = State::Begun;
            self.begun = true;
        }
        self.bytes.read(buf)
    }
}

impl Request {
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Whose connection it is, is known to the one who owns it.
    #[must_use]
    pub fn remote_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// The body. An error: nobody waits for the answer any more, and nothing should be done.
    pub fn as_reader(&mut self) -> &mut dyn Read {
        &mut self.body
    }

    /// # Errors
    /// None; tiny_http has some.
    pub fn respond<R: Read + Send + 'static>(self, response: Response<R>) -> io::Result<()> {
        let Response { status, headers, data, length } = response;
        let answer = Response { status, headers, data: Box::new(data) as Box<_>, length };
        let mut state = self.body.exchange.lock();
        if !matches!(*state, State::Over) {
            *state = State::Answered(answer);
        }
        Ok(())
    }

    /// No connection can be had from here: `response` is the answer, and the stream is at its end.
    pub fn upgrade<R: Read + Send + 'static>(self, _: &str, response: Response<R>) -> Box<dyn ReadWrite + Send> {
        let _ = self.respond(response);
        Box::new(Cursor::new(Vec::new()))
    }
}

/// Whoever waits learns that there is an answer, or that there will be none.
impl Drop for Body {
    fn drop(&mut self) {
        let mut state = self.exchange.lock();
        if !matches!(*state, State::Answered(_)) {
            *state = State::Over;
        }
        drop(state);
        self.exchange.ended.notify_one();
    }
}

/// Both directions of a connection.
pub trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// What a request is answered with.
pub struct Response<R> {
    pub status: u16,
    pub headers: Vec<Header>,
    pub data: R,
    /// Bytes in `data`; None: nobody knows before its end.
    pub length: Option<usize>,
}

impl<R> fmt::Debug for Response<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response<Empty> {
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), data: io::empty(), length: Some(0) }
    }
}

impl<R> Response<R> {
    pub fn with_data<S>(self, data: S, length: Option<usize>) -> Response<S> {
        Response { status: self.status, headers: self.headers, data, length }
    }

    pub fn add_header(&mut self, header: Header) {
        self.headers.push(header);
    }
}
