//! Values in, values out: no I/O, no clock, no log.

pub(crate) mod config;
pub(crate) mod contract;
pub(crate) mod gpu;
pub(crate) mod inside;
pub(crate) mod models;
pub(crate) mod reply;
pub(crate) mod route;
pub(crate) mod schedule;
pub(crate) mod snapshot;
pub(crate) mod text;
pub(crate) mod url;
pub(crate) mod verdict;
pub(crate) mod wire;
