//! `config`: the effective settings and where each came from, secrets masked; or this worker's entry for an
//! orchestrator's runners.json.

use super::settings::{self, Settings};
use crate::exit::Exit;
use crate::pure::config::SETTINGS;
use crate::pure::runner;

pub(super) fn run(settings: &Settings, runner_json: bool) -> Exit {
    if runner_json {
        let config = &settings.config;
        let (own, capacity) = (&config.orchestrators.runner, config.capability.capacity);
        let url = settings::worker_url(config, config.port);
        return super::print(&runner::static_entry(own, url.as_str(), capacity));
    }
    let mut text = String::new();
    for setting in SETTINGS {
        let (value, source) = match settings.set(setting.name) {
            Some((value, source)) => (value, source.to_string()),
            None => (setting.default, "default".to_owned()),
        };
        let shown = match value {
            "" => "",
            _ if setting.secret => "***",
            // What it holds is one line, whatever was set.
            value => &value.escape_default().to_string(),
        };
        text.push_str(&format!("{}={shown}  # {source}\n", setting.name));
    }
    super::print(&text)
}
