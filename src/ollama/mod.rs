//! Ollama: its models, how they are pulled and kept loaded, and the client that asks.

pub(crate) mod client;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod keeper;
pub(crate) mod keepers;
pub(crate) mod models;
pub(crate) mod pull;
pub(crate) mod state;
