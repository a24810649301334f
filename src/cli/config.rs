//! `config`: the effective settings and their sources, secrets masked; or this worker's entry for an orchestrator's
//! runners.json.

use std::time::Duration;

use pico_args::Arguments;
use serde_json::{Value, json};

use super::output;
use crate::config::settings::{self, Settings};
use crate::config::url;
use crate::config::{Config, Kind, SETTINGS, Setting};
use crate::health::once;
use crate::livepeer::runner::{self, Cards};
use crate::ollama::state::OllamaState;
use crate::sys::exit::Exit;

/// NVIDIA's driver takes up to 25 s to start.
const READINGS: Duration = Duration::from_secs(30);

/// What is printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Lines,
    Json,
    RunnerEntry,
}

/// Takes `--json` and `--runner-json` out of `args`.
///
/// # Errors
/// When both are there.
pub(super) fn form(args: &mut Arguments) -> Result<Form, String> {
    match (args.contains("--json"), args.contains("--runner-json")) {
        (true, true) => Err("--json cannot be combined with --runner-json".into()),
        (true, false) => Ok(Form::Json),
        (false, true) => Ok(Form::RunnerEntry),
        (false, false) => Ok(Form::Lines),
    }
}

pub(super) fn run(settings: &Settings, form: Form) -> Exit {
    output::print(&match form {
        Form::Lines => SETTINGS.iter().map(|setting| line(settings, setting)).collect(),
        Form::Json => {
            let all: Vec<Value> = SETTINGS.iter().map(|setting| object(settings, setting)).collect();
            json!({ "settings": all }).to_string() + "\n"
        }
        Form::RunnerEntry => runner_entry(&settings.config),
    })
}

/// With the GPUs as they are now.
fn runner_entry(config: &Config) -> String {
    let mut cards = Cards::default();
    let now = once::once(config, OllamaState::PENDING, READINGS / config.faults.time_scale);
    cards.see(&now.gpu);
    if cards.first().is_none() {
        output::complain(
            "cannot read a GPU here: the entry has none, and clients that filter by GPU do not find it; run agent-net doctor",
        );
    }
    if config.worker_token.is_some() {
        output::complain(
            "WORKER_TOKEN is set: the Live Runner's proxy cannot send it, not even for /ready, so this entry stays hidden",
        );
    }
    let (own, capacity) = (&config.orchestrators.runner, config.capability.capacity);
    let url = settings::worker_url(config, config.port);
    if let Some(why) = url.trouble() {
        output::complain(&format!("CAPABILITY_URL is {}: {why}", url.as_str()));
    }
    runner::static_entry(own, url.as_str(), capacity, &cards)
}

/// Its value as it may be shown, and its source; empty: it is off.
fn shown(settings: &Settings, setting: &Setting) -> (String, String) {
    match settings.set(setting.name) {
        Some((_, source)) if setting.secret => ("***".to_owned(), source.to_string()),
        Some((value, source)) if matches!(setting.kind, Kind::LoginUrl) => (url::masked(value), source.to_string()),
        Some((value, source)) => (value.to_owned(), source.to_string()),
        None => (by_default(&settings.config, setting), "default".to_owned()),
    }
}

/// Some defaults depend on other settings, and on the machine.
fn by_default(config: &Config, setting: &Setting) -> String {
    match setting.name {
        // With port 0 it is known once the worker listens.
        "CAPABILITY_URL" if config.port != 0 => settings::worker_url(config, config.port).as_str().to_owned(),
        "RUNNER_ID" if !config.capability.names.is_empty() => config.orchestrators.runner.id.clone(),
        _ => setting.default.to_owned(),
    }
}

fn line(settings: &Settings, setting: &Setting) -> String {
    let (value, source) = shown(settings, setting);
    // The value stays on one line.
    format!("{}={}  # {source}\n", setting.name, value.escape_default())
}

fn object(settings: &Settings, setting: &Setting) -> Value {
    let (value, source) = shown(settings, setting);
    json!({ "name": setting.name, "value": Some(value).filter(|value| !value.is_empty()), "source": source })
}
