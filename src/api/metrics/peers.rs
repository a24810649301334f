//! The workers of PEERS.

use crate::peers::row::PeerRow;
use crate::sys::exposition::{Exposition, flag, gauge, metrics};

metrics! {
    UP = gauge("agent_net_peer_up", &["peer"], "1 while a worker of PEERS sends its report.");
}

/// Writes all rows; nothing where PEERS is not set.
pub(crate) fn write(out: &mut Exposition, rows: &[PeerRow]) {
    out.samples(&UP, rows.iter().map(|row| (vec![row.peer.as_str()], row.reachable.map(flag))));
}
