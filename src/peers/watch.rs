//! The threads that ask the peers, and what they found. Handlers only read it: no request waits for a peer.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::tls::TlsConfig;

use super::client::Client;
use super::row::{Known, PeerRow};
use super::schedule::{self, AT_ONCE, Next, Slot};
use crate::config::{PeersConfig, SecretUrl};
use crate::sys::limits::unix_now;
use crate::sys::threads;

/// The peers of PEERS, each once.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: Vec<Peer>,
    state: Mutex<State>,
    changed: Condvar,
    started: Instant,
    time_scale: u32,
}

#[derive(Debug)]
struct Peer {
    /// Host, port and path.
    name: String,
    /// Without login and query.
    base: String,
    url: SecretUrl,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    known: Vec<Known>,
    /// When GET /peers was last asked for.
    looked: Option<Duration>,
}

impl Peer {
    fn new(url: &SecretUrl) -> Self {
        let base = url.expose().split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let name = base.split_once("://").map_or(base.as_str(), |(_, name)| name).to_owned();
        Self { name, base, url: url.clone() }
    }
}

/// Asks each peer once, all at the same time. Its name, and why it does not report.
pub(crate) fn ask_once(config: &PeersConfig, tls: TlsConfig) -> Vec<(String, Result<(), String>)> {
    let client = &Client::new(tls);
    thread::scope(|scope| {
        let ask = |url| {
            let peer = Peer::new(url);
            let asked = scope.spawn(move || client.report(&peer.url, &peer.base).map(drop));
            (Peer::new(url).name, asked)
        };
        let asked: Vec<_> = config.urls.iter().map(ask).collect();
        let failed = |_| Err("a defect of agent-net".to_owned());
        asked.into_iter().map(|(name, asked)| (name, asked.join().unwrap_or_else(failed))).collect()
    })
}

/// A peer is asked; it can be asked again when this is dropped, also by a panic.
struct Turn<'a> {
    peers: &'a Peers,
    at: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.peers.lock().slots[self.at].busy = false;
        self.peers.changed.notify_all();
    }
}

impl Peers {
    /// Starts the threads; none without peers.
    ///
    /// # Errors
    /// The kernel's, when no thread can be started.
    pub(crate) fn start(config: &PeersConfig, tls: TlsConfig, time_scale: u32) -> io::Result<Arc<Self>> {
        let mut peers: Vec<Peer> = Vec::new();
        for peer in config.urls.iter().map(Peer::new) {
            if !peers.iter().any(|known| known.name == peer.name) {
                peers.push(peer);
            }
        }
        let count = peers.len();
        let state = State { slots: vec![Slot::default(); count], known: vec![Known::default(); count], looked: None };
        let (state, changed, started) = (Mutex::new(state), Condvar::new(), Instant::now());
        let all = Arc::new(Self { peers, state, changed, started, time_scale });
        let client = Arc::new(Client::new(tls));
        for _ in 0..AT_ONCE.min(count) {
            let (all, client) = (Arc::clone(&all), Arc::clone(&client));
            threads::service("peers", move || all.watch(&client))?;
        }
        Ok(all)
    }

    /// The rows in the order of PEERS. From now on the peers are asked more often for a while.
    pub(crate) fn look(&self) -> Vec<PeerRow> {
        let now = self.now();
        self.lock().looked = Some(now);
        self.changed.notify_all();
        self.rows()
    }

    pub(crate) fn rows(&self) -> Vec<PeerRow> {
        let known = self.lock().known.clone();
        let now = self.started.elapsed();
        self.peers.iter().zip(&known).map(|(peer, known)| known.row(&peer.name, &peer.base, now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the start, by the clock of the schedule.
    fn now(&self) -> Duration {
        self.started.elapsed() * self.time_scale
    }

    fn watch(&self, client: &Client) {
        loop {
            let turn = self.turn();
            let peer = &self.peers[turn.at];
            let answer = client.report(&peer.url, &peer.base);
            let (failure, at, unix) = (answer.as_ref().err().cloned(), self.started.elapsed(), unix_now());
            let before = {
                let mut state = self.lock();
                let known = &mut state.known[turn.at];
                let before = known.is_reachable();
                known.hear(answer, at, unix);
                let slot = &mut state.slots[turn.at];
                slot.failures = if failure.is_some() { slot.failures.saturating_add(1) } else { 0 };
                before
            };
            drop(turn);
            match failure {
                Some(why) if before != Some(false) => log::warn!("peer {}: {why}", peer.name),
                None if before == Some(false) => log::info!("peer {} responds again", peer.name),
                _ => {}
            }
        }
    }

    /// Waits for a peer that is due.
    fn turn(&self) -> Turn<'_> {
        let mut state = self.lock();
        loop {
            let now = self.now();
            match schedule::next(&state.slots, state.looked, now) {
                Next::Ask(at) => {
                    state.slots[at] = Slot { began: Some(now), busy: true, ..state.slots[at] };
                    return Turn { peers: self, at };
                }
                Next::Wait(time) => {
                    let waited = self.changed.wait_timeout(state, time / self.time_scale);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}
