//! What every room may use: threads, files, signals, limits, the resolver and the log. It depends on no other room.

pub(crate) mod backoff;
pub(crate) mod counters;
pub(crate) mod error_codes;
pub(crate) mod exit;
pub(crate) mod explanation;
pub(crate) mod exposition;
pub(crate) mod files;
pub(crate) mod hash;
pub(crate) mod header_names;
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod logger;
pub(crate) mod meminfo;
pub(crate) mod order;
pub(crate) mod process;
pub(crate) mod resolver;
pub(crate) mod secrets;
pub(crate) mod signals;
pub(crate) mod status_table;
pub(crate) mod systemd;
pub(crate) mod text;
pub(crate) mod text_file;
pub(crate) mod threads;
pub(crate) mod unix_socket;
pub(crate) mod version;
pub(crate) mod version_file;
