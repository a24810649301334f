//! The calls of HEARTBEAT_URL.

use crate::notify::heartbeat::{Beat, HeartbeatRow};
use crate::sys::exposition::{Exposition, counter, gauge, metrics};

metrics! {
    BEATS = counter("agent_net_heartbeats_total", &["result"], "Calls of the push monitor that were due, by result.");
    LAST_SUCCESS = gauge(
        "agent_net_heartbeat_last_success_timestamp_seconds", &[],
        "Unix time of the last call that the push monitor accepted."
    );
}

/// Nothing without HEARTBEAT_URL.
pub(crate) fn write(out: &mut Exposition, rows: &[HeartbeatRow]) {
    let Some(row) = rows.first() else { return };
    out.family(&BEATS);
    for beat in Beat::ALL {
        out.sample(&[beat.name()], Some(row.counts[beat as usize] as f64));
    }
    out.single(&LAST_SUCCESS, row.last_success);
}
