//! Whether the workers of PEERS report.

use super::diagnosis::Finding;
use crate::config::Config;
use crate::outgoing;
use crate::peers::watch;
use crate::sys::text::counted;

/// Peers that are named; the status page lists all.
const NAMED: usize = 3;

/// Nothing without PEERS.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let settings = &config.peers;
    if settings.urls.is_empty() {
        return Vec::new();
    }
    let tls = match outgoing::tls(&settings.tls) {
        Ok(tls) => tls,
        Err(why) => return vec![Finding::fail("peers", format!("PEERS_TLS: {why}"), "Fix PEERS_TLS.")],
    };
    let asked = watch::ask_once(settings, tls);
    let silent: Vec<String> =
        asked.iter().filter_map(|(name, answer)| Some(format!("{name}: {}", answer.as_ref().err()?))).collect();
    if silent.is_empty() {
        return vec![Finding::pass("peers", format!("{} of PEERS respond", counted(asked.len(), "worker")))];
    }
    let named = silent[..silent.len().min(NAMED)].join("; ");
    let detail = format!("{} of {} in PEERS do not report: {named}", silent.len(), counted(asked.len(), "worker"));
    vec![Finding::warn("peers", detail, "Start these workers, or check PEERS, PEERS_TLS and the network.")]
}
