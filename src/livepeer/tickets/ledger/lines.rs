//! The file as lines that are read one after the other, and where each of them is.

use serde::de::IgnoredAny;

use super::entry::Entry;

/// Where a line is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A file, read from its start.
pub(crate) trait Lines {
    /// The next line; None at the end of the text.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn next(&mut self) -> Result<Option<Piece<'_>>, String>;

    /// Reads a line again.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn again(&mut self, place: Place) -> Result<Vec<u8>, String>;

    /// The ends of the text and of the file: only NUL bytes are between them.
    fn ends(&self) -> (u64, u64);
}

/// One line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// With its newline.
    pub(crate) place: Place,
    /// Without its newline; None: longer than any line of ours.
    pub(crate) bytes: Option<&'a [u8]>,
    /// It ends with a newline.
    pub(crate) whole: bool,
}

impl Piece<'_> {
    /// None: damaged.
    pub(crate) fn entry(&self) -> Option<Entry> {
        serde_json::from_slice(self.bytes?).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes.trim_ascii().is_empty())
    }

    /// It looks like a write cut short by a kill or a power loss. A complete JSON value does not.
    pub(super) fn looks_torn(&self) -> bool {
        let begun = |bytes: &[u8]| b"{\"".starts_with(&bytes[..bytes.len().min(2)]) || bytes[0] == 0;
        let ended = |bytes: &[u8]| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        !self.whole && self.bytes.is_some_and(|bytes| begun(bytes) && !ended(bytes))
    }
}
