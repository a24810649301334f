//! The verdict: rules and their reason codes, the sampler that applies them, uptime and history.

mod acknowledged;
pub(crate) mod codes;
pub(crate) mod gpu_watch;
pub(crate) mod history;
pub(crate) mod model_readiness;
pub(crate) mod once;
pub(crate) mod recent;
pub(crate) mod recorder;
pub(crate) mod rules;
pub(crate) mod sampler;
pub(crate) mod severity;
pub(crate) mod snapshot;
pub(crate) mod snapshot_store;
pub(crate) mod source;
pub(crate) mod standing;
pub(crate) mod streak;
pub(crate) mod uptime;
pub(crate) mod uptime_file;
pub(crate) mod verdict;
mod worked;
