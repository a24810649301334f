//! GET /openapi.json: all routes and their answers, for tools. A test makes the document of the table of routes, the
//! structs that are sent and `openapi/tests/parts.json`, and compares it.

/// OpenAPI 3.1, compressed by build.rs.
pub(crate) const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));

#[cfg(test)]
pub(super) mod tests;
