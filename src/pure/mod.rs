//! Values in, values out: no I/O, no clock, no log.

pub(crate) mod agents;
pub(crate) mod answers;
pub(crate) mod body;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod contract;
pub(crate) mod diagnosis;
pub(crate) mod exposition;
pub(crate) mod go;
pub(crate) mod gpu;
pub(crate) mod gpu_row;
pub(crate) mod hardware;
pub(crate) mod history;
pub(crate) mod inside;
pub(crate) mod keeper;
pub(crate) mod lease;
pub(crate) mod legacy;
pub(crate) mod meminfo;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod openapi;
pub(crate) mod pace;
pub(crate) mod page;
pub(crate) mod pci;
pub(crate) mod plausible;
pub(crate) mod pm;
pub(crate) mod pull;
pub(crate) mod recent;
pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod report;
pub(crate) mod route;
pub(crate) mod rules;
pub(crate) mod runner;
pub(crate) mod schedule;
pub(crate) mod sight;
pub(crate) mod snapshot;
pub(crate) mod text;
pub(crate) mod uptime;
pub(crate) mod url;
pub(crate) mod verdict;
pub(crate) mod wire;
pub(crate) mod xid;

#[cfg(test)]
pub(crate) mod tests;
