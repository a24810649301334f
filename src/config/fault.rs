//! AGENT_NET_FAULT: faults that tests ask a worker for. It is not a setting: no help, list or document has it.

use crate::config::error::ConfigError;

pub(crate) const VARIABLE: &str = "AGENT_NET_FAULT";

/// What a test asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Faults {
    /// `hurry:N`: registrations, submissions, models and helpers are watched this many times faster, timeouts included.
    pub(crate) time_scale: u32,
    /// `panic:AGENT_ID`: jobs of this agent panic.
    pub(crate) panic_agent: Option<String>,
    /// `panic-thread:NAME`: this thread panics once when it starts.
    pub(crate) panic_thread: Option<String>,
    pub(crate) watchdog: Option<WatchdogTest>,
}

/// What the watchdog is tested with. It asks [`WATCHDOG_SCALE`] times as often then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchdogTest {
    /// `deaf`: nothing is accepted after the first connection.
    Deaf,
    /// `sick`: /health is answered with 503.
    Sick,
    /// `watched`: nothing is wrong.
    Watched,
}

const WATCHDOG_SCALE: u32 = 100;

impl Default for Faults {
    fn default() -> Self {
        Self { time_scale: 1, panic_agent: None, panic_thread: None, watchdog: None }
    }
}

impl Faults {
    /// # Errors
    /// An unknown fault.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let watched = |test| Self { time_scale: WATCHDOG_SCALE, watchdog: Some(test), ..Self::default() };
        let known = match (text, text.split_once(':')) {
            ("", _) => Some(Self::default()),
            ("deaf", _) => Some(watched(WatchdogTest::Deaf)),
            ("sick", _) => Some(watched(WatchdogTest::Sick)),
            ("watched", _) => Some(watched(WatchdogTest::Watched)),
            (_, Some(("panic", agent))) => Some(Self { panic_agent: Some(agent.to_owned()), ..Self::default() }),
            (_, Some(("panic-thread", name))) => Some(Self { panic_thread: Some(name.to_owned()), ..Self::default() }),
            (_, Some(("hurry", times))) => {
                let times = times.parse().ok().filter(|times| *times > 0);
                times.map(|time_scale| Self { time_scale, ..Self::default() })
            }
            _ => None,
        };
        known.ok_or_else(|| {
            ConfigError::value(
                VARIABLE,
                text,
                "must be panic:AGENT_ID, panic-thread:NAME, hurry:TIMES, deaf, sick or watched",
            )
        })
    }

    /// How many times faster the watchdog is.
    pub(crate) fn watchdog_scale(&self) -> u32 {
        if self.watchdog.is_some() { self.time_scale } else { 1 }
    }
}
