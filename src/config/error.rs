//! A setting that cannot be used.

use std::fmt;

/// Characters of a value. The longest valid name of a capability fits.
const LONGEST_SHOWN: usize = 128;

/// One line about one setting: what was set, and what is valid. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    name: &'static str,
    message: String,
}

impl ConfigError {
    /// `value` is quoted with escapes, so that the message stays one line, and cut where it is long.
    pub(crate) fn value(name: &'static str, value: &str, problem: &str) -> Self {
        let end = value.char_indices().nth(LONGEST_SHOWN);
        let value = end.map_or_else(|| value.to_owned(), |(end, _)| format!("{}…", &value[..end]));
        Self { name, message: format!("{name}={value:?}: {problem}") }
    }

    /// `message` is a whole sentence that names the setting.
    pub(crate) fn sentence(name: &'static str, message: String) -> Self {
        Self { name, message }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
