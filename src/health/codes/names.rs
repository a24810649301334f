//! The public name of a code, and what it is about.

use std::fmt;

use super::entry::{Entry, Group};
use super::table::{Code, TABLE};

impl Code {
    fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The public name.
    pub(crate) fn name(self) -> &'static str {
        self.entry().name
    }

    /// Where GET /codes explains it.
    pub(crate) fn help(self) -> &'static str {
        self.entry().help
    }

    /// It is about driver and GPUs, not about Ollama or the past: the GPU uptime counts these alone.
    pub(crate) fn of_gpus(self) -> bool {
        !matches!(self.entry().group, Group::Ollama | Group::Uptime)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
