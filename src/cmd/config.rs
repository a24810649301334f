//! `config`: the effective settings and where each came from, secrets masked.

use super::settings::Settings;
use crate::exit::Exit;
use crate::pure::config::SETTINGS;

pub(super) fn run(settings: &Settings) -> Exit {
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
