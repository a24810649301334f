//! Livepeer: registration at orchestrators, payment tickets, and the pre-flight check of payment flags.

pub(crate) mod kept_secrets;
pub(crate) mod lease;
pub(crate) mod orchestrator;
pub(crate) mod pace;
pub(crate) mod payments;
pub(crate) mod registrar;
pub(crate) mod registries;
pub(crate) mod runner;
pub(crate) mod tickets;
