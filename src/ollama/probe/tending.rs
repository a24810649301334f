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
    /// `unanswered`: probes without an answer in a row so far.
    pub(crate) fn new(settings: ProbeSettings, unanswered: u32) -> Self {
        Self { probes: ProbeState::new(settings, unanswered), heal: HealState::default() }
    }
}
