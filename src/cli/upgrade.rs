//! What a start logs after an upgrade or a downgrade: the other version, and settings that now do something else.

use std::net::SocketAddr;

use crate::config::{Config, Protocol};
use crate::sys::version::VERSION;

/// What a worker with these settings does that 0.1.0 did not. `addr`: where it listens.
pub(super) fn changes_since_0_1(config: &Config, addr: SocketAddr) -> Vec<&'static str> {
    let orchestrators = &config.orchestrators;
    let both = orchestrators.protocol == Protocol::Auto && config.worker_token.is_none();
    let probes = !config.models.names.is_empty() && config.models.probe.interval.is_some();
    let all = [
        (
            !orchestrators.urls.is_empty() && both,
            "ORCH_PROTOCOL=auto registers with BYOC and with Live Runner where an orchestrator has both; for BYOC alone set \
             ORCH_PROTOCOL=byoc",
        ),
        (probes, "a loaded model of MODEL is regularly asked for 16 tokens; to stop that set PROBE_INTERVAL=off"),
        (
            !config.host_chosen && addr.is_ipv6(),
            "the port is open on IPv6 as well; for IPv4 alone set SERVER_HOST=0.0.0.0",
        ),
    ];
    all.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect()
}

/// Logs that the last start with this STATE_DIR was of version `last`.
pub(super) fn report(last: &str, changes: &[&str]) {
    log::info!(
        "the last start with this STATE_DIR was {last}, this one is {VERSION}; CHANGELOG.md lists the differences"
    );
    for change in changes.iter().filter(|_| last.starts_with("0.1.")) {
        log::warn!("new since {last}: {change}");
    }
}
