//! Exit codes. 0 to 3 are those that Nagios and Icinga expect of a check.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// Degraded, a failed check, or a server that cannot continue.
    Failed = 1,
    Unhealthy = 2,
    /// Unknown or unreachable.
    Unknown = 3,
    /// Invalid command line.
    Usage = 64,
    /// Invalid setting.
    Config = 78,
}

impl Exit {
    /// Ends the process from any thread, after a moment for the log to be written.
    pub(crate) fn now(self) -> ! {
        log::logger().flush();
        std::process::exit(self as i32)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
