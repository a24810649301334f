//! What a request is answered with, before it becomes bytes.

use super::body_parts::Body;

/// A shorter body is not compressed.
const WORTH_COMPRESSING: usize = 1024;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    /// Beside those that every answer has.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<Body>) -> Self {
        Self { status, content_type: "application/json", headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn text(body: String) -> Self {
        Self { content_type: "text/plain; charset=utf-8", ..Self::json(200, body) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With `Vary`, and compressed where the client takes gzip.
    pub(crate) fn compressed(mut self, takes_gzip: bool) -> Self {
        match self.headers.iter_mut().find(|(name, _)| *name == "Vary") {
            Some((_, value)) => value.push_str(", Accept-Encoding"),
            None => self.headers.push(("Vary", "Accept-Encoding".into())),
        }
        let is_known = self.status == 304;
        let worth = takes_gzip && !is_known && self.body.len() >= WORTH_COMPRESSING;
        let packed = worth.then(|| self.body.gzip()).flatten();
        // A strong ETag would say that these are the same bytes.
        if packed.is_some() || (is_known && takes_gzip) {
            for (_, etag) in self.headers.iter_mut().filter(|(name, _)| *name == "ETag") {
                etag.insert_str(0, "W/");
            }
        }
        if packed.is_some() {
            self.headers.push(("Content-Encoding", "gzip".into()));
        }
        self.body = packed.unwrap_or_else(|| self.body.plain());
        self
    }
}
