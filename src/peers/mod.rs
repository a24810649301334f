//! Other workers: what their reports say, and how they are asked.

mod client;
pub(crate) mod report;
pub(crate) mod row;
mod schedule;
pub(crate) mod watch;
