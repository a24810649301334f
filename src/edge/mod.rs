//! One outside thing per file; every call has a deadline and a size limit.

pub(crate) mod disk;
pub(crate) mod gpus;
pub(crate) mod guard;
#[cfg(feature = "nvml")]
pub(crate) mod helper;
pub(crate) mod http;
pub(crate) mod kmsg;
pub(crate) mod limits;
pub(crate) mod logger;
pub(crate) mod ollama;
pub(crate) mod orchestrator;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod secrets;
pub(crate) mod signals;
pub(crate) mod surroundings;
pub(crate) mod tegra;
pub(crate) mod text_file;
