//! What the worker answers: the table of routes, report, metrics, page and OpenAPI.

pub(crate) mod agents;
pub(crate) mod answers;
pub(crate) mod capability_names;
pub(crate) mod codes_answer;
pub(crate) mod dispatcher;
pub(crate) mod fields;
pub(crate) mod gpu_row;
pub(crate) mod hardware;
pub(crate) mod job;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod parameters;
pub(crate) mod ready;
pub(crate) mod report;
pub(crate) mod router;
pub(crate) mod routes;
pub(crate) mod text;
pub(crate) mod worker;
