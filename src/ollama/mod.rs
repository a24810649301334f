//! Ollama: the client, its models, and how they are pulled and kept loaded.

pub(crate) mod client;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod keeper;
pub(crate) mod keeper_thread;
pub(crate) mod models;
pub(crate) mod probe;
pub(crate) mod pull;
pub(crate) mod runner;
pub(crate) mod state;
