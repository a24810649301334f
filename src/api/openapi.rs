//! GET /openapi.json: all routes and their answers, for tools. A test makes the document of the table of routes, the
//! structs that are sent and `openapi/tests/parts.json`, and compares it.

/// OpenAPI 3.1.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
pub(super) mod tests;
