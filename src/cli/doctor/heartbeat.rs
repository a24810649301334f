//! `doctor`'s look at the push monitor: its server responds. No heartbeat is sent.

use std::time::Duration;

use super::diagnosis::Finding;
use crate::config::Config;
use crate::notify::call::{Caller, Message};
use crate::outgoing;

const DEADLINE: Duration = Duration::from_secs(10);

/// Nothing without HEARTBEAT_URL.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let Some(heartbeat) = &config.heartbeat else { return Vec::new() };
    let tls = match outgoing::tls(&config.notify.tls) {
        Ok(tls) => tls,
        Err(why) => return vec![Finding::fail("heartbeat", format!("NOTIFY_TLS: {why}"), "Fix NOTIFY_TLS.")],
    };
    let shown = heartbeat.url.shown();
    // The root is not a monitor. Any answer proves connection and certificate.
    let root = shown.trim_end_matches('…');
    vec![match Caller::new(tls).send(&heartbeat.url, root, &Message::default(), DEADLINE) {
        Ok(_) => Finding::pass("heartbeat", format!("the server of {shown} responds; no heartbeat was sent")),
        Err(why) => Finding::fail(
            "heartbeat",
            format!("{shown}: {why}"),
            "Check HEARTBEAT_URL, NOTIFY_TLS and the network. The monitor reports this worker as dead.",
        ),
    }]
}
