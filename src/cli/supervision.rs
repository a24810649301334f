//! What the worker's supervisor learns of it: systemd gets its status and a sign of life, and every supervisor an exit when
//! it stops serving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::local;
use crate::config::{Config, WatchdogTest};
use crate::health::snapshot_store::SnapshotStore;
use crate::health::standing::Standing;
use crate::http::Port;
use crate::sys::exit::Exit;
use crate::sys::limits::unix_now;
use crate::sys::systemd::Systemd;
use crate::sys::threads;

/// How often the watchdog asks, how long it waits, and how many failures in a row end the process.
const WATCHDOG_PAUSE: Duration = Duration::from_secs(30);
const WATCHDOG_DEADLINE: Duration = Duration::from_secs(10);
const WATCHDOG_FAILURES: u32 = 3;
/// A pause takes at most a third of systemd's timeout, a deadline a twelfth. So one check may fail, which takes two deadlines:
/// two pauses and three deadlines fit. A busy machine needs the shortest deadline in any case.
const PAUSES: u32 = 3;
const DEADLINES: u32 = 12;
const SHORTEST_DEADLINE: Duration = Duration::from_secs(1);
/// Whatever WATCHDOG_USEC says: looking all the time takes a core.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// A sample that gets too old changes the status without a new one.
const STATUS_PAUSE: Duration = Duration::from_secs(5);
const STATUS_LENGTH: usize = 200;

/// Ends the process when it stops serving, so that its supervisor restarts it. `serves`: what the last look found.
///
/// # Errors
/// The kernel's, when it gives no thread.
pub(super) fn watch_over(
    addr: SocketAddr,
    port: Port,
    config: &Config,
    systemd: &Arc<Systemd>,
    serves: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    let addr = local::reachable(addr.ip(), addr.port());
    let (systemd, serves) = (Arc::clone(systemd), Arc::clone(serves));
    let limit = systemd.watchdog().unwrap_or(Duration::MAX);
    let pause = pause(config.faults.watchdog_scale(), limit);
    // Only a deaf worker makes it wait for the whole deadline.
    let deaf = config.faults.watchdog == Some(WatchdogTest::Deaf);
    let deadline =
        if deaf { WATCHDOG_DEADLINE / 10 } else { WATCHDOG_DEADLINE }.min((limit / DEADLINES).max(SHORTEST_DEADLINE));
    let watch = move || {
        let mut failures = 0;
        while failures < WATCHDOG_FAILURES {
            thread::sleep(pause);
            let alive = is_alive(addr, &port, deadline);
            failures = if alive { 0 } else { failures + 1 };
            serves.store(alive, Ordering::Release);
            if alive {
                systemd.alive();
            }
        }
        log::error!(
            "http://{addr}/health did not respond with 200 {failures} times in a row: exiting so that the supervisor restarts the worker"
        );
        Exit::Failed.now();
    };
    threads::service("watchdog", watch)
}

/// Between two looks. `limit`: of systemd.
fn pause(scale: u32, limit: Duration) -> Duration {
    (WATCHDOG_PAUSE / scale).min((limit / PAUSES).max(SHORTEST_PAUSE))
}

/// A 200 of /health proves that the worker serves. It is requested through the public port, where a slow driver or Ollama
/// delays nothing. But clients that hold all connections keep the watchdog out as well, and a server under attack must not
/// end while it serves. So two other proofs together suffice: connections are still accepted, even if only to be closed,
/// and /health responds with 200 within the process, without a connection.
fn is_alive(addr: SocketAddr, port: &Port, deadline: Duration) -> bool {
    let before = port.accepted();
    let answer = local::health(addr, deadline);
    if matches!(answer, Ok(200)) {
        return true;
    }
    let (accepts, within) = (port.accepted() != before, port.health(deadline));
    log::debug!("watchdog: public port: {answer:?}; connections accepted: {accepts}; within the process: {within:?}");
    accepts && within == Some(200)
}

/// Keeps the line of `systemctl status` current; nothing without systemd.
///
/// # Errors
/// The kernel's, when it gives no thread.
pub(super) fn report_status(
    systemd: &Arc<Systemd>,
    store: &Arc<SnapshotStore>,
    sample_interval: Duration,
) -> std::io::Result<()> {
    if !systemd.listens() {
        return Ok(());
    }
    let (systemd, store) = (Arc::clone(systemd), Arc::clone(store));
    let report = move || {
        let (mut latest, mut shown) = (None, String::new());
        loop {
            latest = store.wait_changed(latest.as_ref(), STATUS_PAUSE);
            let line = latest.as_ref().map_or_else(
                || "no sample yet".to_owned(),
                |snapshot| {
                    let age = snapshot.at.elapsed();
                    Standing::new(snapshot, sample_interval, age, unix_now()).summary(STATUS_LENGTH)
                },
            );
            systemd.repeat();
            if line != shown && systemd.status(&line) {
                shown = line;
            }
        }
    };
    threads::service("systemd", report)
}

#[test]
fn the_watchdog_looks_three_times_within_systemds_limit_and_never_all_the_time() {
    let of = |limit: Duration| pause(1, limit);
    assert_eq!((of(Duration::MAX), of(Duration::from_secs(30))), (WATCHDOG_PAUSE, Duration::from_secs(10)));
    assert_eq!((of(Duration::from_micros(1)), of(Duration::from_millis(3))), (SHORTEST_PAUSE, SHORTEST_PAUSE));
}
