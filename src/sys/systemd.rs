//! systemd's notifications (sd_notify): one datagram with `KEY=VALUE` lines to the socket of NOTIFY_SOCKET. Without that
//! variable nothing is sent, and errors change nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::text::io_words;

/// What systemd gives to the service alone: a child must not speak for it.
pub(crate) const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// READY could not be sent: systemd would wait for it, then end the service.
    owes_ready: AtomicBool,
    /// The status stays "stopping".
    stops: AtomicBool,
}

impl Systemd {
    pub(crate) fn from_env() -> Self {
        let to = env::var_os(VARIABLES[0]).and_then(|name| open(&name).transpose());
        let to = to.transpose().unwrap_or_else(|why| {
            log::debug!("NOTIFY_SOCKET: {}", io_words(&why));
            None
        });
        let text = |name| env::var(name).ok();
        let ours = text(VARIABLES[2]).is_none_or(|pid| pid.parse() == Ok(process::id()));
        let micros = text(VARIABLES[1]).and_then(|micros| micros.parse().ok()).filter(|micros| ours && *micros > 0);
        Self { watchdog: micros.filter(|_| to.is_some()).map(Duration::from_micros), to, ..Self::default() }
    }

    /// Whether anything that is sent has a reader.
    pub(crate) fn listens(&self) -> bool {
        self.to.is_some()
    }

    /// Systemd restarts the service when it does not hear [`Systemd::alive`] for this long.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// The service is up, or has read its files again.
    pub(crate) fn ready(&self) {
        let sent = self.send("READY=1");
        self.owes_ready.store(!sent, Ordering::Release);
    }

    /// Tries again what did not reach a busy systemd.
    pub(crate) fn repeat(&self) {
        if self.owes_ready.load(Ordering::Acquire) {
            self.ready();
        }
    }

    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(crate) fn stopping(&self) {
        self.owes_ready.store(false, Ordering::Release);
        self.stops.store(true, Ordering::Release);
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// One line for `systemctl status`; false: it was not sent.
    pub(crate) fn status(&self, line: &str) -> bool {
        !self.stops.load(Ordering::Acquire) && self.send(&format!("STATUS={line}"))
    }

    fn send(&self, text: &str) -> bool {
        let Some((socket, to)) = &self.to else { return false };
        let sent = socket.send_to_addr(text.as_bytes(), to);
        if let Err(why) = &sent {
            log::debug!("NOTIFY_SOCKET: {}", io_words(why));
        }
        sent.is_ok()
    }
}

/// None: a kind of socket that is not for a process of this machine (vsock), or no name.
fn open(name: &OsStr) -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Ok(None),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the thread that serves.
    socket.set_nonblocking(true)?;
    Ok(Some((socket, to)))
}

#[test]
fn a_service_that_stops_keeps_that_status() {
    let name = format!("agent-net-unit-test-{}", process::id());
    let own = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    own.set_nonblocking(true).unwrap();
    let systemd = Systemd { to: open(OsStr::new(&format!("@{name}"))).unwrap(), ..Systemd::default() };
    assert!(systemd.status("ok"));
    systemd.owes_ready.store(true, Ordering::Release);
    systemd.stopping();
    systemd.repeat();
    assert!(!systemd.status("degraded: TEMP_HIGH GPU 0"));
    let mut bytes = [0; 100];
    let mut next = || own.recv(&mut bytes).ok().map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned());
    assert_eq!(next().as_deref(), Some("STATUS=ok"));
    assert_eq!(next().as_deref(), Some("STOPPING=1\nSTATUS=stopping"));
    assert_eq!(next(), None);
}
