//! What is used of a request that was read whole.

use std::time::Duration;

/// Largest body, in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// As it came, query included.
    pub(crate) target: &'a str,
    pub(crate) accept: Option<&'a str>,
    pub(crate) authorization: Option<&'a str>,
    /// `Livepeer-Payment`.
    pub(crate) payment: Option<&'a str>,
    /// `Livepeer`.
    pub(crate) job: Option<&'a str>,
    pub(crate) if_none_match: Option<&'a str>,
    /// It has Livepeer-Runner-Route: an orchestrator's proxy sent it for an unknown client.
    pub(crate) proxied: bool,
    /// The client takes answers that are compressed with gzip.
    pub(crate) gzip: bool,
    /// It began after SIGTERM.
    pub(crate) late: bool,
    /// From its last byte to the handler.
    pub(crate) waited: Duration,
    /// As many requests are in progress as may be: it is counted and refused.
    pub(crate) surplus: bool,
    /// None: larger than [`MAX_BODY`], and discarded.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(crate) fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of a parameter of the query, as it came: of the first with this name, and empty without a `=`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&'a str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}
