//! Every setting: one table with its name, default, valid values and meaning, and what a run reads from it.
//! Only `settings` reads the process environment and files.

pub(crate) mod amd_gpus;
mod capability;
mod conflicts;
mod error;
mod fault;
pub(crate) mod go;
pub(crate) mod limits;
mod login;
mod models;
mod notify;
mod ollama;
mod orchestrators;
pub(crate) mod price;
mod secret;
mod secret_url;
mod setting;
pub(crate) mod settings;
pub(crate) mod table;
mod tls;
pub(crate) mod url;
mod values;

pub(crate) use capability::Capability;
pub(crate) use fault::WatchdogTest;
pub(crate) use login::Login;
pub(crate) use models::{KeepAlive, MAX_MODEL_NAME, Models, ProbeSettings, is_model_name, model_name_problem};
pub(crate) use notify::{HeartbeatConfig, NotifyFormat, NotifyTarget, PeersConfig};
pub(crate) use ollama::OllamaConfig;
pub(crate) use orchestrators::{Protocol, RunnerConfig};
pub(crate) use secret::Secret;
pub(crate) use secret_url::SecretUrl;
pub(crate) use setting::{Kind, Setting, duration};
pub(crate) use table::{Config, SETTINGS};
pub(crate) use tls::TlsRule;

#[cfg(test)]
mod tests;
