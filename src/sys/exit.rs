//! Exit codes. 0 to 3 are what Nagios and Icinga expect of a check.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// Degraded, a check that failed, or a server that could not go on.
    Failed = 1,
    Unhealthy = 2,
    /// Unknown or unreachable.
    Unknown = 3,
    /// A command line that nobody understands.
    Usage = 64,
    /// A setting that cannot be used.
    Config = 78,
}

impl Exit {
    /// Ends the process from any thread; what was logged has a moment to be written.
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
