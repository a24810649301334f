//! The decisions about one loaded model beyond keeping it loaded.

use super::heal::HealState;
use super::state::ProbeState;
use crate::config::ProbeSettings;

#[derive(Debug)]
pub(crate) struct Tending {
    pub(crate) probes: ProbeState,
    pub(crate) heal: HealState,
}

impl Tending {
    pub(crate) fn new(settings: ProbeSettings) -> Self {
        Self { probes: ProbeState::new(settings), heal: HealState::default() }
    }
}
