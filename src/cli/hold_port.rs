//! `hold-port`: holds the port at which jobs arrive, and gives its listening socket to workers. The port stays open while a
//! worker is replaced: connections wait in the kernel's queue. It accepts none of them itself.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::output;
use crate::config::Config;
use crate::config::settings::Settings;
use crate::http;
use crate::sys::exit::Exit;
use crate::sys::logger::Background;
use crate::sys::signals::{self, Signal};
use crate::sys::text::io_words;
use crate::sys::{threads, unix_socket};

/// Workers that are connected at a time. One more takes the place of the oldest, which connects again: clients that say
/// nothing look like workers, and must not keep one from the port.
const MOST_WORKERS: usize = 16;
/// Workers of an earlier holder keep the port until they have noticed its end.
const PORT_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker that makes a socket in the same folder, such as its control.sock, locks the folder for a moment.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(settings: &Settings) -> Exit {
    let config = &settings.config;
    let Some(path) = config.port_socket.as_deref().map(Path::new) else {
        output::complain(
            "PORT_SOCKET is unset: set it to the path of a Unix socket in a folder shared with the worker",
        );
        return Exit::Config;
    };
    let log = match Background::install(config.log_level) {
        Ok(log) => log,
        Err(why) => {
            output::complain(&format!("cannot start: {why}"));
            return Exit::Failed;
        }
    };
    match hold(config, path) {
        Ok(()) => Exit::Ok,
        Err(why) => {
            log.print(&format!("agent-net: {why}"));
            Exit::Failed
        }
    }
}

fn hold(config: &Config, path: &Path) -> Result<(), String> {
    let signals = signals::watch_stop().map_err(|why| format!("cannot start: {why}"))?;
    let addr = SocketAddr::new(config.host, config.port);
    let bind = || http::bind(addr, config.host_chosen);
    let bound = repeat(&signals, io::ErrorKind::AddrInUse, PORT_TIMEOUT, bind)
        .map_err(|why| format!("cannot listen on {addr} (SERVER_HOST, SERVER_PORT): {}", io_words(&why)))?;
    let Some(listener) = bound else { return Ok(()) };
    let addr = listener.local_addr().map_err(|why| format!("cannot start: {why}"))?;
    let cannot = |why: io::Error| format!("PORT_SOCKET={}: cannot listen there: {why}", path.display());
    let listen = || unix_socket::listen_at(path);
    let listens = repeat(&signals, io::ErrorKind::WouldBlock, SOCKET_TIMEOUT, listen).map_err(cannot)?;
    let Some(socket) = listens else { return Ok(()) };
    socket.set_nonblocking(true).map_err(cannot)?;
    let own = identity(path);
    log::info!("holding {addr} for the workers that connect to {}", path.display());
    threads::service("hold-port", move || serve(&socket, &listener)).map_err(|why| format!("cannot start: {why}"))?;
    loop {
        match signals.recv() {
            Ok(Signal::Stop(name)) => {
                log::info!("{name}: stopping; the port closes");
                // Another holder may start from now on. One that runs already has made this file.
                if own.is_some() && identity(path) == own {
                    let _ = fs::remove_file(path);
                }
                return Ok(());
            }
            Ok(_) => {}
            Err(_) => return Err("no signal thread".into()),
        }
    }
}

/// Which file is at `path` now.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Tries again while this is the error. None: a signal came first.
fn repeat<T>(
    signals: &Receiver<Signal>,
    kind: io::ErrorKind,
    timeout: Duration,
    what: impl Fn() -> io::Result<T>,
) -> io::Result<Option<T>> {
    let end = Instant::now() + timeout;
    let mut waits = false;
    loop {
        match what() {
            Err(why) if why.kind() == kind && Instant::now() < end => {
                if !std::mem::replace(&mut waits, true) {
                    log::info!("{}: retrying for {} s", io_words(&why), timeout.as_secs());
                }
            }
            done => return done.map(Some),
        }
        if let Ok(Signal::Stop(name)) = signals.recv_timeout(PAUSE) {
            log::info!("{name}: stopping");
            return Ok(None);
        }
    }
}

/// Gives the socket to every worker that connects, and keeps the connection open: its end shows the worker that this program
/// has ended.
fn serve(socket: &UnixListener, listener: &TcpListener) {
    let mut workers: Vec<UnixStream> = Vec::new();
    let (mut failing, mut many) = (false, false);
    loop {
        let mut waits = vec![PollFd::new(socket, PollFlags::IN)];
        waits.extend(workers.iter().map(|worker| PollFd::new(worker, PollFlags::IN)));
        match poll(&mut waits, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => thread::sleep(PAUSE),
        }
        // A worker sends nothing, so an event means that it has gone.
        let mut gone = waits.iter().skip(1).map(|wait| !wait.revents().is_empty()).collect::<Vec<_>>().into_iter();
        workers.retain(|_| !gone.next().unwrap_or_default());
        match socket.accept() {
            Ok((worker, _)) => {
                failing = false;
                if workers.len() >= MOST_WORKERS {
                    workers.remove(0);
                    if !std::mem::replace(&mut many, true) {
                        log::warn!(
                            "more than {MOST_WORKERS} workers connect to this port, and take turns: give some of them another \
                             PORT_SOCKET. This is logged once"
                        );
                    }
                }
                match http::give(&worker, listener) {
                    Ok(()) => workers.push(worker),
                    // Another holder, or doctor, has only checked whether this one runs.
                    Err(why) if why.kind() == io::ErrorKind::BrokenPipe => {}
                    Err(why) => log::warn!("cannot give the port to a worker: {why}"),
                }
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("cannot accept a worker: {why}; retrying");
                }
                thread::sleep(PAUSE);
            }
        }
    }
}
