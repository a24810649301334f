//! GET /openapi.json: everything that the worker answers, for tools. The paths are written by hand, the schemas come from
//! the structs that are sent: a test writes them, and fails when they were not up to date.

use std::sync::LazyLock;

use serde_json::Value;

const PATHS: &str = include_str!("openapi/paths.json");
const SCHEMAS: &str = include_str!("openapi/schemas.json");
/// A job's answer, from a run on the tests' fakes.
const REPORT: &str = include_str!("openapi/report.json");

/// The document, OpenAPI 3.1, put together when it is first asked for.
pub(crate) static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // The tests read all of them.
    let read = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut document = read(PATHS);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["schemas"] = read(SCHEMAS);
    document["components"]["examples"]["Report"]["value"] = read(REPORT);
    document.to_string()
});

#[cfg(test)]
pub(super) mod tests;
