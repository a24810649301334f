//! What the worker answers: routes, report, metrics, page and OpenAPI.

pub(crate) mod agents;
pub(crate) mod answers;
pub(crate) mod codes_answer;
pub(crate) mod contract;
pub(crate) mod gpu_row;
pub(crate) mod hardware;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod report;
pub(crate) mod route;
pub(crate) mod text;
pub(crate) mod worker;
