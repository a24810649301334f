//! `ack`: tells the worker of this machine that the operator knows of the errors so far.

use super::settings::Settings;
use crate::edge::probe;
use crate::exit::Exit;

pub(super) fn run(settings: &Settings) -> Exit {
    let config = &settings.config;
    let own = format!("http://{}", probe::reachable(config.host, config.port));
    match probe::acknowledge(&own, config.worker_token.as_ref()) {
        Ok(body) => super::print(&(body + "\n")),
        Err(why) => {
            super::complain(&why.to_string());
            Exit::Unknown
        }
    }
}
